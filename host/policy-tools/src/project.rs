//! New projects.

use crate::files::WriteError;
use crate::language::Language;
use crate::templates;
use paygress_core::backend::policy::Slot;
use std::path::{Path, PathBuf};

/// Why no project was written.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error(
        "{0:?} cannot be the name of a policy: use a lower-case letter, and after it at most 40 lower-case letters, digits and hyphens"
    )]
    Name(String),
    #[error("{} is not empty; choose a new directory", .0.display())]
    NotEmpty(PathBuf),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes a project for a policy into a directory that is empty or does not exist, and returns the
/// files. `sh build.sh` builds `policy.wasm`.
///
/// # Errors
/// [`ProjectError`].
///
/// ```
/// use paygress_policy_tools::{Language, new_project};
/// use paygress_core::backend::policy::Slot;
/// let directory = tempfile::tempdir()?;
/// let files = new_project(directory.path(), Language::Go, Slot::Pricing, "my-prices")?;
/// assert!(files.contains(&directory.path().join("policy/policy.go")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn new_project(
    directory: &Path,
    language: Language,
    slot: Slot,
    name: &str,
) -> Result<Vec<PathBuf>, ProjectError> {
    if !is_valid_name(name) {
        return Err(ProjectError::Name(name.to_owned()));
    }
    std::fs::create_dir_all(directory).map_err(WriteError::at(directory))?;
    if std::fs::read_dir(directory).map_err(WriteError::at(directory))?.next().is_some() {
        return Err(ProjectError::NotEmpty(directory.to_owned()));
    }
    let mut written = Vec::new();
    for (file, text) in templates::files(language, slot, name) {
        let path = directory.join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(WriteError::at(parent))?;
        }
        std::fs::write(&path, text).map_err(WriteError::at(&path))?;
        written.push(path);
    }
    Ok(written)
}

/// `[a-z][a-z0-9-]{0,40}`.
fn is_valid_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 41 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(good)
}
