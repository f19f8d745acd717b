//! From a directory to an image's archive.

use crate::run::{remove_directory, root, step, target};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the archives, and of what is made on the way.
pub(super) fn directory() -> PathBuf {
    target().join("images")
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
    remove_directory(rootfs)
}
