//! The wallet's seed: a BIP-39 mnemonic, given by the operator or generated once.

use bip39::Mnemonic;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The mnemonic is not quoted, nor is the library's error, which would quote a part of it.
    #[error(
        "wallet mnemonic is invalid: it needs 12 to 24 English words of the BIP-39 list, the last of which is a checksum"
    )]
    Invalid,
    #[error("wallet mnemonic {path} cannot be read or written: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("system has no randomness: {0}")]
    Randomness(#[source] getrandom::Error),
    #[error("wallet mnemonic was not loaded: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Whether the seed may have been used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeedOrigin {
    /// Mints may hold money of it: it is restored before it is used.
    Existing,
    Created,
}

/// From a mnemonic, which alone brings all money back (NUT-13). It is wiped when it is dropped.
pub struct Seed {
    pub(crate) bytes: Zeroizing<[u8; 64]>,
    pub(crate) origin: SeedOrigin,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Seed {
    /// # Errors
    /// [`SeedError::Invalid`].
    pub fn from_mnemonic(mnemonic: &str) -> Result<Self, SeedError> {
        let mnemonic = Mnemonic::from_str(mnemonic.trim()).map_err(|_| SeedError::Invalid)?;
        Ok(Self::of(&mnemonic, SeedOrigin::Existing))
    }

    fn of(mnemonic: &Mnemonic, origin: SeedOrigin) -> Self {
        Self { bytes: Zeroizing::new(mnemonic.to_seed_normalized("")), origin }
    }

    /// Loads the mnemonic from a file, or creates the file, readable by this user only.
    ///
    /// # Errors
    /// [`SeedError`].
    pub async fn load_or_create(path: &Path) -> Result<Self, SeedError> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || Self::load_or_create_now(&path)).await?
    }

    fn load_or_create_now(path: &Path) -> Result<Self, SeedError> {
        let failed = |source| SeedError::File { path: path.to_owned(), source };
        match std::fs::read_to_string(path).map(Zeroizing::new) {
            Ok(text) => return Self::from_mnemonic(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let mut entropy = Zeroizing::new([0_u8; 16]);
        getrandom::fill(entropy.as_mut_slice()).map_err(SeedError::Randomness)?;
        let mnemonic =
            Mnemonic::from_entropy(entropy.as_slice()).map_err(|_| SeedError::Invalid)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let line = Zeroizing::new(format!("{mnemonic}\n"));
        file.write_all(line.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        tracing::info!(path = %path.display(), "created a wallet; keep a copy of its mnemonic in a safe place");
        Ok(Self::of(&mnemonic, SeedOrigin::Created))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_mnemonic_is_created_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mnemonic");
        let created = Seed::load_or_create(&path).await.unwrap();
        let loaded = Seed::load_or_create(&path).await.unwrap();
        assert_eq!(created.bytes, loaded.bytes);
        let origins = (created.origin, loaded.origin);
        assert_eq!(origins, (SeedOrigin::Created, SeedOrigin::Existing));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Seed::from_mnemonic("abandon abandon abandon"), Err(SeedError::Invalid)));
        assert_eq!(format!("{created:?}"), "…");
    }
}
