//! The jump host's own key, which the operator has: customers know the gateway by it.

use paygress_core::model::secret::Secret;
use paygress_sshd::new_host_key;
use russh::keys::ssh_key::{self, LineEnding};
use russh::keys::{Algorithm, PrivateKey};
use std::fmt;

/// An Ed25519 key. It is never printed.
#[derive(Clone)]
pub struct GatewayHostKey(PrivateKey);

/// Why a text is no host key, or none was made.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error(
        "the gateway's host key is not an OpenSSH private key: make one with `ssh-keygen -t ed25519 -N ''`"
    )]
    Invalid(#[source] ssh_key::Error),
    #[error("the gateway's host key has a passphrase: remove it with `ssh-keygen -p -N ''`")]
    Encrypted,
    #[error(
        "the gateway's host key is of another kind: make one with `ssh-keygen -t ed25519 -N ''`"
    )]
    NotEd25519,
    #[error("no host key can be made: the system has no randomness")]
    NotMade(#[source] paygress_sshd::Error),
    #[error("the gateway's host key cannot be written as text")]
    NotWritten(#[source] ssh_key::Error),
}

impl HostKeyError {
    /// Its code, for the operator's programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "host-key-invalid",
            Self::Encrypted => "host-key-encrypted",
            Self::NotEd25519 => "host-key-kind",
            Self::NotMade(_) => "host-key-not-made",
            Self::NotWritten(_) => "host-key-not-written",
        }
    }
}

impl GatewayHostKey {
    /// A new one.
    ///
    /// # Errors
    /// [`HostKeyError::NotMade`].
    pub fn generate() -> Result<Self, HostKeyError> {
        new_host_key().map(Self).map_err(HostKeyError::NotMade)
    }

    /// Parses the file of a private key as `ssh-keygen` writes it.
    ///
    /// # Errors
    /// [`HostKeyError`]: it is none, has a passphrase or is of another kind.
    pub fn parse(text: &Secret) -> Result<Self, HostKeyError> {
        let key = PrivateKey::from_openssh(text.expose()).map_err(HostKeyError::Invalid)?;
        if key.is_encrypted() {
            return Err(HostKeyError::Encrypted);
        }
        match key.algorithm() {
            Algorithm::Ed25519 => Ok(Self(key)),
            _ => Err(HostKeyError::NotEd25519),
        }
    }

    /// The text that [`parse`](Self::parse) reads, to be kept.
    ///
    /// # Errors
    /// [`HostKeyError::NotWritten`].
    pub fn to_openssh(&self) -> Result<Secret, HostKeyError> {
        let text = self.0.to_openssh(LineEnding::LF).map_err(HostKeyError::NotWritten)?;
        Ok(Secret::new(text.as_str()))
    }

    /// Its public half, as in `known_hosts` after the host's name.
    ///
    /// # Errors
    /// [`HostKeyError::NotWritten`].
    pub fn public_line(&self) -> Result<String, HostKeyError> {
        self.0.public_key().to_openssh().map_err(HostKeyError::NotWritten)
    }

    pub(crate) fn into_private_key(self) -> PrivateKey {
        self.0
    }
}

impl fmt::Debug for GatewayHostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayHostKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::EcdsaCurve;
    use russh::keys::key::safe_rng;

    #[test]
    fn a_key_is_the_same_after_it_was_kept() {
        let key = GatewayHostKey::generate().unwrap();
        let read = GatewayHostKey::parse(&key.to_openssh().unwrap()).unwrap();
        assert_eq!(read.public_line().unwrap(), key.public_line().unwrap());
        assert!(key.public_line().unwrap().starts_with("ssh-ed25519 "));
        assert_eq!(format!("{key:?}"), "GatewayHostKey(…)");
    }

    #[test]
    fn other_texts_and_kinds_are_refused_by_a_reason() {
        let kind = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
        let other = PrivateKey::random(&mut safe_rng(), kind).unwrap();
        let other = other.to_openssh(LineEnding::LF).unwrap();
        for (text, code) in
            [("ssh-ed25519 AAAA", "host-key-invalid"), (other.as_str(), "host-key-kind")]
        {
            let refused = GatewayHostKey::parse(&Secret::new(text)).unwrap_err();
            assert_eq!(refused.code(), code);
        }
    }
}
