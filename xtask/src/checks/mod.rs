//! The project's checks on its own source. They are tests of this crate, and the first steps of
//! `cargo xtask test`.

mod commands;
mod dockerfile;
mod error_types;
mod files;
mod layers;
mod licenses;
mod links;
mod modules;
mod rust_source;
mod sizes;
mod subjects;
pub(crate) mod vocabulary;
mod workflows;

use crate::run::root;
use anyhow::{Result, bail};
use std::path::Path;

/// Everything that can be checked before anything is built; all that is wrong at once.
pub(crate) fn source() -> Result<()> {
    let files = files::tracked()?;
    let results = [
        ("vocabulary", vocabulary::check(&files)),
        ("layers", layers::check()),
        ("licenses", licenses::check()),
        ("modules", modules::check(&files)),
        ("sizes", sizes::check(&files)),
        ("error types", error_types::check(&files)),
        ("links", links::check(&files, &root())),
        ("Dockerfile", dockerfile::check(&files)),
        ("workflows", workflows::check(&files)),
        ("subjects", subjects::check()),
    ];
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(|(name, result)| Some(format!("── {name}: {}", result.err()?)))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("\n"))
}

/// The documents' commands, against the `paygress` that is built.
pub(crate) fn documented_commands(program: &Path, xtask: &clap::Command) -> Result<()> {
    commands::check(&files::tracked()?, program, xtask)
}
