//! The wallet's seed: a BIP-39 mnemonic, given by the operator or made once.

use bip39::Mnemonic;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It is not a mnemonic. What it is, is not told.
    #[error(
        "the wallet's mnemonic is not valid; it has 12 to 24 English words of the BIP-39 list, and its last one is a checksum"
    )]
    Invalid,
    /// Its file cannot be read or made.
    #[error("the wallet's mnemonic {path} cannot be read or written: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

/// The seed, and whether money may lie on it already.
#[derive(Clone)]
pub struct Seed {
    pub(crate) bytes: [u8; 64],
    pub(crate) known: bool,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Seed {
    /// The seed of this mnemonic.
    ///
    /// # Errors
    /// [`SeedError::Invalid`].
    pub fn of(mnemonic: &str) -> Result<Self, SeedError> {
        let mnemonic = Mnemonic::from_str(mnemonic.trim()).map_err(|_| SeedError::Invalid)?;
        Ok(Self { bytes: mnemonic.to_seed_normalized(""), known: true })
    }

    /// The seed of the mnemonic in this file, which is made, for this user only, if there is none.
    ///
    /// # Errors
    /// [`SeedError`].
    pub fn at(path: &Path) -> Result<Self, SeedError> {
        let failed = |source| SeedError::File { path: path.to_owned(), source };
        match std::fs::read_to_string(path) {
            Ok(text) => return Self::of(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let mut entropy = [0_u8; 16];
        getrandom::fill(&mut entropy).map_err(|_| SeedError::Randomness)?;
        let mnemonic = Mnemonic::from_entropy(&entropy).map_err(|_| SeedError::Invalid)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        writeln!(file, "{mnemonic}").map_err(failed)?;
        file.sync_all().map_err(failed)?;
        tracing::info!(path = %path.display(), "made a new wallet; keep a copy of its mnemonic in a safe place");
        Ok(Self { bytes: mnemonic.to_seed_normalized(""), known: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_mnemonic_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mnemonic");
        let (made, read) = (Seed::at(&path).unwrap(), Seed::at(&path).unwrap());
        assert_eq!(made.bytes, read.bytes);
        assert_eq!((made.known, read.known), (false, true));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Seed::of("abandon abandon abandon"), Err(SeedError::Invalid)));
        assert_eq!(format!("{made:?}"), "…");
    }
}
