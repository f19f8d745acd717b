//! How large an image may be: each node pulls it.

use super::settings::Settings;
use crate::run::output;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Fails if its files, as a node has them, are more than its settings allow.
pub(super) fn check(settings: &Settings, rootfs: &Path) -> Result<()> {
    let Settings { name, most_mib, .. } = settings;
    let mib = size(rootfs)?.div_ceil(MIB);
    println!("── {name}: {mib} MiB, of {most_mib} at most");
    ensure!(
        mib <= *most_mib,
        "{name} has {mib} MiB, and is to have {most_mib} at most: find what it has grown by, or raise the limit in \
         xtask/src/images/settings.rs and docs/operating.md"
    );
    Ok(())
}

/// Of the files, and not of what a file system allocates for them.
fn size(directory: &Path) -> Result<u64> {
    let printed = output(Command::new("du").args(["--summarize", "--bytes"]).arg(directory))?;
    let first = printed.split_whitespace().next().and_then(|bytes| bytes.parse().ok());
    first.context("du does not say what a directory has")
}

#[cfg(test)]
mod tests {
    use super::super::settings::SSH;
    use super::*;

    #[test]
    fn an_image_that_has_grown_too_large_is_refused() {
        let rootfs = tempfile::tempdir().unwrap();
        let settings = Settings { most_mib: 2, ..SSH };
        for name in ["program", "other"] {
            check(&settings, rootfs.path()).unwrap();
            std::fs::write(rootfs.path().join(name), vec![0_u8; 1 << 20]).unwrap();
        }
        let error = check(&settings, rootfs.path()).unwrap_err().to_string();
        assert!(error.contains("has 3 MiB, and is to have 2 at most"), "{error}");
    }
}
