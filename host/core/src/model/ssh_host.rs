//! Where customers log in to a pod, as the cluster says it: part of commands, of `known_hosts` lines
//! and of messages.

use crate::limits;
use crate::model::invalid_name::InvalidName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host name or an IP address, without a port. An IPv6 address has no brackets, as `ssh` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshHost(String);

impl SshHost {
    /// Reads a host name, an IPv4 address, or an IPv6 address with brackets or without. Names are
    /// kept in lower case: `ssh` looks them up so.
    ///
    /// # Errors
    /// [`InvalidName`]: it is neither, or an address that no single host has.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => text.parse::<IpAddr>().ok(),
        };
        match address {
            Some(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(Self(ip.to_string())),
            None if is_name(text) => Ok(Self(text.to_ascii_lowercase())),
            _ => Err(InvalidName {
                what: "a host to log in to",
                rule: "a host name or an IP address, without a port,",
            }),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether it is a name of RFC 1123, and not what may be read as an address.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=limits::HOST_LABEL_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let is_number = |label: &str| label.bytes().all(|c| c.is_ascii_digit());
    text.len() <= limits::HOST_NAME_BYTES
        && text.split('.').all(is_label)
        && text.rsplit('.').next().is_none_or(|last| !is_number(last))
}

impl TryFrom<String> for SshHost {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<SshHost> for String {
    fn from(host: SshHost) -> Self {
        host.0
    }
}

impl fmt::Display for SshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for (text, host) in [
            ("node-1.example.com", "node-1.example.com"),
            ("Node-1", "node-1"),
            ("1a.example", "1a.example"),
            ("203.0.113.7", "203.0.113.7"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            let parsed = SshHost::parse(text).unwrap();
            assert_eq!(parsed.as_str(), host, "{text}");
            let json = serde_json::to_string(&parsed).unwrap();
            assert_eq!(json, format!("\"{host}\""));
            assert_eq!(serde_json::from_str::<SshHost>(&json).unwrap(), parsed);
        }
    }

    #[test]
    fn whatever_a_shell_ssh_or_a_terminal_would_take_for_more_is_none() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = ["a".repeat(60).as_str(); 5].join(".");
        for text in [
            "",
            ".",
            "node.",
            "-oProxyCommand=x",
            "node.-a",
            "node a",
            "node\nother",
            "node,other",
            "*.example",
            "a_b.example",
            "node:22",
            "node;reboot",
            "$(reboot)",
            "\u{1b}[2J",
            "n\u{f6}de",
            "203.0.113",
            "203.0.113.256",
            "[203.0.113.7]",
            "[node]",
            "fe80::1%eth0",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            &long,
            &longer,
        ] {
            assert!(SshHost::parse(text).is_err(), "{text}");
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<SshHost>(&json).is_err(), "{text}");
        }
    }
}
