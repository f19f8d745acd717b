//! The server's own keys: made at its start, or kept in a directory, so that a restarted container
//! has the same.

use crate::host_key_proof::{HostKeySecret, Prover};
use crate::keys::Error;
use paygress_regular_file::read_at_most;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, key::safe_rng};
use rustix::fs::{Access, access};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

/// The length of an RSA key, as `ssh-keygen` makes them.
const RSA_BITS: usize = 3_072;
/// The longest file of a key: one of RSA with 16384 bits has some 13 KB.
const MAX_KEY_BYTES: u64 = 32_768;
const ED25519: &str = "ssh_host_ed25519_key";
const ECDSA: &str = "ssh_host_ecdsa_key";
const RSA: &str = "ssh_host_rsa_key";

/// The keys of a server.
pub struct HostKeys {
    pub(crate) keys: Vec<PrivateKey>,
    /// Takes seconds to make.
    pub(crate) rsa: Option<JoinHandle<Option<PrivateKey>>>,
    /// What they are proved by.
    secret: Option<HostKeySecret>,
}

impl From<PrivateKey> for HostKeys {
    fn from(key: PrivateKey) -> Self {
        Self { keys: vec![key], rsa: None, secret: None }
    }
}

impl HostKeys {
    /// New keys, Ed25519 and ECDSA, for the life of this process.
    ///
    /// # Errors
    /// [`Error::Key`] when the system has no randomness.
    pub fn new() -> Result<Self, Error> {
        let keys = vec![make(Algorithm::Ed25519)?, make(ECDSA_256)?];
        Ok(Self { keys, rsa: None, secret: None })
    }

    /// The keys of a directory, by the names that OpenSSH gives them. What is missing is made and
    /// kept there; RSA meanwhile in the background, and not if the directory is read-only.
    ///
    /// # Errors
    /// [`Error::HostKey`] when a file cannot be read or written, [`Error::Key`] when it is no key.
    pub fn in_directory(directory: &Path) -> Result<Self, Error> {
        let mut keys = kept(directory)?;
        let path = directory.join(RSA);
        let mut rsa = None;
        match read(&path)? {
            Some(key) => keys.push(key),
            // The effort would be for nothing at each start.
            None if access(directory, Access::WRITE_OK).is_err() => {}
            None => rsa = Some(tokio::task::spawn_blocking(move || make_rsa(&path))),
        }
        Ok(Self { keys, rsa, secret: None })
    }

    /// As [`HostKeys::in_directory`], and proved to whoever knows this secret. There is no key of RSA:
    /// it would come after a proof of all keys.
    ///
    /// # Errors
    /// As [`HostKeys::in_directory`].
    pub fn proved(directory: &Path, secret: HostKeySecret) -> Result<Self, Error> {
        Ok(Self { keys: kept(directory)?, rsa: None, secret: Some(secret) })
    }

    /// What proves them; none without a secret.
    pub(crate) fn prover(&self) -> Option<Prover> {
        let secret = self.secret.clone()?;
        let lines = self.keys.iter().map(public_line).collect::<Result<_, Error>>();
        let lines = lines.inspect_err(|error| tracing::warn!(%error, "host keys are not proved"));
        Some(Prover { secret, lines: lines.ok()? })
    }
}

/// Its public half, `kind base64`.
pub(crate) fn public_line(key: &PrivateKey) -> Result<String, Error> {
    let public = key.public_key().to_openssh()?;
    let fields: Vec<&str> = public.split(' ').take(2).collect();
    Ok(fields.join(" "))
}

/// The keys that every server has, as far as they are missing made and kept in this directory.
pub(crate) fn kept(directory: &Path) -> Result<Vec<PrivateKey>, Error> {
    Ok(vec![
        read_or_make(&directory.join(ED25519), || make(Algorithm::Ed25519))?,
        read_or_make(&directory.join(ECDSA), || make(ECDSA_256))?,
    ])
}

const ECDSA_256: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };

fn make(kind: Algorithm) -> Result<PrivateKey, Error> {
    Ok(PrivateKey::random(&mut safe_rng(), kind)?)
}

/// The server does well without.
fn make_rsa(path: &Path) -> Option<PrivateKey> {
    let made = read_or_make(path, || {
        let pair = RsaKeypair::random(&mut safe_rng(), RSA_BITS)?;
        Ok(PrivateKey::new(KeypairData::Rsa(pair), "")?)
    });
    made.inspect_err(|error| tracing::warn!(%error, "there is no RSA host key")).ok()
}

fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<PrivateKey, Error>,
) -> Result<PrivateKey, Error> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    let key = make()?;
    write(path, &key)?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<PrivateKey>, Error> {
    match read_at_most(path, MAX_KEY_BYTES) {
        Ok(text) => Ok(Some(PrivateKey::from_openssh(text)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(path.to_owned(), source)),
    }
}

fn failed(path: PathBuf, source: std::io::Error) -> Error {
    Error::HostKey { path, source }
}

/// Whole or not at all, and readable for its owner alone.
fn write(path: &Path, key: &PrivateKey) -> Result<(), Error> {
    let text = key.to_openssh(LineEnding::LF)?;
    let public = key.public_key().to_openssh()?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let put = |path: &Path, bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    put(path, text.as_bytes())
        .and_then(|()| put(&path.with_extension("pub"), format!("{public}\n").as_bytes()))
        .map_err(|source| failed(path.to_owned(), source))
}
