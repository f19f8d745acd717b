//! Atomic file writes, in directories that only this user can access.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Why a directory cannot be trusted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be created or read.
    #[error(transparent)]
    Io(Arc<io::Error>),
    /// Other users can access it.
    #[error("it must be a directory of this user with mode 0700")]
    NotPrivate,
}

impl From<io::Error> for DirectoryError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Creates the directory if it is missing, and checks that only this user can access it.
pub(crate) fn private_directory(path: &Path) -> Result<(), DirectoryError> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    }
    let metadata = std::fs::metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != own || metadata.mode() & 0o077 != 0 {
        return Err(DirectoryError::NotPrivate);
    }
    Ok(())
}

/// Removes files that a killed process left half-written. Only the directory's single writer may
/// call this.
pub(crate) fn remove_partial(directory: &Path) {
    let entries =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "part"))
    {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a partial file could not be removed");
        }
    }
}

/// Writes a file completely or not at all, also across a power failure.
pub(crate) fn write_atomically(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let partial = path.with_extension(format!("{}.part", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().inspect_err(|_| {
        // Best effort: the write error is reported anyway.
        let _ = std::fs::remove_file(&partial);
    })
}
