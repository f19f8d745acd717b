//! What a component says of itself, before anything of it runs.

use crate::engine::{COMPONENT_BYTES, PolicyEngine};
use crate::slot::{CONTRACT, Rejected};
use paygress_core::backend::policy::Slot;
use paygress_core::sanitize::plain;

/// Its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    /// What it wants.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
}

impl Interfaces {
    /// Those of this component.
    ///
    /// # Errors
    /// It is too large, or none.
    pub fn of(machine: &PolicyEngine, component: &[u8]) -> Result<Self, Rejected> {
        if component.len() > COMPONENT_BYTES {
            return Err(Rejected::TooLarge(component.len()));
        }
        let component = machine.parse(component).map_err(Rejected::NotAComponent)?;
        let ty = component.component_type();
        Ok(Self {
            imports: ty.imports(&machine.engine).map(|(name, _)| plain(name, 200)).collect(),
            exports: ty.exports(&machine.engine).map(|(name, _)| plain(name, 200)).collect(),
        })
    }

    /// The slot that it is for, and the version of the contract.
    #[must_use]
    pub fn slot(&self) -> Option<(Slot, &str)> {
        let named =
            self.exports.iter().filter_map(|name| name.strip_prefix(CONTRACT)?.split_once('@'));
        let mut slots = named.filter_map(|(name, version)| Some((Slot::named(name)?, version)));
        slots.next()
    }
}
