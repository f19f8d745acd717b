//! `cargo xtask demo`.

use crate::background::BackgroundStep;
use crate::run::{cargo, root, step, target};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    if !program().exists() {
        println!(
            "── The first build compiles some 700 crates: about 7 minutes on 2 cores, 4 on 4. \
             Later ones take seconds."
        );
    }
    crate::web::page_if_possible();
    // At the same time: each has its own directory in target/, and both have stretches with work
    // for one core only.
    let policies =
        BackgroundStep::start("the build of the policies", crate::plugins::build_for_demo);
    // Not quiet: cargo shows how far it is.
    step("build paygress", &mut build()?)?;
    policies.finish()?;
    // In place of this process: a signal that ends it reaches the demo, which then cleans up.
    Err(command(arguments).exec()).context("the demo cannot be started")
}

/// `paygress/demo` would be a feature of the dependency of that name, which its tests have.
fn build() -> Result<Command> {
    cargo(&[
        "build",
        "--features",
        "demo",
        "--package",
        "paygress",
        "--package",
        "paygress-sandbox",
    ])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::output;
    use serde_json::Value;

    #[test]
    fn the_program_that_is_built_has_the_demo() {
        let mut build = build().unwrap();
        build.args(["-Z", "unstable-options", "--unit-graph"]).env("RUSTC_BOOTSTRAP", "1");
        let graph: Value = serde_json::from_str(&output(&mut build).unwrap()).unwrap();
        let is_program = |unit: &&Value| {
            unit["target"]["name"] == "paygress" && unit["target"]["kind"][0] == "bin"
        };
        let program = graph["units"].as_array().unwrap().iter().find(is_program).unwrap();
        assert_eq!(program["features"], serde_json::json!(["demo"]));
    }
}
