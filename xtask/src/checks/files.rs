//! The files that the checks read.

use crate::run::{output, root};
use anyhow::Result;
use std::process::Command;

pub(crate) struct SourceFile {
    /// Relative to the workspace.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The text files that git tracks or would track; not those that are recorded or generated.
pub(crate) fn tracked() -> Result<Vec<SourceFile>> {
    let listed = output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root()),
    )?;
    let mut files: Vec<SourceFile> = listed
        .lines()
        .filter(|path| !is_recorded(path))
        // A link or a file of bytes is no text; one that is deleted but not committed is not there.
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(SourceFile { path: path.to_owned(), text })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

/// What an earlier version or another program wrote: locks, recorded data, history.
fn is_recorded(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(
        name,
        "Cargo.lock" | "package-lock.json" | "go.sum" | "CHANGELOG.md" | "tests-of-0.1.0.md"
    ) || path.split('/').any(|part| part == "fixtures" || part == "generated")
        || path.starts_with("host/fuzz/seeds/")
}

impl SourceFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}
