//! Files that are whole or absent, in directories of this user's own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Makes the directory if it is missing; says why it cannot be trusted.
pub(crate) fn private_directory(path: &Path) -> Result<(), String> {
    if !path.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| error.to_string())?;
    }
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != own || metadata.mode() & 0o077 != 0 {
        return Err("it is not a directory of this user's with mode 0700".to_owned());
    }
    Ok(())
}

/// Removes what a process that was killed was writing. To be called by the only one who writes
/// there.
pub(crate) fn remove_partial(directory: &Path) {
    let entries =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "part"))
    {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "half a file could not be removed");
        }
    }
}

/// Writes a file that is there as a whole, or not at all, and still is after a power cut.
pub(crate) fn write_privately(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
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
        // Best effort: what failed is told anyway.
        let _ = std::fs::remove_file(&partial);
    })
}
