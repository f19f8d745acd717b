//! Components: a core module and the contract that it implements, in one file.

use crate::wit::{BoxError, Contract, WitError};
use std::path::Path;
use wasmparser::{Parser, Payload, Validator};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// What the Go runtime imports from an operating system, implemented without one.
const WASI_STUB: &str = include_str!("wasi_stub.wat");
/// The module that it imports.
const WASI: &str = "wasi_snapshot_preview1";

/// Why no component was made.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("this is not a core WebAssembly module: it is already a component")]
    AlreadyAComponent,
    #[error("this is not a core WebAssembly module: {0}")]
    NotAModule(#[from] wasmparser::BinaryReaderError),
    #[error(transparent)]
    Wit(#[from] WitError),
    /// The module does not fit the contract.
    #[error("no component can be made of this module")]
    Encode(#[source] BoxError),
}

/// The contract and the world that a module was written for.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// A directory of WIT files, or one file.
    pub wit: &'a Path,
    pub name: &'a str,
}

/// Makes a component of a core module.
///
/// `world` is `None` for modules with bindings of Rust or C: those embed it themselves. A module
/// that imports `wasi_snapshot_preview1`, as Go's do, is linked with a stub that needs no operating
/// system: a policy imports nothing.
///
/// # Errors
/// [`ComponentError`].
///
/// ```
/// let error = paygress_policy_tools::component(b"\0asm, not a module", None).unwrap_err();
/// assert!(error.to_string().starts_with("this is not a core WebAssembly module"));
/// ```
pub fn component(core: &[u8], world: Option<World<'_>>) -> Result<Vec<u8>, ComponentError> {
    if Parser::is_component(core) {
        return Err(ComponentError::AlreadyAComponent);
    }
    Validator::new().validate_all(core)?;
    let wasi = imports_wasi(core)?;

    let mut module = core.to_vec();
    if let Some(World { wit, name }) = world {
        let Contract { resolve, world } = Contract::read(wit, name)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .map_err(encode)?;
    }
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&module).map_err(encode)?;
    if wasi {
        let stub = wat::parse_str(WASI_STUB).map_err(encode)?;
        encoder.adapter(WASI, &stub).map_err(encode)?;
    }
    encoder.encode().map_err(encode)
}

fn encode(error: impl Into<BoxError>) -> ComponentError {
    ComponentError::Encode(error.into())
}

fn imports_wasi(core: &[u8]) -> Result<bool, wasmparser::BinaryReaderError> {
    for payload in Parser::new(0).parse_all(core) {
        if let Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                if import?.module == WASI {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
