//! Public host keys of the pods' SSH servers: customers know a pod by them.

use crate::limits;
use crate::model::invalid_name::InvalidName;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A public host key in OpenSSH's form: its kind and its data, without a comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostKey(String);

impl HostKey {
    /// Reads one line of a `.pub` file; a comment is left out.
    ///
    /// # Errors
    /// [`InvalidName`]: the line is none.
    pub fn parse(line: &str) -> Result<Self, InvalidName> {
        let mut fields = line.split_ascii_whitespace();
        let (kind, data) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let is_kind = kind.bytes().all(|c| c.is_ascii_alphanumeric() || b"-.@".contains(&c));
        if !is_kind || line.len() > limits::PUBLIC_KEY_BYTES || decode(kind, data).is_none() {
            return Err(InvalidName {
                what: "a public host key",
                rule: "its kind and its data in base64, as in an OpenSSH .pub file,",
            });
        }
        Ok(Self(format!("{kind} {data}")))
    }

    /// The keys among these lines, which may be anything: as many as a pod has at most.
    pub fn parse_all<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Self> {
        lines.filter_map(|line| Self::parse(line).ok()).take(limits::HOST_KEYS).collect()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `ssh-ed25519`, for example.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.fields().0
    }

    /// As `ssh` and `ssh-keygen -l` print it: `SHA256:` and the hash of the data.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let (kind, data) = self.fields();
        let hash = Sha256::digest(decode(kind, data).unwrap_or_default());
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }

    /// Its line in a `known_hosts` file, for a server at this host and port.
    #[must_use]
    pub fn known_hosts_line(&self, host: &str, port: u16) -> String {
        match port {
            22 => format!("{host} {self}"),
            port => format!("[{host}]:{port} {self}"),
        }
    }

    fn fields(&self) -> (&str, &str) {
        self.0.split_once(' ').unwrap_or_default()
    }
}

/// The data, if they are of this kind: they begin with its name, and its length before it.
fn decode(kind: &str, data: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(data).ok()?;
    let length = u32::try_from(kind.len()).ok()?.to_be_bytes();
    let key = bytes.strip_prefix(&length)?.strip_prefix(kind.as_bytes())?;
    (!kind.is_empty() && !key.is_empty()).then_some(bytes)
}

impl TryFrom<String> for HostKey {
    type Error = InvalidName;

    fn try_from(line: String) -> Result<Self, InvalidName> {
        Self::parse(&line)
    }
}

impl From<HostKey> for String {
    fn from(key: HostKey) -> Self {
        key.0
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::HOST_KEY;

    #[test]
    fn a_key_has_the_fingerprint_that_ssh_keygen_prints() {
        let key = HostKey::parse(&format!("{HOST_KEY} root@pod\n")).unwrap();
        assert_eq!((key.as_str(), key.kind()), (HOST_KEY, "ssh-ed25519"));
        assert_eq!(key.fingerprint(), "SHA256:8OeLl3bkK0H4v+fv62QA9B4CRd6m066tI3XvG85R0ls");
    }

    #[test]
    fn a_known_hosts_line_names_the_port_unless_it_is_that_of_ssh() {
        let key = HostKey::parse(HOST_KEY).unwrap();
        assert_eq!(
            key.known_hosts_line("node.example.com", 20_427),
            format!("[node.example.com]:20427 {HOST_KEY}")
        );
        assert_eq!(key.known_hosts_line("2001:db8::1", 22), format!("2001:db8::1 {HOST_KEY}"));
    }

    #[test]
    fn whatever_is_no_key_does_not_parse() {
        let data = HOST_KEY.split_once(' ').unwrap().1;
        for line in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            "* ssh-ed25519 AAAA",
            &format!("ssh-rsa {data}"),
            &format!("@cert-authority * {HOST_KEY}"),
            &format!("ssh-ed25519 {data}!"),
            &format!("ssh-ed25519 {data} {}", "x".repeat(limits::PUBLIC_KEY_BYTES)),
        ] {
            assert!(HostKey::parse(line).is_err(), "{line}");
        }
        assert!(serde_json::from_str::<HostKey>("\"ssh-ed25519 AAAA\"").is_err());
    }

    #[test]
    fn a_key_is_stored_as_its_line() {
        let key = HostKey::parse(HOST_KEY).unwrap();
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{HOST_KEY}\""));
        assert_eq!(serde_json::from_str::<HostKey>(&json).unwrap(), key);
    }
}
