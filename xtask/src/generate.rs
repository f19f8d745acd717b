//! `cargo xtask generate`: the files that are derived from Rust types.

use crate::compiler::Compiler;
use crate::run::{ALL, output, root, step, target};
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Examples of the workspace that print a file, and the file.
const FILES: [(&str, &str); 1] = [("crd", "k8s/base/policy-crd.yaml")];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    /// Fail if a file is out of date.
    Check,
}

pub(crate) fn generate(mode: Mode, compiler: Compiler) -> Result<()> {
    let mut build = compiler.cargo(&["build", "--quiet"])?;
    build.args(ALL);
    for (example, _) in FILES {
        build.args(["--example", example]);
    }
    step("build what generates files", &mut build)?;
    for (example, path) in FILES {
        let printed = output(&mut Command::new(target().join("debug/examples").join(example)))?;
        let generated = format!(
            "# Generated from Rust types by `cargo xtask generate`; do not edit.\n{printed}\n"
        );
        let file = root().join(path);
        if std::fs::read_to_string(&file).is_ok_and(|text| text == generated) {
            continue;
        }
        if mode == Mode::Check {
            bail!("{path} is out of date: run `cargo xtask generate`, and commit the result");
        }
        std::fs::write(&file, generated).with_context(|| format!("{path} cannot be written"))?;
        println!("   written: {path}");
    }
    Ok(())
}
