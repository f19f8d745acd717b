//! Reads the contract, for bindings and components.

use std::path::{Path, PathBuf};
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

/// The cause of an error, of whichever library.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the contract cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WitError {
    /// The directory or file has no contract.
    #[error("{} is not a WIT package", .path.display())]
    Package { path: PathBuf, source: BoxError },
    /// The contract has no such world.
    #[error("there is no world {world}")]
    World { world: String, source: BoxError },
}

/// A contract and one of its worlds.
pub(crate) struct Contract {
    pub(crate) resolve: Resolve,
    pub(crate) world: WorldId,
}

impl Contract {
    pub(crate) fn read(wit: &Path, world: &str) -> Result<Self, WitError> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve
            .push_path(wit)
            .map_err(|error| WitError::Package { path: wit.to_owned(), source: error.into() })?;
        let world = resolve
            .select_world(&[package], Some(world))
            .map_err(|error| WitError::World { world: world.to_owned(), source: error.into() })?;
        Ok(Self { resolve, world })
    }
}
