//! `cargo xtask demo`.

use crate::run::{cargo, root, step, target};
use anyhow::{Result, bail};
use std::process::Command;

pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    crate::plugins::build()?;
    crate::web::page_if_it_can_be();
    step(
        "build paygress",
        &mut cargo(&["build", "--quiet", "--package", "paygress", "--features", "demo"])?,
    )?;
    tell(arguments)
}

/// Runs the demo of the binary that is there.
pub(crate) fn tell(arguments: &[String]) -> Result<()> {
    let status = Command::new(target().join("debug/paygress"))
        .arg("demo")
        .args(arguments)
        .current_dir(root())
        .status()?;
    if !status.success() {
        bail!("the demo failed: {status}");
    }
    Ok(())
}
