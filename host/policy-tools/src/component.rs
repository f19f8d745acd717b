//! Components: a core module and the contract that it keeps to, in one file.

use crate::tool::{ToolError, contract};
use std::path::Path;
use wasmparser::{Parser, Payload, Validator};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// What the runtime of Go asks an operating system for, answered without one.
const ALONE: &str = include_str!("alone.wat");
/// The module that it is asked for by.
const WASI: &str = "wasi_snapshot_preview1";

/// Makes a component of a core module.
///
/// `embed` is the contract and the world that the module was written for. Bindings of Rust and C
/// say so themselves: then
/// `None` is right. A module that imports `wasi_snapshot_preview1`, as Go's do, is linked with one
/// that answers without an operating system: a policy imports nothing.
///
/// ```
/// let broken = paygress_policy_tools::component(b"\0asm and what is no module", None).unwrap_err();
/// assert!(broken.to_string().starts_with("this is not a core WebAssembly module"));
/// ```
pub fn component(core: &[u8], embed: Option<(&Path, &str)>) -> Result<Vec<u8>, ToolError> {
    let broken = |error: wasmparser::BinaryReaderError| ToolError::NotAModule(error.to_string());
    if Parser::is_component(core) {
        return Err(ToolError::NotAModule("it is a component already".to_owned()));
    }
    Validator::new().validate_all(core).map_err(broken)?;
    let wasi = imports_wasi(core).map_err(broken)?;

    let mut module = core.to_vec();
    if let Some((wit, world)) = embed {
        let (resolve, world) = contract(wit, world)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .map_err(failed)?;
    }
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&module).map_err(failed)?;
    if wasi {
        let alone = wat::parse_str(ALONE).map_err(failed)?;
        encoder.adapter(WASI, &alone).map_err(failed)?;
    }
    encoder.encode().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> ToolError {
    // With the causes, for those errors that have some.
    ToolError::Component(format!("{error:#}"))
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
