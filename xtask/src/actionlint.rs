//! GitHub's workflows, by actionlint: compiled from its Go module, once for each version.

use crate::run::{root, step, target};
use anyhow::Result;
use std::fs;
use std::process::Command;

const PACKAGE: &str = "github.com/rhysd/actionlint/cmd/actionlint";
const VERSION: &str = "v1.7.12";
const WORKFLOWS: &str = ".github/workflows";

pub(crate) fn check() -> Result<()> {
    let directory = target().join("tools").join(format!("actionlint-{VERSION}"));
    let program = directory.join("actionlint");
    if !program.exists() {
        let mut install = Command::new("go");
        install.arg("install").arg(format!("{PACKAGE}@{VERSION}")).env("GOBIN", &directory);
        step("compile actionlint", &mut install)?;
    }
    let mut lint = Command::new(program);
    // Other programs, which are not installed everywhere: what is found would depend on it.
    lint.args(["-no-color", "-shellcheck=", "-pyflakes="]).current_dir(root());
    for entry in fs::read_dir(root().join(WORKFLOWS))? {
        lint.arg(entry?.path());
    }
    step("GitHub's workflows, by actionlint", &mut lint)
}
