//! Customers and proofs whose pod was launched before the payment, and came to nothing.

use crate::limits;
use crate::model::ids::{Customer, ProofY};
use crate::model::order::Order;
use crate::recent::Recent;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By what the sender of such an order is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Payer {
    Customer(Customer),
    /// A proof of the token, which was not taken and may come again: customers can use a new key
    /// each time.
    Proof(ProofY),
}

impl Payer {
    fn of(order: &Order) -> impl Iterator<Item = Self> {
        let customer = order.limited_customer().map(Self::Customer);
        customer.into_iter().chain(order.token_info.ys.iter().cloned().map(Self::Proof))
    }
}

/// The senders of such orders: for a while they pay before the launch.
pub(super) struct UnpaidFailures(Mutex<Recent<Payer>>);

impl Default for UnpaidFailures {
    fn default() -> Self {
        let (most, kept) = (limits::UNPAID_FAILURES, limits::UNPAID_FAILURE_KEPT);
        Self(Mutex::new(Recent::new(most, kept)))
    }
}

impl UnpaidFailures {
    fn payers(&self) -> MutexGuard<'_, Recent<Payer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod of this order came to nothing.
    pub(super) fn insert(&self, order: &Order) {
        let mut payers = self.payers();
        for payer in Payer::of(order) {
            payers.insert(&payer);
        }
    }

    /// Whether whoever sends this order had one.
    pub(super) fn contains(&self, order: &Order) -> bool {
        let mut payers = self.payers();
        Payer::of(order).any(|payer| payers.contains(&payer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::order::State;
    use crate::testing;

    fn order(customer: &str, y: usize) -> Order {
        let mut order = testing::order(testing::spawn(), State::Decided).unwrap();
        order.reply_to.customer = Some(Customer::parse(&customer.repeat(64)).unwrap());
        order.token_info.ys = vec![ProofY::parse(format!("{y:0>66}")).unwrap()];
        order
    }

    #[test]
    fn whoever_had_a_pod_for_nothing_pays_first() {
        let failures = UnpaidFailures::default();
        failures.insert(&order("a", 1));
        assert!(failures.contains(&order("a", 2)), "the same customer");
        assert!(failures.contains(&order("b", 1)), "the same token");
        assert!(!failures.contains(&order("b", 2)));
        for y in 0..30_000 {
            failures.insert(&order("a", y));
        }
        let kept = (0..30_000).filter(|y| failures.contains(&order("c", *y))).count();
        println!("of 30,000 tokens {kept} are kept");
        assert!(kept <= limits::UNPAID_FAILURES, "{kept}");
        assert!(failures.contains(&order("c", 29_999)), "the newest");
    }
}
