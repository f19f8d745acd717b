//! `cargo xtask bench --beside`: the policy host beside other plugin systems of the registry. They
//! are dependencies of `xtask/beside` alone, a workspace with a lock of its own.

use crate::plugins::{self, TARGET};
use crate::run::{at_lowest_priority, cargo, step, target};
use anyhow::{Context, Result};
use std::process::Command;

const MANIFEST: &str = "xtask/beside/Cargo.toml";
const PROGRAM: &str = "paygress-beside";
const SYSTEMS: [&str; 2] = ["extism", "wapc"];
/// The names of the guests' prices, and the feature that makes them.
const PRICES: [(&str, Option<&str>); 2] = [("usual", None), ("double", Some("double"))];

pub(crate) fn bench() -> Result<()> {
    plugins::build()?;
    guests()?;
    let mut command = workspace(&["build", "--release", "--package", PROGRAM])?;
    step("build the other plugin systems", &mut command)?;
    let program = target().join("beside/release").join(PROGRAM);
    step("beside other plugin systems", Command::new(program).arg(target()))
}

/// Builds the guests and the program, and runs its tests: nothing is measured.
pub(crate) fn test() -> Result<()> {
    guests()?;
    let mut command = workspace(&["test", "--package", PROGRAM])?;
    // They are large, and nobody looks for lines in them.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    step("other plugin systems, at the lowest priority", &mut at_lowest_priority(&command))
}

fn guests() -> Result<()> {
    for system in SYSTEMS {
        for (prices, feature) in PRICES {
            guest(system, prices, feature)?;
        }
    }
    Ok(())
}

/// Builds a guest to where the program looks for it.
fn guest(system: &str, prices: &str, feature: Option<&str>) -> Result<()> {
    let package = format!("beside-{system}-guest");
    let mut command =
        workspace(&["build", "--profile", "guest", "--target", TARGET, "--package", &package])?;
    if let Some(feature) = feature {
        command.args(["--features", feature]);
    }
    step(&format!("build the guest of {system}, {prices} prices"), &mut command)?;
    let built = target()
        .join("beside")
        .join(TARGET)
        .join("guest")
        .join(format!("{}.wasm", package.replace('-', "_")));
    let guests = target().join("beside-guests");
    std::fs::create_dir_all(&guests)?;
    std::fs::copy(&built, guests.join(format!("{system}-{prices}.wasm")))
        .with_context(|| format!("{} is missing", built.display()))?;
    Ok(())
}

/// cargo in that workspace, which builds in a directory of its own.
fn workspace(arguments: &[&str]) -> Result<Command> {
    let mut command = cargo(arguments)?;
    command.args(["--quiet", "--locked", "--manifest-path", MANIFEST, "--target-dir"]);
    command.arg(target().join("beside"));
    Ok(command)
}
