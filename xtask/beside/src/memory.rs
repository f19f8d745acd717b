//! What policies that are loaded cost in memory: of each system in a process of its own, from its
//! cache of compiled code.

use crate::files::{Files, Prices};
use crate::report::{Better, Row, Unit};
use crate::runtime::Runtime;
use crate::{ours, with_extism, with_wapc};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

const POLICIES: usize = 20;
/// The names of the systems here, in the order of the columns.
const SYSTEMS: [&str; 3] = ["paygress", with_extism::NAME, with_wapc::NAME];

/// Starts a child for each system: the first time it compiles, the second time that is measured.
pub(crate) fn measure(
    files: &Files,
    runtimes: &[&dyn Runtime; 3],
    directory: &Path,
) -> Result<Vec<Row>> {
    let mut values = [0.0; 3];
    for ((value, system), runtime) in values.iter_mut().zip(SYSTEMS).zip(runtimes) {
        let directory = directory.join(format!("memory-{system}"));
        std::fs::create_dir(&directory)?;
        for _ in 0..2 {
            *value = child(files, system, &directory).with_context(|| runtime.name())?;
        }
    }
    let name = format!("memory of {POLICIES} policies");
    Ok(vec![Row { name, unit: Unit::Bytes, better: Better::Less, goal: None, values }])
}

fn child(files: &Files, system: &str, directory: &Path) -> Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .arg(files.target())
        .args(["memory", system])
        .arg(directory)
        .output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// The bytes that this process has more once it has the policies of a system. `directory` has what
/// an earlier process has compiled.
pub(crate) fn of_policies(files: &Files, system: &str, directory: &Path) -> Result<u64> {
    let modules = || -> Result<Vec<Vec<u8>>> {
        let module = files.read_guest(system, Prices::Usual)?;
        (0..POLICIES).map(|index| distinct(&module, index)).collect()
    };
    match system {
        "paygress" => {
            let cache = directory.join("compiled");
            growth(|| ours::policies(files, POLICIES, &cache))
        }
        with_extism::NAME => {
            let modules = modules()?;
            growth(|| with_extism::policies(&modules, directory))
        }
        with_wapc::NAME => {
            let modules = modules()?;
            growth(|| with_wapc::policies(&modules, directory))
        }
        _ => bail!("there is no system {system}"),
    }
}

fn growth<T>(load: impl FnOnce() -> Result<T>) -> Result<u64> {
    let before = resident()?;
    let loaded = load()?;
    let after = resident()?;
    drop(loaded);
    Ok(after.saturating_sub(before))
}

/// The same module with a custom section: other bytes, so that no system shares its code.
fn distinct(module: &[u8], index: usize) -> Result<Vec<u8>> {
    // Section 0 with three bytes: a name of one byte, and the number.
    Ok([module, &[0, 3, 1, b'n', u8::try_from(index)?]].concat())
}

/// Bytes of this process in memory.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1_024)
}
