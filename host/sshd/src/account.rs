//! The one account of a server, and the keys.

use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKey, key::safe_rng};
use std::path::{Path, PathBuf};

/// The kinds of public keys that log in: what this build of russh can verify. It has no RSA, and
/// none of the keys in hardware (`sk-`).
pub(crate) static KEY_KINDS: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// The kinds of public keys that log in, as a `.pub` file begins with them.
#[must_use]
pub fn key_kinds() -> Vec<&'static str> {
    KEY_KINDS.iter().map(Algorithm::as_str).collect()
}

/// The only user of a server.
#[derive(Clone, Debug)]
pub struct Account {
    pub username: String,
    pub password: Password,
    /// A public key that is accepted as well as the password.
    pub key: Option<PublicKey>,
    pub shell: PathBuf,
    /// The working directory of new sessions.
    pub home: PathBuf,
}

/// A password: never printed, compared in constant time.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn matches(&self, attempt: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(attempt.as_bytes()).into()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the login file {path}: {source}")]
    LoginFile { path: PathBuf, source: std::io::Error },
    /// A public key of a kind that this server cannot verify.
    #[error("keys of this kind cannot log in; send one of {}", key_kinds().join(", "))]
    KeyKind,
    /// A public key is malformed, or no host key could be generated.
    #[error("the SSH key is not usable: {0}")]
    Key(#[from] russh::keys::ssh_key::Error),
}

impl Account {
    /// Reads the files `username`, `password` and, if it exists, `authorized_key` of a directory.
    /// The whole content of a file counts, a newline at its end included.
    ///
    /// # Errors
    /// [`Error::LoginFile`] or [`Error::Key`].
    pub fn read(directory: &Path, shell: PathBuf, home: PathBuf) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|source| Error::LoginFile { path, source })
        };
        let key = match read("authorized_key") {
            Ok(line) => Some(parse_key(&line)?),
            Err(Error::LoginFile { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            username: read("username")?,
            password: Password::new(read("password")?),
            key,
            shell,
            home,
        })
    }
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
