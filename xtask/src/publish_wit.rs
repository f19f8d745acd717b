//! `cargo xtask publish-wit`: the versions of the contract as WIT packages, for `wkg get`.

use crate::compiler::Compiler;
use crate::run::{ALL, root, step, target};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// What does it: an example, so that these commands are built without a client for registries.
const PROGRAM: &str = "publish_wit";

/// Writes the packages into `target/wit`, and publishes them below `reference`, if there is one.
pub(crate) fn publish(reference: Option<&str>, auth: Option<&Path>) -> Result<()> {
    let mut build = Compiler::Rustc.cargo(&["build", "--quiet"])?;
    step("build what publishes", build.args(ALL).args(["--example", PROGRAM]))?;
    let mut publish = Command::new(target().join("debug/examples").join(PROGRAM));
    publish.arg(root().join("wit")).arg(target().join("wit")).args(reference);
    if let Some(auth) = auth {
        publish.arg("--auth").arg(auth);
    }
    step("WIT packages", &mut publish)
}
