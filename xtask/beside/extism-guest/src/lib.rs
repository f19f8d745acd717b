//! The pricing decision as a guest of Extism.

use extism_pdk::{plugin_fn, FnResult};

#[plugin_fn]
pub fn quote(input: Vec<u8>) -> FnResult<Vec<u8>> {
    Ok(beside_decision::decide(&input)?)
}
