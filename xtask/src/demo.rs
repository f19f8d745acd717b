//! `cargo xtask demo`.

use crate::run::{cargo, root, step, target};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    if !program().exists() {
        println!(
            "── The first build compiles some 700 crates: about 8 minutes on 2 cores, 4 on 4. \
             Later ones take seconds."
        );
    }
    crate::web::page_if_possible();
    // At the same time: each has its own directory in target/, and both have stretches with work
    // for one core only.
    let policies = std::thread::spawn(crate::plugins::build_for_demo);
    // Not quiet: cargo shows how far it is.
    let packages = ["--package", "paygress", "--package", "paygress-sandbox"];
    let mut build = cargo(&["build", "--features", "paygress/demo"])?;
    let built = step("build paygress", build.args(packages));
    policies.join().unwrap_or_else(|_| bail!("the build of the policies panicked"))?;
    built?;
    // In place of this process: a signal that ends it reaches the demo, which then cleans up.
    Err(command(arguments).exec()).context("the demo cannot be started")
}

fn program() -> PathBuf {
    target().join("debug/paygress")
}

fn command(arguments: &[String]) -> Command {
    let mut command = Command::new(program());
    command.arg("demo").args(arguments).current_dir(root());
    command
}

/// Runs the demo of the binary that is built.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let status = command(arguments).status()?;
    if !status.success() {
        bail!("the demo failed: {status}");
    }
    Ok(())
}
