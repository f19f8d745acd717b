//! OCI image references, parsed as container runtimes do.

use paygress_policy_sdk::{MAX_IMAGE_BYTES, is_hex_of_32_bytes};
use std::fmt;

/// Why a name is not an image reference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InvalidReference {
    Length,
    Syntax(&'static str),
}

impl fmt::Display for InvalidReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(f, "an image name must have 1 to {MAX_IMAGE_BYTES} bytes"),
            Self::Syntax(reason) => write!(f, "not an image name: {reason}"),
        }
    }
}

impl std::error::Error for InvalidReference {}

/// `registry/repository[:tag][@digest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Parses a name as people write it; a missing registry is `docker.io`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() || text.len() > MAX_IMAGE_BYTES {
            return Err(InvalidReference::Length);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; before it, the port of the registry.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        // The first component is a registry if it has a dot or a port, or is `localhost`.
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = match repository.contains('/') || registry != "docker.io" {
            true => repository,
            false => format!("library/{repository}"),
        };
        let checks = [
            (is_registry(registry), "the registry must be a host name with an optional port"),
            (
                repository.split('/').all(is_component),
                "the repository may have lower-case letters, digits and single separators . _ -",
            ),
            (tag.is_none_or(is_tag), "the tag must have 1 to 128 letters, digits, _ . -"),
            (
                digest.is_none_or(is_digest),
                "the digest must be sha256: and 64 lower-case hex digits",
            ),
        ];
        if let Some((_, reason)) = checks.iter().find(|(is_valid, _)| !is_valid) {
            return Err(InvalidReference::Syntax(reason));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// With exactly one of digest and tag: a tag beside a digest has no meaning, and the default
    /// tag is `latest`.
    pub(crate) fn complete(mut self) -> Self {
        self.tag = match &self.digest {
            Some(_) => None,
            None => Some(self.tag.unwrap_or_else(|| "latest".to_owned())),
        };
        self
    }

    /// Whether it names a whole repository, without a tag or digest.
    pub(crate) fn is_repository(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Whether this entry of an allowlist allows a complete reference.
    pub(crate) fn allows(&self, requested: &Self) -> bool {
        let same_repository =
            self.registry == requested.registry && self.repository == requested.repository;
        let same_content = match (&self.digest, &self.tag) {
            (Some(digest), _) => requested.digest.as_ref() == Some(digest),
            (None, Some(tag)) => requested.digest.is_none() && requested.tag.as_ref() == Some(tag),
            (None, None) => true,
        };
        same_repository && same_content
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    let is_port_valid = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port)
    });
    host.split('.').all(label) && is_port_valid
}

fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends =
        bytes.first().is_some_and(is_alphanumeric) && bytes.last().is_some_and(is_alphanumeric);
    let separators = bytes
        .split(is_alphanumeric)
        .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|c| *c == b'-'));
    ends && separators
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|c| is_word(c) || c == b'.' || c == b'-')
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex_of_32_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (text, complete) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine:latest", "docker.io/library/alpine:latest"),
            ("team/app:1", "docker.io/team/app:1"),
            ("localhost/app", "localhost/app:latest"),
            ("host:5000/app", "host:5000/app:latest"),
            ("host.example:5000/a/b_c/d--e:v.1", "host.example:5000/a/b_c/d--e:v.1"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().complete().to_string(), complete);
        }
    }

    #[test]
    fn malformed_names_are_rejected() {
        for bad in [
            "",
            ":",
            "@",
            "a@",
            "a@sha256:",
            "a@sha256:ABC",
            "a:b:c",
            "A",
            "a//b",
            "/a",
            "a/",
            "a b",
            "a\n",
            "a;b",
            "$(x)",
            "http://a/b",
            "..",
            "a/../b",
            "host:0/a",
            "host:99999/a",
            "host:05/a",
            "-h.example/a",
            "a:-x",
            "a.evil@b/c",
            "ä",
            "a___b",
            "a._b",
            "h.example:5000@x/y",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
