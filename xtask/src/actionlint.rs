//! GitHub's workflows, by actionlint.

use crate::go_program::GoProgram;
use crate::run::{root, step};
use anyhow::Result;
use std::fs;
use std::process::Command;

const ACTIONLINT: GoProgram = GoProgram {
    package: "github.com/rhysd/actionlint/cmd/actionlint",
    version: "v1.7.12",
    tags: "",
};
const WORKFLOWS: &str = ".github/workflows";

pub(crate) fn check() -> Result<()> {
    let mut lint = Command::new(ACTIONLINT.path()?);
    // Other programs, which are not installed everywhere: what is found would depend on it.
    lint.args(["-no-color", "-shellcheck=", "-pyflakes="]).current_dir(root());
    for entry in fs::read_dir(root().join(WORKFLOWS))? {
        lint.arg(entry?.path());
    }
    step("GitHub's workflows, by actionlint", &mut lint)
}
