//! Room on the disk: what the tests need, and what CI removes once it has served.

use crate::cluster::Extent;
use crate::run::{TestProgram, is_ci, output, remove_directory, root, target};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const GB: u64 = 1_000_000_000;
/// What `target` has at its largest, while the tests on this machine run. Each of these steps prints
/// what it has then: take the largest of a run of CI, and a tenth on top.
const TARGET: u64 = 16 * GB;
/// What the testbed has at its largest: Go's caches while Kubernetes is compiled, and what is compiled.
const TESTBED: u64 = 8 * GB;

/// A directory, and how much it will have.
struct Need {
    directory: PathBuf,
    bytes: u64,
}

/// Fails if the tests would fill a disk. Without an extent no test runs on the real cluster.
pub(crate) fn check(on_cluster: Option<Extent>) -> Result<()> {
    let mut needs = vec![Need { directory: target(), bytes: TARGET }];
    if on_cluster.is_some() {
        let testbed = std::env::var_os("TESTBED").unwrap_or_else(|| "/var/tmp/testbed".into());
        needs.push(Need { directory: testbed.into(), bytes: TESTBED });
    }
    // What is there already is not needed again.
    let mut disks: BTreeMap<u64, (PathBuf, u64, Vec<String>)> = BTreeMap::new();
    for Need { directory, bytes } in needs {
        let existing = existing(&directory);
        let has = if existing == directory { size(&directory)? } else { 0 };
        let disk = fs::metadata(&existing)?.dev();
        let (_, needed, names) = disks.entry(disk).or_insert((existing, 0, Vec::new()));
        *needed = needed.saturating_add(bytes.saturating_sub(has));
        names.push(directory.display().to_string());
    }
    for (directory, needed, names) in disks.into_values() {
        let free = free(&directory)?;
        if free < needed {
            bail!(
                "the tests need {} more for {}, and {} are free there: make room, or name directories on a larger disk \
                 with CARGO_TARGET_DIR and TESTBED",
                gigabytes(needed),
                names.join(" and "),
                gigabytes(free)
            );
        }
    }
    Ok(())
}

/// The directory, or the one that it will be in.
fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find(|ancestor| ancestor.exists());
    found.map_or_else(root, Path::to_owned)
}

fn free(directory: &Path) -> Result<u64> {
    let mut df = Command::new("df");
    let printed = output(df.args(["--output=avail", "--block-size=1"]).arg(directory))?;
    let last = printed.lines().last().and_then(|line| line.trim().parse().ok());
    last.context("df does not say what is free")
}

/// What a directory has. A build beside this one removes files meanwhile, of which du complains.
fn size(directory: &Path) -> Result<u64> {
    let mut du = Command::new("du");
    let printed = du.args(["--summarize", "--block-size=1"]).arg(directory).output();
    let printed = String::from_utf8(printed.context("du cannot be started")?.stdout)?;
    let first = printed.split_whitespace().next().and_then(|bytes| bytes.parse().ok());
    first.context("du does not say what a directory has")
}

fn gigabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(GB / 10);
    format!("{}.{} GB", tenths / 10, tenths % 10)
}

/// In CI: removes the test programs that are not run again. Each holds most of the service.
pub(crate) fn forget_tests(programs: &[TestProgram], run_later: &[&str]) -> Result<()> {
    report("after the tests on this machine")?;
    let is_done = |program: &&TestProgram| !run_later.contains(&program.name.as_str());
    for TestProgram { path, .. } in programs.iter().filter(is_done) {
        fs::remove_file(path).with_context(|| format!("{} stays", path.display()))?;
    }
    Ok(())
}

/// In CI: removes what this part of `target` has been for.
pub(crate) fn forget(part: &str) -> Result<()> {
    if !is_ci() {
        return Ok(());
    }
    report(&format!("before {part} is removed"))?;
    remove_directory(&target().join(part))
}

/// What there is now, for [`TARGET`].
fn report(when: &str) -> Result<()> {
    let (has, free) = (size(&target())?, free(&target())?);
    println!("── {when}: target has {}, {} are free", gigabytes(has), gigabytes(free));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_and_what_a_directory_has_is_known() {
        let source = root().join("xtask/src");
        let (has, there) = (size(&source).unwrap(), free(&source).unwrap());
        assert!((1_000..GB).contains(&has), "{has}");
        assert!(there > 0);
        assert_eq!(existing(&source.join("not/there")), source);
        assert_eq!(gigabytes(18 * GB), "18.0 GB");
        assert_eq!(gigabytes(1), "0.1 GB");
    }
}
