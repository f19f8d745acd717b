//! Where a response goes.

use crate::model::ids::{Customer, known_customer};
use crate::model::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// In the address of a customer who wants notices: a row of an earlier version has none.
const NOTICES: &str = "notices";
/// In the address of a customer whom the payer has named: a row of an earlier version has none.
const NAMED_BY_PAYER: &str = "named_by_payer";

/// Where a response goes: to this customer, through the transport of this name. Only that transport
/// reads the address, but for whether notices go there too, and whether the payer named the customer.
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

    /// The same, for a customer whom the payer has named, and who has shown nothing: a wallet pays
    /// for whoever gave it the payment request.
    #[must_use]
    pub fn named_by_payer(mut self) -> Self {
        self.address.insert(NAMED_BY_PAYER.to_owned(), Some("true".to_owned()));
        self
    }

    /// Whether the payer has named the customer.
    #[must_use]
    pub fn is_named_by_payer(&self) -> bool {
        self.part(NAMED_BY_PAYER).is_some()
    }

    /// The customer whose limits hold for an order that is not paid for. Whoever is named by the
    /// payer is another customer there: nobody uses up what they may have.
    #[must_use]
    pub fn limited_customer(&self) -> Option<Customer> {
        let customer = self.customer.as_ref()?;
        if !self.is_named_by_payer() {
            return Some(customer.clone());
        }
        // No bearer token has a NUL in it.
        Some(Customer::of_bearer(&Secret::new(format!("named by a payer\0{customer}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_payer_names_is_limited_as_another_customer() {
        let customer = Customer::of_bearer(&Secret::new("a customer's bearer token"));
        let (transport, address) = ("http".to_owned(), BTreeMap::new());
        let own = ReplyTo { transport, customer: Some(customer.clone()), address };
        assert_eq!(own.limited_customer(), Some(customer.clone()));
        let named = own.clone().named_by_payer();
        assert!(named.is_named_by_payer() && !own.is_named_by_payer());
        assert_eq!(named.customer, Some(customer.clone()), "the order is theirs");
        let limited = named.limited_customer();
        assert!(limited.is_some() && limited != Some(customer));
        // Another one for each customer, and stored.
        let other = Customer::of_bearer(&Secret::new("another customer's bearer token"));
        let other = ReplyTo { customer: Some(other), ..named.clone() };
        assert_ne!(other.limited_customer(), limited);
        let stored = serde_json::to_string(&named).unwrap();
        assert_eq!(serde_json::from_str::<ReplyTo>(&stored).unwrap(), named);
    }
}
