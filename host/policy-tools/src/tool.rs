//! What `bindings` and `component` have in common: the contract that they read, what can go wrong,
//! and how files are written.

use crate::Language;
use std::io;
use std::path::{Path, PathBuf};
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

/// Why there are no bindings, or no component.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The folder or the file holds no contract.
    #[error("{path} is not a WIT package: {why}")]
    Wit {
        /// What was read.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The contract has no such world.
    #[error("there is no world {world}: {why}")]
    World {
        /// The world.
        world: String,
        /// What there is.
        why: String,
    },
    /// This language has bindings of its own.
    #[error("bindings are made for c and go; the tools of {0} make their own")]
    NoBindings(Language),
    /// The bindings could not be made.
    #[error("no bindings can be made: {0}")]
    Bindings(String),
    /// The bytes are no core module.
    #[error("this is not a core WebAssembly module: {0}")]
    NotAModule(String),
    /// The module does not fit the contract.
    #[error("no component can be made of this module: {0}")]
    Component(String),
    /// A file could not be written.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The contract in this folder or file, and a world of it.
pub(crate) fn contract(wit: &Path, world: &str) -> Result<(Resolve, WorldId), ToolError> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(wit)
        .map_err(|error| ToolError::Wit { path: wit.to_owned(), why: format!("{error:#}") })?;
    let world = resolve
        .select_world(&[package], Some(world))
        .map_err(|error| ToolError::World { world: world.to_owned(), why: format!("{error:#}") })?;
    Ok((resolve, world))
}

/// Writes a file whole or not at all, for a running host may be reading it. Missing folders are
/// made.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ToolError> {
    let error = |source| ToolError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(error)?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    std::fs::write(&partial, bytes).map_err(error)?;
    std::fs::rename(&partial, path).map_err(error)
}
