//! References such as `registry.example:5000/name/path:tag@sha256:…`. There are no defaults:
//! neither a registry nor a tag is assumed. Hosts are kept in lower case, as names are compared.

use crate::digest::{Digest, DigestError};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Enough for the longest registry, repository, tag and digest.
const REFERENCE_CHARS: usize = 512;
/// The registry and the repository, as the distribution specification recommends.
const NAME_CHARS: usize = 255;
const TAG_CHARS: usize = 128;

/// The host of a registry, with its port if it has one, in the one form in which hosts are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost(String);

/// An artifact in a registry, by its tag or by its digest. If both are given, the digest counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: RegistryHost,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error(
        "a reference has at most {REFERENCE_CHARS} characters, and its registry and repository {NAME_CHARS} of them"
    )]
    TooLong,
    #[error(
        "the registry is missing: begin with its host, as in registry.example/name:tag or localhost:5000/name:tag"
    )]
    NoRegistry,
    #[error("{0:?} is not a registry: write its host, with a port if it has one")]
    Registry(String),
    /// Docker expands this name; it is not the host of the registry.
    #[error("docker.io is not the host of a registry: write registry-1.docker.io")]
    DockerHub,
    #[error(
        "{0:?} is not a repository: write lowercase letters and digits, with single . _ or - between, and / between parts"
    )]
    Repository(String),
    #[error(
        "{0:?} is not a tag: write at most {TAG_CHARS} letters, digits, _ . or -, and neither . nor - first"
    )]
    Tag(String),
    #[error("there is no digest after the @: {0}")]
    Digest(DigestError),
    #[error("the version is missing: add :tag or @sha256:…; there is no tag by default")]
    NoVersion,
}

impl Reference {
    /// The registry's host, with its port if it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry.0
    }

    pub(crate) fn host(&self) -> &RegistryHost {
        &self.registry
    }

    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the artifact is pinned to.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same, pinned to this digest.
    #[must_use]
    pub fn pinned(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// What is requested from the registry: the digest if there is one, else the tag.
    pub(crate) fn version(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone().unwrap_or_default(),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > REFERENCE_CHARS {
            return Err(ReferenceError::TooLong);
        }
        let text = text.strip_prefix("oci://").unwrap_or(text);
        let (text, digest) = match text.split_once('@') {
            Some((before, digest)) => {
                (before, Some(digest.parse().map_err(ReferenceError::Digest)?))
            }
            None => (text, None),
        };
        let (registry, path) = text.split_once('/').ok_or(ReferenceError::NoRegistry)?;
        let host: RegistryHost = registry.parse()?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if registry.len().saturating_add(repository.len()) >= NAME_CHARS {
            return Err(ReferenceError::TooLong);
        }
        if !repository.split('/').all(is_path_part) {
            return Err(ReferenceError::Repository(repository.to_owned()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        if tag.is_none() && digest.is_none() {
            return Err(ReferenceError::NoVersion);
        }
        Ok(Self {
            registry: host,
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RegistryHost {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.to_ascii_lowercase();
        if text != "localhost" && !text.contains(['.', ':']) {
            return Err(ReferenceError::NoRegistry);
        }
        let end = text.rfind(']').unwrap_or(0);
        let colon = text.rfind(':').filter(|colon| *colon > end);
        let (host, port) = match colon.and_then(|colon| text.split_at_checked(colon)) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => (text.as_str(), None),
        };
        if host == "docker.io" || host == "index.docker.io" {
            return Err(ReferenceError::DockerHub);
        }
        match (canonical_host(host), port) {
            (Some(host), None) => Ok(Self(host)),
            (Some(host), Some(port)) if is_port(port) => Ok(Self(format!("{host}:{port}"))),
            _ => Err(ReferenceError::Registry(text)),
        }
    }
}

/// A host in lower case: a name, or an address in its shortest form.
fn canonical_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]"));
    }
    let is_name = host.split('.').all(|label| {
        has_plain_ends(label) && label.chars().all(|each| is_plain(each) || each == '-')
    });
    is_name.then(|| host.to_owned())
}

fn is_port(port: &str) -> bool {
    port.chars().all(|digit| digit.is_ascii_digit())
        && !port.starts_with('0')
        && port.parse::<u16>().is_ok()
}

fn is_path_part(part: &str) -> bool {
    let is_separator = |between: &str| {
        ["", ".", "_", "__"].contains(&between) || between.chars().all(|each| each == '-')
    };
    has_plain_ends(part) && part.split(is_plain).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |each: char| each.is_ascii_alphanumeric() || each == '_';
    tag.len() <= TAG_CHARS
        && tag.starts_with(is_word)
        && tag.chars().all(|each| is_word(each) || each == '.' || each == '-')
}

fn has_plain_ends(text: &str) -> bool {
    text.starts_with(is_plain) && text.ends_with(is_plain)
}

fn is_plain(each: char) -> bool {
    each.is_ascii_lowercase() || each.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn every_part_is_parsed() {
        let digest = Digest::of(b"");
        let reference =
            parse(&format!("oci://registry.example:5000/a/b__c-d/e.f:V1.0-x@{digest}")).unwrap();
        assert_eq!(
            (reference.registry(), reference.repository()),
            ("registry.example:5000", "a/b__c-d/e.f")
        );
        assert_eq!((reference.tag(), reference.digest()), (Some("V1.0-x"), Some(digest)));
        assert_eq!(reference.version(), digest.to_string());
        for fine in [
            "localhost/a:b",
            "localhost:1/a:b",
            "[::1]:5000/a:b",
            "127.0.0.1:5000/a:b",
            "r.example/a--b:c",
        ] {
            assert_eq!(parse(fine).unwrap().to_string(), fine);
        }
    }

    #[test]
    fn a_host_has_one_form() {
        for (text, expected) in [
            ("GHCR.io/team/pricing:1", "ghcr.io/team/pricing:1"),
            ("oci://Registry.Example:5000/a:V1", "registry.example:5000/a:V1"),
            ("[FD00:0:0:0::1]:5000/a:b", "[fd00::1]:5000/a:b"),
            ("[0:0:0:0:0:0:0:1]/a:b", "[::1]/a:b"),
            ("LOCALHOST:5000/a:b", "localhost:5000/a:b"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!(reference.to_string(), expected);
            assert_eq!(reference, parse(expected).unwrap());
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        for (text, expected) in [
            ("name:tag", "registry is missing"),
            ("library/name:tag", "registry is missing"),
            ("docker.io/library/name:tag", "registry-1"),
            ("Docker.IO/library/name:tag", "registry-1"),
            ("[fd00::1%eth0]:5000/name:tag", "not a registry"),
            ("fd00::1/name:tag", "not a registry"),
            ("r.example:0/name:tag", "not a registry"),
            ("r.example:65536/name:tag", "not a registry"),
            ("r..example/name:tag", "not a registry"),
            ("[::1/name:tag", "not a registry"),
            ("r.example/Name:tag", "not a repository"),
            ("r.example/a//b:tag", "not a repository"),
            ("r.example/a..b:tag", "not a repository"),
            ("r.example/../b:tag", "not a repository"),
            ("r.example/:tag", "not a repository"),
            ("r.example/name:.tag", "not a tag"),
            ("r.example/name:", "not a tag"),
            ("r.example/name:a:b", "not a tag"),
            ("r.example/name", "no tag by default"),
            ("r.example/name@sha512:00", "other algorithms"),
            ("user:password@r.example/name:tag", "no digest"),
            ("https://r.example/name:tag", "not a registry"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(matches!(
            parse(&format!("r.example/a:{}", "b".repeat(129))),
            Err(ReferenceError::Tag(_))
        ));
        assert!(matches!(
            parse(&format!("r.example/{}:b", "a".repeat(250))),
            Err(ReferenceError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,64}") {
            let _ = parse(&text);
        }

        #[test]
        fn similar_texts_are_survived(text in r"[a-z\[\]:./@_-]{0,40}(@sha256:[0-9a-f]{60,66})?") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(parse(&reference.to_string()).unwrap(), reference);
            }
        }

        #[test]
        fn what_is_shown_is_parsed_again(
            host in "[a-z]{1,9}\\.[a-z]{1,9}(:[1-9][0-9]{0,3})?", path in "[a-z0-9]{1,9}(/[a-z0-9]{1,4}(__|-{1,3})[a-z0-9]{1,9}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", digest in proptest::option::of(any::<[u8; 4]>())
        ) {
            let digest = digest.map(|bytes| format!("@{}", Digest::of(&bytes))).unwrap_or_default();
            let text = format!("{host}/{path}:{tag}{digest}");
            let reference = parse(&text).unwrap();
            prop_assert_eq!(reference.to_string(), text);
        }
    }
}
