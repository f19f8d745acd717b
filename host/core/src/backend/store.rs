//! The ledger as the desk sees it: what is on disk before anything happens.

use crate::backend::cluster::EndReason;
use crate::model::order::{Lease, Order, State};
use crate::model::units::{Customer, LeaseId, OrderId, PodName, Sat, Seconds, UnixTime};
use async_trait::async_trait;
use std::ops::RangeInclusive;

/// Why the ledger did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Somebody else has moved the order on: this caller's copy is old.
    #[error("order {order} is no longer in state {expected}")]
    Conflict {
        /// The order.
        order: OrderId,
        /// The state that the caller had seen.
        expected: &'static str,
    },
    /// What is stored does not read as what was stored: a damaged file, or one of a newer version.
    #[error("the ledger holds what this version cannot read: {0}")]
    Unreadable(String),
    /// The database failed. Nothing was written.
    #[error("the ledger's database failed: {0}")]
    Database(String),
}

/// What became of an attempt to open an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenOutcome {
    /// It is written down, and its proofs belong to it alone.
    Created,
    /// This very message was taken before: the order that it made.
    Duplicate(Box<Order>),
    /// At least one of its proofs pays for another order already.
    ProofConflict(Box<Order>),
}

/// What a move of an order does to its lease, in the same transaction.
#[derive(Clone, Copy, Debug)]
pub enum LeaseUpdate<'a> {
    /// Nothing.
    Keep,
    /// It is written as it is here.
    Put(&'a Lease),
    /// Its end moves so much later, unless it has ended: added in the database, so that two at once
    /// both count.
    Extend(&'a PodName, Seconds),
    /// Its end moves so much earlier, unless it has ended: takes an extension back.
    Shorten(&'a PodName, Seconds),
}

/// What was taken in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HourlyRevenue {
    /// When the hour began.
    pub from: UnixTime,
    /// How many orders that came in it were paid.
    pub orders: u64,
    /// What they brought, less what went back.
    pub earned: Sat,
}

/// The book of orders, leases, ports and proofs. Every call is one transaction, on disk when it
/// returns.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Writes a new order and claims its proofs, all or nothing. It is this process's to work.
    async fn open(&self, order: &Order) -> Result<OpenOutcome, LedgerError>;

    /// Moves an order on: writes it as it is now, and changes its lease, provided that it still is
    /// in state `from` and this process's. A move to `refused` gives its proofs free.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when it is not: then nothing is written.
    async fn transition(
        &self,
        order: &Order,
        from: State,
        lease: LeaseUpdate<'_>,
    ) -> Result<(), LedgerError>;

    /// The order of that id.
    async fn order(&self, id: &OrderId) -> Result<Option<Order>, LedgerError>;

    /// Orders that the desk still has something to do for: not settled, or settled and their answer
    /// not delivered. Those that no other living process works; they are this one's from now on.
    async fn unfinished(&self) -> Result<Vec<Order>, LedgerError>;

    /// All orders, in the order in which they came, from the one after `after` on, at most `limit`.
    async fn page(&self, after: Option<&OrderId>, limit: u32) -> Result<Vec<Order>, LedgerError>;

    /// The orders that made or extended a lease, oldest first.
    async fn orders_of(&self, lease: &LeaseId) -> Result<Vec<Order>, LedgerError>;

    /// Orders whose refund is made, and neither redeemed nor taken back as far as is known; of one
    /// customer, then also those whose refund is being made, or of all.
    async fn pending_refunds(&self, of: Option<&Customer>) -> Result<Vec<Order>, LedgerError>;

    /// Notes how the refund of such an order ended.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when it has ended already.
    async fn close_refund(&self, order: &Order) -> Result<(), LedgerError>;

    /// Forgets refused orders that came before this time and are answered; gives how many.
    async fn forget_refused(&self, before: UnixTime) -> Result<u64, LedgerError>;

    /// Notes that the answer of an order in this state was delivered; nothing when it has come to
    /// owe another one since.
    async fn delivered(&self, id: &OrderId, state: State) -> Result<(), LedgerError>;

    /// Reserves a port of the range for this lease; `None` when all are taken. A lease that has one
    /// gets it again.
    async fn reserve_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, LedgerError>;

    /// Gives the lease another port of the range; `None`, and it keeps its own, when all are taken.
    async fn reassign_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, LedgerError>;

    /// Frees the lease's port, if it has one.
    async fn release_port(&self, lease: &LeaseId) -> Result<(), LedgerError>;

    /// How many ports are reserved.
    async fn ports_in_use(&self) -> Result<u32, LedgerError>;

    /// The lease of that pod.
    async fn lease(&self, pod: &PodName) -> Result<Option<Lease>, LedgerError>;

    /// The leases that are not over, oldest first; of one customer, or of all.
    async fn live_leases(&self, of: Option<&Customer>) -> Result<Vec<Lease>, LedgerError>;

    /// Notes that a live lease is to end for this reason, before anything is done to its pod.
    async fn mark_ending(&self, pod: &PodName, reason: EndReason) -> Result<(), LedgerError>;

    /// Ends a lease: writes it, frees its port, and writes its active orders as they are here.
    /// Those that owe money back are this process's to work.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when its active orders are not these: then nothing is written.
    async fn end_lease(&self, lease: &Lease, orders: &[Order]) -> Result<(), LedgerError>;

    /// What was taken since, hour by hour; hours without a paid order are left out.
    async fn revenue(&self, since: UnixTime) -> Result<Vec<HourlyRevenue>, LedgerError>;

    /// How many orders there are in each state.
    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, LedgerError>;

    /// Whether this process should serve the message of this id: nobody has finished it, and no
    /// other living process is at it.
    async fn claim_message(&self, id: &str, now: UnixTime) -> Result<bool, LedgerError>;

    /// Remembers an id that a door has finished with; forgets those that are older than
    /// `forget_before`.
    async fn complete_message(
        &self,
        id: &str,
        now: UnixTime,
        forget_before: UnixTime,
    ) -> Result<(), LedgerError>;

    /// A note that a door left under this name.
    async fn kv_read(&self, name: &str) -> Result<Option<String>, LedgerError>;

    /// Leaves a note under this name.
    async fn kv_write(&self, name: &str, value: &str) -> Result<(), LedgerError>;
}
