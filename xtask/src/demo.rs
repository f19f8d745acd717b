//! `cargo xtask demo`.

use crate::run::{cargo, root, step, target};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;

pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    if !program().exists() {
        println!(
            "── The first build compiles some 700 crates: about 8 minutes on 2 cores, 4 on 4. \
             Later ones take seconds."
        );
    }
    crate::plugins::build_for_demo()?;
    crate::web::page_if_possible();
    // Not quiet: cargo shows how far it is.
    let build = ["build", "--package", "paygress", "--features", "demo"];
    step("build paygress", &mut cargo(&build)?)?;
    run(arguments)
}

fn program() -> PathBuf {
    target().join("debug/paygress")
}

/// Runs the demo of the binary that is built.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let status =
        Command::new(program()).arg("demo").args(arguments).current_dir(root()).status()?;
    if !status.success() {
        bail!("the demo failed: {status}");
    }
    Ok(())
}
