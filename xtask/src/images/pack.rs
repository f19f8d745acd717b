//! From a directory to an image's archive.

use crate::run::{root, step, target};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the archives, and of what is made on the way.
pub(super) fn directory() -> PathBuf {
    target().join("images")
}

/// Removes a directory of an earlier build.
pub(super) fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    Ok(())
}

/// No file is younger than `newest`, in seconds since 1970.
pub(super) fn pack(
    archive: &Path,
    name: &str,
    rootfs: &Path,
    newest: &str,
    options: &[&str],
) -> Result<()> {
    let mut pack = Command::new(root().join("k8s/testbed/oci-image"));
    pack.arg(archive).arg(name).arg(rootfs).args(options).env("SOURCE_DATE_EPOCH", newest);
    step(&format!("pack {name}"), &mut pack)?;
    remove(rootfs)
}
