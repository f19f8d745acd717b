//! Where a response goes.

use crate::model::ids::{Customer, known_customer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// In the address of a customer who wants notices: a row of an earlier version has none.
const NOTICES: &str = "notices";

/// Where a response goes: to this customer, through the transport of this name. Only that transport
/// reads the address, but for whether notices go there too.
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

    /// The same, for a customer who wants notices before the end of the pod.
    #[must_use]
    pub fn with_notices(mut self) -> Self {
        self.address.insert(NOTICES.to_owned(), Some("true".to_owned()));
        self
    }

    /// Whether notices before the end of the pod go there too.
    #[must_use]
    pub fn wants_notices(&self) -> bool {
        self.part(NOTICES).is_some()
    }
}
