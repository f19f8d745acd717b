//! Writes a new project, which builds at once.

use crate::{Language, templates};
use paygress_core::backend::policy::Slot;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no new project.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// A policy's name is like that of a package.
    #[error(
        "{0:?} is no name of a policy: a lower-case letter, and at most 40 of these, digits and hyphens after it"
    )]
    Name(String),
    /// There is something already.
    #[error("{0} is not empty; a new project gets a folder of its own")]
    NotEmpty(PathBuf),
    /// A file could not be written.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes a project for a policy into a folder that is empty or not there yet, and returns the
/// files. `sh build.sh` makes
/// `policy.wasm` of it.
///
/// ```
/// use paygress_policy_tools::{Language, new_project};
/// use paygress_core::backend::policy::Slot;
/// let folder = tempfile::tempdir()?;
/// let files = new_project(folder.path(), Language::Go, Slot::Pricing, "my-prices")?;
/// assert!(files.contains(&folder.path().join("policy/policy.go")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn new_project(
    directory: &Path,
    language: Language,
    slot: Slot,
    name: &str,
) -> Result<Vec<PathBuf>, NewError> {
    if !is_name(name) {
        return Err(NewError::Name(name.to_owned()));
    }
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| NewError::Write { path, source }
    };
    std::fs::create_dir_all(directory).map_err(error(directory))?;
    if std::fs::read_dir(directory).map_err(error(directory))?.next().is_some() {
        return Err(NewError::NotEmpty(directory.to_owned()));
    }
    let mut written = Vec::new();
    for (file, text) in templates::files(language, slot, name) {
        let path = directory.join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(error(parent))?;
        }
        std::fs::write(&path, text).map_err(error(&path))?;
        written.push(path);
    }
    Ok(written)
}

/// `[a-z][a-z0-9-]{0,40}`.
fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 41 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(good)
}
