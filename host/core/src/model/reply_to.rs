//! Where a response goes.

use crate::model::ids::{Customer, known_customer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a response goes: to this customer, through the transport of this name. Only that transport
/// reads the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    #[serde(rename = "door")]
    pub transport: String,
    /// None: of an order whose customer showed nothing.
    #[serde(with = "known_customer")]
    pub customer: Option<Customer>,
    #[serde(flatten)]
    pub address: BTreeMap<String, Option<String>>,
}

impl ReplyTo {
    /// One part of the address.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&str> {
        self.address.get(name)?.as_deref()
    }
}
