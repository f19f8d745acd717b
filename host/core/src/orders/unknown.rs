//! Payments whose outcome is unknown: what they may hold and request together is bounded, at each
//! mint and in all.
//!
//! A mint that loses its answers, or a token that makes it do so, costs a port for a while and a
//! request from time to time. Whoever can cause that many times gains nothing by it: further ones
//! keep no port, are repeated one after the other, and beyond [`limits::UNKNOWN_AT_MINT`] no
//! payment is begun there. What costs nothing to make is shut out first: forged tokens, under any
//! number of keys and from any number of networks.

use crate::limits;
use crate::model::ids::{Customer, MintUrl, OrderId};
use crate::model::order::{Order, OrderState};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::{Seconds, UnixTime};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// The unknown payments of all mints.
#[derive(Default)]
pub(super) struct UnknownPayments {
    mints: Mutex<HashMap<MintUrl, AtMint>>,
    /// When the next repetition may begin, whatever its mint.
    next: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct AtMint {
    orders: HashMap<OrderId, Option<Customer>>,
    /// Those of them that keep their port.
    with_port: HashSet<OrderId>,
    /// When the last repetition there began.
    last_retry: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

/// Counts an order as unknown until it is dropped.
pub(super) struct UnknownGuard {
    payments: Arc<UnknownPayments>,
    mint: MintUrl,
    order: OrderId,
}

impl Drop for UnknownGuard {
    fn drop(&mut self) {
        if let Some(at_mint) = self.payments.mints().get_mut(&self.mint) {
            at_mint.orders.remove(&self.order);
            at_mint.with_port.remove(&self.order);
        }
    }
}

/// The right to repeat one request; the next one at the same mint waits until it is dropped.
pub(super) struct RetryPermit {
    _at_mint: OwnedMutexGuard<Option<Instant>>,
}

/// Waits until this long after the last time; remembers this one.
async fn pace(last: &mut Option<Instant>, interval: std::time::Duration) {
    if let Some(next) = last.and_then(|last| last.checked_add(interval)) {
        tokio::time::sleep_until(next).await;
    }
    *last = Some(Instant::now());
}

impl UnknownPayments {
    fn mints(&self) -> MutexGuard<'_, HashMap<MintUrl, AtMint>> {
        self.mints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts this order, and lets it keep its port if few others do, and if its token cannot be
    /// forged: else whoever sends tokens that a mint fails on takes ports and room for nothing.
    pub(super) fn claim(self: &Arc<Self>, order: &Order) -> UnknownGuard {
        let (mint, id) = (order.token_info.mint.clone(), order.id.clone());
        let has_port = matches!(
            &order.state,
            OrderState::PaymentUnknown { unpaid, abandoned: None } if unpaid.proven
        );
        let mut mints = self.mints();
        let in_all = mints.values().map(|at_mint| at_mint.with_port.len()).sum::<usize>();
        let at_mint = mints.entry(mint.clone()).or_default();
        at_mint.orders.insert(id.clone(), order.limited_customer());
        let few = at_mint.with_port.len() < limits::UNKNOWN_PORTS_AT_MINT
            && in_all < limits::UNKNOWN_PORTS;
        if has_port && few {
            at_mint.with_port.insert(id.clone());
        }
        drop(mints);
        UnknownGuard { payments: Arc::clone(self), mint, order: id }
    }

    /// Until when this order keeps its port.
    pub(super) fn port_until(&self, order: &Order) -> UnixTime {
        let mints = self.mints();
        let at_mint = mints.get(&order.token_info.mint);
        match at_mint.is_some_and(|at_mint| at_mint.with_port.contains(&order.id)) {
            true => order.created_at.after(Seconds(limits::PAYMENT_TIMEOUT.as_secs())),
            false => UnixTime(0),
        }
    }

    /// Its port is released: another may keep one.
    pub(super) fn release_port(&self, order: &Order) {
        if let Some(at_mint) = self.mints().get_mut(&order.token_info.mint) {
            at_mint.with_port.remove(&order.id);
        }
    }

    /// How many there are at this mint.
    pub(super) fn count(&self, mint: &MintUrl) -> usize {
        self.mints().get(mint).map_or(0, |at_mint| at_mint.orders.len())
    }

    /// How many of them this customer has sent.
    pub(super) fn count_of(&self, mint: &MintUrl, customer: &Customer) -> usize {
        let is_theirs = |of: &&Option<Customer>| of.as_ref() == Some(customer);
        let mints = self.mints();
        mints.get(mint).map_or(0, |at_mint| at_mint.orders.values().filter(is_theirs).count())
    }

    /// Waits for a permit to repeat a request at this mint.
    pub(super) async fn acquire(&self, mint: &MintUrl) -> RetryPermit {
        let last_retry = Arc::clone(&self.mints().entry(mint.clone()).or_default().last_retry);
        let mut last = last_retry.lock_owned().await;
        pace(&mut last, limits::UNKNOWN_RETRY_AT_MINT).await;
        pace(&mut *self.next.lock().await, limits::UNKNOWN_RETRY).await;
        RetryPermit { _at_mint: last }
    }
}

/// The refusal of a payment at a mint that has too many unknown ones.
pub(super) fn too_many() -> Refusal {
    Refusal::new(
        ErrorType::MintNetworkError,
        "the token's mint has left too many payments without an answer; your token was not taken, \
         try again later or pay with a token of another mint",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::State;
    use crate::testing;
    use std::time::Duration;

    fn unknown(mint: &str) -> Order {
        let mut order = testing::order(testing::spawn(), State::PaymentUnknown).unwrap();
        order.token_info.mint = MintUrl::parse(format!("https://{mint}.invalid")).unwrap();
        order.created_at = UnixTime::now();
        order
    }

    #[test]
    fn unknown_payments_keep_few_ports_at_each_mint_and_in_all() {
        let payments = Arc::new(UnknownPayments::default());
        let mut ports = 0;
        let mut guards = Vec::new();
        for n in 0..1_000 {
            let order = unknown(["a", "b", "c", "d", "e", "f", "g", "h"][n % 8]);
            guards.push(payments.claim(&order));
            ports += usize::from(payments.port_until(&order) > UnixTime::now());
        }
        println!("1,000 unknown payments at 8 mints keep {ports} ports");
        assert_eq!(ports, limits::UNKNOWN_PORTS);
        let first = unknown("a");
        drop(guards);
        assert_eq!(payments.count(&first.token_info.mint), 0);
        let mut guards: Vec<_> = Vec::new();
        for _ in 0..limits::UNKNOWN_PORTS_AT_MINT {
            guards.push(payments.claim(&unknown("a")));
        }
        let one_more = unknown("a");
        guards.push(payments.claim(&one_more));
        assert_eq!(payments.port_until(&one_more), UnixTime(0));
        let elsewhere = unknown("b");
        guards.push(payments.claim(&elsewhere));
        assert!(payments.port_until(&elsewhere) > UnixTime::now());
    }

    #[test]
    fn forged_tokens_keep_no_port() {
        let payments = Arc::new(UnknownPayments::default());
        let mut guards = Vec::new();
        for _ in 0..100 {
            let mut order = unknown("a");
            let OrderState::PaymentUnknown { unpaid, .. } = &mut order.state else { panic!() };
            unpaid.proven = false;
            guards.push(payments.claim(&order));
            assert_eq!(payments.port_until(&order), UnixTime(0));
        }
        let proven = unknown("a");
        assert_eq!(payments.count(&proven.token_info.mint), 100);
        guards.push(payments.claim(&proven));
        assert!(payments.port_until(&proven) > UnixTime::now());
    }

    #[tokio::test]
    async fn repetitions_take_turns() {
        let payments = Arc::new(UnknownPayments::default());
        let mint = unknown("a").token_info.mint;
        let begun = Instant::now();
        let turns: Vec<_> = (0..3)
            .map(|_| {
                let (payments, mint) = (Arc::clone(&payments), mint.clone());
                tokio::spawn(async move { drop(payments.acquire(&mint).await) })
            })
            .collect();
        for turn in turns {
            turn.await.unwrap();
        }
        let took = begun.elapsed();
        println!("3 repetitions at one mint begin within {:.2} s", took.as_secs_f64());
        assert!(took >= limits::UNKNOWN_RETRY_AT_MINT * 2);
        // One that hangs at a mint does not hold up another's.
        let held = payments.acquire(&mint).await;
        let other = unknown("b").token_info.mint;
        let other = tokio::time::timeout(Duration::from_secs(5), payments.acquire(&other)).await;
        assert!(other.is_ok());
        drop(held);
    }
}
