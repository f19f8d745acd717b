//! Amounts of what nodes have and pods request.

use crate::quantity::{milli, whole};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Amounts {
    /// In thousandths of a core.
    pub(super) cpu: u64,
    /// In bytes.
    pub(super) memory: u64,
    /// Ephemeral storage, in bytes.
    pub(super) storage: u64,
    /// Everything else, by name: devices and huge pages.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) devices: BTreeMap<String, u64>,
}

impl Amounts {
    /// The number of pods is a resource of nodes alone, and not read here.
    pub(super) fn of(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            amounts.set(name, quantity);
        }
        amounts
    }

    fn set(&mut self, name: &str, quantity: &Quantity) {
        let bytes = whole(quantity).unwrap_or(0);
        match name {
            "cpu" => self.cpu = milli(quantity).unwrap_or(0),
            "memory" => self.memory = bytes,
            "ephemeral-storage" => self.storage = bytes,
            "pods" => {}
            device if bytes > 0 => {
                self.devices.insert(device.to_owned(), bytes);
            }
            _ => {}
        }
    }

    /// Replaces what is named there: resources of a whole pod precede those of its containers.
    pub(super) fn replace(&mut self, quantities: Option<&BTreeMap<String, Quantity>>) {
        for (name, quantity) in quantities.into_iter().flatten() {
            self.set(name, quantity);
        }
    }

    pub(super) fn device(&self, name: &str) -> u64 {
        self.devices.get(name).copied().unwrap_or(0)
    }

    fn combine(&mut self, other: &Self, combine: impl Fn(u64, u64) -> u64) {
        self.cpu = combine(self.cpu, other.cpu);
        self.memory = combine(self.memory, other.memory);
        self.storage = combine(self.storage, other.storage);
        for (name, amount) in &other.devices {
            let combined = combine(self.device(name), *amount);
            self.devices.insert(name.clone(), combined);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// Not below nothing: a node may have promised more than it has.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.combine(other, u64::saturating_sub);
    }

    pub(super) fn raise_to(&mut self, other: &Self) {
        self.combine(other, u64::max);
    }

    pub(super) fn fits_in(&self, free: &Self) -> bool {
        self.cpu <= free.cpu
            && self.memory <= free.memory
            && self.storage <= free.storage
            && self.devices.iter().all(|(name, amount)| *amount <= free.device(name))
    }
}
