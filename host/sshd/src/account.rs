//! The one account of a server, and the keys.

use crate::image::Image;
use crate::key_options::{KeyOptions, parse_line};
use paygress_regular_file::open_regular;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey, key::safe_rng};
use std::ffi::OsString;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of the user's own file.
const MAX_AUTHORIZED_KEYS_BYTES: u64 = 256 * 1_024;

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

/// The only user of a server.
#[derive(Clone, Debug)]
pub struct Account {
    pub username: String,
    /// Other names that log in as well.
    pub aliases: Vec<String>,
    pub password: Password,
    /// Public keys that are accepted as well as the password, and as those of the user's own
    /// `.ssh/authorized_keys`.
    pub keys: Vec<PublicKey>,
    pub shell: PathBuf,
    /// The working directory of new sessions.
    pub home: PathBuf,
    /// What programs get besides the variables of a login. It may be the whole environment of a
    /// process only where that has no secrets.
    pub environment: Vec<(OsString, OsString)>,
}

/// A password, or none: never printed, compared in constant time.
#[derive(Clone)]
pub struct Password(Option<String>);

impl Password {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Some(text.into()))
    }

    /// Only keys log in.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    pub(crate) const fn is_set(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn matches(&self, attempt: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_ref().is_some_and(|own| own.as_bytes().ct_eq(attempt.as_bytes()).into())
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
    #[error("cannot read or keep the host key {path}: {source}")]
    HostKey { path: PathBuf, source: std::io::Error },
    /// A public key of a kind that this server cannot verify.
    #[error("keys of this kind cannot log in; send one of {}", key_kinds().join(", "))]
    KeyKind,
    /// A public key is malformed, or no host key could be generated.
    #[error("the SSH key is not usable: {0}")]
    Key(#[from] russh::keys::ssh_key::Error),
}

impl Account {
    /// Reads the files `username`, `password` and, if it exists, `authorized_key` of a directory.
    /// The whole content of the first two counts, a newline at its end included; the last one has a
    /// key in each line. With a key the password may be missing. All else is the image's.
    ///
    /// # Errors
    /// [`Error::LoginFile`], [`Error::KeyKind`] or [`Error::Key`].
    pub fn read(directory: &Path, image: &Image) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = directory.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(Error::LoginFile { path, source }),
            }
        };
        let missing = |name: &str| Error::LoginFile {
            path: directory.join(name),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let keys = read("authorized_key")?.map_or(Ok(Vec::new()), |text| parse_keys(&text))?;
        let password = match read("password")? {
            Some(text) => Password::new(text),
            None if keys.is_empty() => return Err(missing("password")),
            None => Password::none(),
        };
        let username = read("username")?.ok_or_else(|| missing("username"))?;
        let Image { shell, home, environment, .. } = image.clone();
        Ok(Self { username, aliases: image.aliases(), password, keys, shell, home, environment })
    }

    pub(crate) fn is_named(&self, user: &str) -> bool {
        user == self.username || self.aliases.iter().any(|alias| alias == user)
    }

    /// What this key may do, if it logs in from this address, now. One of several lines with it is
    /// the first that lets it in. Reads the user's own file: it may block.
    pub(crate) fn options_of(&self, key: &PublicKey, client: IpAddr) -> Option<KeyOptions> {
        let is_own = |own: &PublicKey| own.key_data() == key.key_data();
        if self.keys.iter().any(is_own) {
            return Some(KeyOptions::default());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let file = self.authorized_keys();
        let lines = file.split(|byte| *byte == b'\n').filter_map(parse_line);
        let mut own = lines.filter(|(_, own)| is_own(own)).map(|(options, _)| options);
        own.find(|options| options.admits(client, now))
    }

    /// The user's own file, if nobody else can write it.
    fn authorized_keys(&self) -> Vec<u8> {
        let read = || -> std::io::Result<Vec<u8>> {
            let (file, metadata) = open_regular(&self.home.join(".ssh/authorized_keys"))?;
            let mut text = Vec::new();
            if metadata.mode() & 0o022 == 0 {
                file.take(MAX_AUTHORIZED_KEYS_BYTES).read_to_end(&mut text)?;
            }
            Ok(text)
        };
        read().unwrap_or_default()
    }
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
