//! What a component imports and exports, read without running it.

use crate::component::RejectReason;
use crate::contract::PACKAGE;
use crate::engine::PolicyEngine;
use crate::limits::COMPONENT_BYTES;
use paygress_core::backend::policy::Slot;
use paygress_core::sanitize::plain;

/// The interfaces of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// The interface by which a component fits a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotInterface<'a> {
    pub slot: Slot,
    /// The version of the contract.
    pub contract: &'a str,
}

impl Interfaces {
    /// Compiles the component to read its interfaces. Blocks.
    ///
    /// # Errors
    /// The component is too large, or is none.
    pub fn of(engine: &PolicyEngine, component: &[u8]) -> Result<Self, RejectReason> {
        if component.len() > COMPONENT_BYTES {
            return Err(RejectReason::TooLarge(component.len()));
        }
        let component = engine.parse(component).map_err(RejectReason::NotAComponent)?;
        let ty = component.component_type();
        Ok(Self {
            imports: ty.imports(&engine.engine).map(|(name, _)| plain(name, 200)).collect(),
            exports: ty.exports(&engine.engine).map(|(name, _)| plain(name, 200)).collect(),
        })
    }

    /// The slot that the component is for.
    #[must_use]
    pub fn slot(&self) -> Option<SlotInterface<'_>> {
        let named =
            self.exports.iter().filter_map(|name| name.strip_prefix(PACKAGE)?.split_once('@'));
        let mut slots = named.filter_map(|(name, version)| {
            Some(SlotInterface { slot: Slot::named(name)?, contract: version })
        });
        slots.next()
    }
}
