//! How files are written.

use std::io;
use std::path::{Path, PathBuf};

/// A file or directory cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {source}", .path.display())]
pub struct WriteError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl WriteError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// Writes a file completely or not at all: a running service may be reading it. Creates missing
/// directories.
///
/// # Errors
/// [`WriteError`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let write = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&partial, bytes)?;
        std::fs::rename(&partial, path)
    };
    write().map_err(WriteError::at(path))
}
