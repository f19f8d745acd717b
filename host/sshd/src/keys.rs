//! Keys: the kinds that log in, how they are read, and what can be wrong with them and their files.

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey, key::safe_rng};
use std::path::PathBuf;

/// The kinds of signatures that are verified, those of RSA keys without SHA-1.
pub static SIGNATURE_KINDS: [Algorithm; 8] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::SkEd25519,
    Algorithm::SkEcdsaSha2NistP256,
];

/// The kinds of public keys that log in. Whether a security key (`sk-`) was touched is up to it:
/// russh verifies its signature and passes on nothing of it.
static KEY_KINDS: [Algorithm; 7] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: None },
    Algorithm::SkEd25519,
    Algorithm::SkEcdsaSha2NistP256,
];

/// The kinds of public keys that log in, as a `.pub` file begins with them.
#[must_use]
pub fn key_kinds() -> Vec<&'static str> {
    KEY_KINDS.iter().map(Algorithm::as_str).collect()
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the login file {path}: {source}")]
    LoginFile { path: PathBuf, source: std::io::Error },
    #[error("cannot read or keep the host key {path}: {source}")]
    HostKey { path: PathBuf, source: std::io::Error },
    /// A public key of a kind that this server cannot verify.
    #[error("keys of this kind cannot log in; send one of {}", key_kinds().join(", "))]
    KeyKind,
    /// A public key is malformed, or no host key could be generated.
    #[error("the SSH key is not usable: {0}")]
    Key(#[from] russh::keys::ssh_key::Error),
}

/// [`parse_key`] for each line that is neither empty nor a comment.
///
/// # Errors
/// As [`parse_key`].
pub fn parse_keys(text: &str) -> Result<Vec<PublicKey>, Error> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse_key).collect()
}

/// Parses a public key in the format of an OpenSSH `.pub` file. Whoever sells a login with it asks
/// here whether the server would take it.
///
/// # Errors
/// [`Error::KeyKind`] when the server cannot verify it, [`Error::Key`] when it is malformed.
pub fn parse_key(line: &str) -> Result<PublicKey, Error> {
    let line = line.trim();
    let kind = line.split(' ').next().unwrap_or_default();
    if !KEY_KINDS.iter().any(|known| known.as_str() == kind) {
        return Err(Error::KeyKind);
    }
    Ok(PublicKey::from_openssh(line)?)
}

/// Generates an Ed25519 host key.
///
/// # Errors
/// [`Error::Key`] when the system has no randomness.
pub fn new_host_key() -> Result<PrivateKey, Error> {
    Ok(PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)?)
}
