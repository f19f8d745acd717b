//! Programs of Go modules, compiled once for each version.

use crate::run::{at_lowest_priority, remove_directory, step, target};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// A program that `go install` compiles. Its module must not have `replace` or `exclude`.
pub(crate) struct GoProgram {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// What is left out or taken in when it is compiled, separated by commas.
    pub(crate) tags: &'static str,
}

impl GoProgram {
    /// Where it is, after it was compiled if it was not there.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let Self { package, version, tags } = *self;
        let name = package.rsplit('/').next().context("a package has a name")?;
        let directory = target().join("tools").join(format!("{name}-{version}"));
        let program = directory.join(name);
        if !program.exists() {
            let mut install = Command::new("go");
            install.args(["install", "-modcacherw", "-ldflags", "-s -w", "-tags", tags]);
            // What it was compiled of has gigabytes, and is of no use afterwards.
            let caches = directory.join("caches");
            install.arg(format!("{package}@{version}")).env("GOBIN", &directory);
            install.env("GOCACHE", caches.join("build")).env("GOMODCACHE", caches.join("modules"));
            let name = format!("compile {name}, at the lowest priority");
            step(&name, &mut at_lowest_priority(&install))?;
            remove_directory(&caches)?;
        }
        Ok(program)
    }
}
