//! The name of an SSH user.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Used when the customer names no user.
const DEFAULT: &str = "user";
/// System users of common images; a login under these names would meet an existing home or a locked
/// account.
const RESERVED: &[&str] = &[
    "root",
    "daemon",
    "bin",
    "sys",
    "sync",
    "games",
    "man",
    "lp",
    "mail",
    "news",
    "uucp",
    "proxy",
    "backup",
    "list",
    "irc",
    "nobody",
    "sshd",
    "systemd-network",
    "messagebus",
    "postfix",
    "operator",
    "shutdown",
    "halt",
    "ftp",
    "adm",
];

/// The user that a customer logs in as, `[a-z_][a-z0-9_-]{0,31}`. A name that is stored is read as
/// it is: another version may reserve other names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Username(String);

/// Why a text is no [`Username`]; it follows the name of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsername {
    #[error(
        "must be 1 to 32 lower-case letters, digits, '-' or '_', and must begin with a letter or '_'"
    )]
    Form,
    #[error("is the name of a system user; choose another one")]
    Reserved,
}

impl Username {
    /// Checks what a customer asks for.
    ///
    /// # Errors
    /// [`InvalidUsername`].
    pub fn parse(name: &str) -> Result<Self, InvalidUsername> {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_');
        let rest =
            bytes.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-');
        if !(first && rest && name.len() <= 32) {
            return Err(InvalidUsername::Form);
        }
        if RESERVED.contains(&name) {
            return Err(InvalidUsername::Reserved);
        }
        Ok(Self(name.to_owned()))
    }

    /// That of an order of which it is not kept.
    pub(super) fn not_kept() -> Self {
        Self(String::new())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Username {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reaches_no_shell_and_no_system_user() {
        for good in ["alice", "_x", "a-b_c9", "user", &"a".repeat(32)] {
            let name = Username::parse(good).unwrap();
            assert_eq!((name.as_str(), name.to_string()), (good, good.to_owned()));
        }
        for bad in ["", "A", "0a", "-x", "a b", "a;rm", "a\0", "\u{fc}nal", &"a".repeat(33)] {
            assert_eq!(Username::parse(bad), Err(InvalidUsername::Form), "{bad:?}");
        }
        for name in RESERVED {
            assert_eq!(Username::parse(name), Err(InvalidUsername::Reserved), "{name}");
        }
        assert_eq!(Username::parse(DEFAULT), Ok(Username::default()));
    }

    #[test]
    fn a_stored_name_is_read_and_written_as_it_is() {
        for name in ["alice", "root", "", "0a"] {
            let read: Username = serde_json::from_value(name.into()).unwrap();
            assert_eq!(read.as_str(), name);
            assert_eq!(serde_json::to_value(&read).unwrap(), name);
        }
        assert!(serde_json::from_value::<Username>(7.into()).is_err());
    }
}
