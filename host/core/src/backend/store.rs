//! Storage as its readers see it: one trait per concern, so that a test double implements the few
//! methods that its reader calls.
//!
//! ```text
//! order service ─▶ Ledger = OrderStore + LeaseStore + PortAllocator + DecisionStore + RefundStore
//!                           + Reporting + SalesStore
//! Nostr inbox ───▶ InboxStore = MessageLog + KvStore
//! audit, replay ─▶ Reporting
//! ```
//!
//! Every call is one transaction, and what it wrote is on disk when it returns.

use crate::backend::capacity::{Capacity, Demand, NoCapacity, Reservation};
use crate::backend::cluster::{Ending, ReadyPod};
use crate::model::decision::CustomerHistory;
use crate::model::ids::{Customer, LeaseId, MessageId, MintUrl, OrderId, PodName, PublicKey};
use crate::model::order::{Lease, Order, State};
use crate::model::sales::Sales;
use crate::model::units::{Sat, Seconds, SignedSat, UnixTime};
use async_trait::async_trait;
use std::error::Error;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The cause of a [`LedgerError`].
pub type LedgerErrorSource = Arc<dyn Error + Send + Sync>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The caller's copy of the order is out of date: another task or replica has changed it.
    #[error("order {order} is no longer in state {expected}")]
    Conflict {
        order: OrderId,
        /// The state in which the caller has seen it.
        expected: &'static str,
    },
    /// The database is damaged, or a newer version wrote it.
    #[error("ledger holds data that this version cannot read: {0}")]
    Unreadable(#[source] LedgerErrorSource),
    /// Nothing was written, unless it is the answer to a commit that was lost.
    #[error("ledger database failed: {0}")]
    Database(#[source] LedgerErrorSource),
}

impl LedgerError {
    pub fn unreadable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreadable(Arc::from(source.into()))
    }

    pub fn database(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Database(Arc::from(source.into()))
    }
}

/// What makes a message with a known id the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// The id is derived from the content: an equal id is enough, whatever became of the order.
    ByContent,
    /// The sender chooses the id: the purchase must be the same too. An order that was refused cost
    /// nothing, and the id may be used again.
    ByChosenId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenOutcome {
    /// The order is stored, and its proofs belong to it alone.
    Created,
    /// The same message came before: the order that it made.
    Duplicate(Box<Order>),
    /// At least one of the proofs pays for another order already: that order.
    ProofConflict(Box<Order>),
}

/// What a transition of an order does to a lease, in the same transaction.
#[derive(Clone, Copy, Debug)]
pub enum LeaseUpdate<'a> {
    Keep,
    /// Changes nothing, and fails with [`LedgerError::Conflict`] if the lease has ended: what is
    /// bought for it would be nobody's to end, and to pay back.
    Require(&'a PodName),
    /// Writes the lease as it is here.
    Put(&'a Lease),
    /// Releases the port of this lease and what it has reserved, and writes the lease as it is
    /// here, if there is one.
    Release(&'a LeaseId, Option<&'a Lease>),
    /// Moves its end later, unless it has ended. The sum is made in the transaction, so that two
    /// extensions at the same time both count. Notices of the new end that would be due by now are
    /// not given: the customer has just learned it.
    Extend(&'a PodName, Seconds),
    /// Moves its end earlier, unless it has ended: takes an extension back.
    Shorten(&'a PodName, Seconds),
}

impl<'a> From<Option<&'a Lease>> for LeaseUpdate<'a> {
    fn from(lease: Option<&'a Lease>) -> Self {
        lease.map_or(Self::Keep, Self::Put)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HourlyRevenue {
    /// The start of the hour.
    pub from: UnixTime,
    /// Orders that arrived in this hour and have brought money.
    pub orders: u64,
    /// What they have brought, less what went back and what that cost.
    pub earned: SignedSat,
}

/// What became of what the cluster knew of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodUpdate {
    /// The lease as it is written.
    Written(Box<Lease>),
    /// The lease names its pod from now on, and has the rest already: customers see nothing new.
    Identified,
    /// The lease has that already, or is over.
    Unchanged,
    /// Something else was recorded since the lease was read: this may be of a pod that is gone.
    Outdated,
}

/// The pods of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourlyLeases {
    /// The start of the hour.
    pub from: UnixTime,
    /// Those that were ordered in it, and have run.
    pub begun: u64,
    /// Those that have run at any time of it.
    pub running: u64,
}

/// Leases by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseStates {
    /// Not over.
    #[default]
    Current,
    Ended,
    All,
}

/// The place of a lease among all, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePlace {
    pub created_at: UnixTime,
    pub id: LeaseId,
}

impl From<&Lease> for LeasePlace {
    fn from(lease: &Lease) -> Self {
        Self { created_at: lease.created_at, id: lease.id.clone() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCount {
    pub state: State,
    pub orders: u64,
}

/// How many refused orders are kept, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedLimits {
    /// Whole, with the decisions of the policies.
    pub whole: u32,
    /// At all; of the others only what it takes to answer again.
    pub most: u32,
}

/// Orders and the claims of their proofs.
#[async_trait]
pub trait OrderStore: Send + Sync {
    /// Stores a new order and claims its proofs, all or nothing. The order is this replica's.
    async fn open(&self, order: &Order, repetition: Repetition)
    -> Result<OpenOutcome, LedgerError>;

    /// Writes an order in its new state and updates its lease, provided that the stored one is
    /// still in state `from` and this replica's. A transition to `refused` releases its proofs.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when it is not, or when the lease has ended that is required; then
    /// nothing is written.
    async fn transition(
        &self,
        order: &Order,
        from: State,
        lease: LeaseUpdate<'_>,
    ) -> Result<(), LedgerError>;

    /// Whether an order is still in this state and this replica's: to be called before an effect
    /// that would harm whoever has it by now.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when it is not.
    async fn check_state(&self, id: &OrderId, state: State) -> Result<(), LedgerError>;

    async fn order(&self, id: &OrderId) -> Result<Option<Order>, LedgerError>;

    /// Whether new orders may be stored without taking the room that paid ones need.
    async fn has_room(&self) -> bool;

    /// The orders that made or extended a lease, oldest first.
    async fn orders_of(&self, lease: &LeaseId) -> Result<Vec<Order>, LedgerError>;

    /// The order that makes or has made a lease: one is read, however often the lease was extended.
    async fn spawn_order(&self, lease: &LeaseId) -> Result<Option<Order>, LedgerError>;

    /// Takes over the orders that need work and belong to no other live replica, and returns all of
    /// this replica's: those in a state that is not final, and those whose response is not
    /// delivered.
    async fn unfinished(&self) -> Result<Vec<Order>, LedgerError>;

    /// Records that the response to an order in this state was delivered. Does nothing when the
    /// order owes another response by now.
    async fn delivered(&self, id: &OrderId, state: State) -> Result<(), LedgerError>;
}

#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// The lease of a pod.
    async fn lease(&self, pod: &PodName) -> Result<Option<Lease>, LedgerError>;

    /// The lease of the pod that has this key.
    async fn lease_of_key(&self, key: &PublicKey) -> Result<Option<Lease>, LedgerError>;

    /// The leases that have not ended, oldest first; of one customer, or of all.
    async fn live_leases(&self, of: Option<&Customer>) -> Result<Vec<Lease>, LedgerError>;

    /// Records why a live lease is about to end, before its pod is touched. What was recorded first
    /// counts.
    async fn mark_ending(&self, pod: &PodName, ending: Ending) -> Result<(), LedgerError>;

    /// Records that the notice of this time is given, of a live lease that ends then. `false`:
    /// its end has moved, or that notice or a later one was given; nothing is written.
    async fn mark_noticed(
        &self,
        pod: &PodName,
        expires_at: UnixTime,
        due: UnixTime,
    ) -> Result<bool, LedgerError>;

    /// Records what the cluster knows of the pod that runs for a live lease, provided that the ledger
    /// still knows of it what it did `before` the cluster was requested. Its key counts only if the
    /// lease has none: by the first one customers name the pod. The host keys of the same pod stay
    /// known where it has not proved them again; a lease without a uid, as earlier versions write it, is
    /// of the same pod.
    async fn replace_pod(
        &self,
        before: &Lease,
        running: &ReadyPod,
    ) -> Result<PodUpdate, LedgerError>;

    /// Ends a lease: writes it, releases its port, and writes its active orders as they are here.
    /// Orders that owe a refund become this replica's.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when its active orders are not these; then nothing is written.
    async fn end_lease(&self, lease: &Lease, orders: &[Order]) -> Result<(), LedgerError>;
}

/// Ports, and places for pods without a port, with the capacity that their leases have reserved. If
/// the order that makes the lease is final, or another replica's, nothing is changed and the error
/// is [`LedgerError::Conflict`].
#[async_trait]
pub trait PortAllocator: Send + Sync {
    /// Reserves a port of the range for a lease; `None` when all are taken. A lease that has a port
    /// keeps it; one that has a place gets a port instead.
    async fn reserve_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, LedgerError>;

    /// Replaces the lease's port by another one of the range. `None` when all are taken; then the
    /// lease keeps its port.
    async fn reassign_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, LedgerError>;

    /// Reserves a place for a lease without a port, if fewer than `most` leases have a port or a
    /// place. A lease that has a port or a place keeps it. `true` if the lease has one of them now.
    async fn reserve_place(&self, lease: &LeaseId, most: u32) -> Result<bool, LedgerError>;

    /// Reserves what the pod of this lease needs, if `capacity` has that left beside the
    /// reservations of all other leases: no two replicas sell the same. A lease that has this
    /// reservation already keeps it. If the capacity is not known, the reservation is recorded
    /// without a check.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when the lease has neither a port nor a place.
    async fn reserve_capacity(
        &self,
        lease: &LeaseId,
        demand: &Demand,
        capacity: Option<Arc<dyn Capacity>>,
    ) -> Result<Result<(), NoCapacity>, LedgerError>;

    /// What all leases with a port or a place have reserved, without those that cannot be read.
    async fn reservations(&self) -> Result<Vec<Reservation>, LedgerError>;

    /// Releases the lease's port or place and what it has reserved, if it has one.
    async fn release_port(&self, lease: &LeaseId) -> Result<(), LedgerError>;

    /// Releases the ports of leases that have ended, and of those that were never made and that no
    /// unfinished order is about to make; returns how many.
    async fn release_unused_ports(&self) -> Result<u32, LedgerError>;

    /// How many leases have a port or a place.
    async fn ports_in_use(&self) -> Result<u32, LedgerError>;

    /// Whether a port of the range could be reserved.
    async fn has_free_port(&self, range: RangeInclusive<u16>) -> Result<bool, LedgerError>;
}

/// What is known of the customer of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomerRecord {
    /// Those that are not over, oldest first, without those whose payer has named this customer and
    /// has not paid.
    pub leases: Vec<Lease>,
    /// What counts of their orders, see [`Order::counted`].
    pub history: CustomerHistory,
}

/// What a decision depends on, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionBasis {
    /// As of [`PortAllocator::reservations`].
    pub reservations: Vec<Reservation>,
    /// As of [`PortAllocator::ports_in_use`].
    pub ports_in_use: u32,
    /// None where no customer is known.
    pub customer: Option<CustomerRecord>,
}

/// What orders are decided by.
#[async_trait]
pub trait DecisionStore: Send + Sync {
    /// Of a customer without the order `besides`, nor its lease. The cost does not grow with how long
    /// they have been a customer.
    async fn decision_basis(
        &self,
        customer: Option<&Customer>,
        besides: Option<&OrderId>,
        now: UnixTime,
    ) -> Result<DecisionBasis, LedgerError>;
}

#[async_trait]
pub trait RefundStore: Send + Sync {
    /// Orders whose refund token is neither redeemed nor reclaimed as far as is known. Of one
    /// customer: also those whose refund is still being made.
    async fn pending_refunds(&self, of: Option<&Customer>) -> Result<Vec<Order>, LedgerError>;

    /// Records how the refund of such an order ended.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when it has ended already.
    async fn close_refund(&self, order: &Order) -> Result<(), LedgerError>;

    /// What the wallet may hold of this mint for orders that have neither ended nor been refunded,
    /// without `besides`: it may have to go back.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] when an order cannot be read that may be one of them.
    async fn owed(&self, mint: &MintUrl, besides: Option<&OrderId>) -> Result<Sat, LedgerError>;
}

/// Reads for operators, and the removal of what nobody needs to read any more.
#[async_trait]
pub trait Reporting: Send + Sync {
    /// At most `limit` orders, oldest first, starting behind the order `after`.
    async fn page(&self, after: Option<&OrderId>, limit: u32) -> Result<Vec<Order>, LedgerError>;

    /// Orders, leases and reservations that cannot be read, each with its id and the reason; a
    /// thousand of them, if there are more.
    async fn damaged(&self) -> Result<Vec<String>, LedgerError>;

    /// Revenue by the hour; hours without a paid order are left out.
    async fn revenue(&self, since: UnixTime) -> Result<Vec<HourlyRevenue>, LedgerError>;

    async fn count_by_state(&self) -> Result<Vec<StateCount>, LedgerError>;

    /// The pods of each hour, from the one of `since` to the one of `until`. Those that earlier versions
    /// have ended count until the end that was sold.
    async fn hourly_leases(
        &self,
        since: UnixTime,
        until: UnixTime,
    ) -> Result<Vec<HourlyLeases>, LedgerError>;

    /// At most `limit` leases, the newest first, behind the place `after`; of one customer, or of
    /// all. Those that cannot be read are left out: the place of the last row that was looked at, if
    /// there may be more behind it, is in the answer.
    async fn lease_page(
        &self,
        states: LeaseStates,
        of: Option<&Customer>,
        after: Option<&LeasePlace>,
        limit: u32,
    ) -> Result<(Vec<Lease>, Option<LeasePlace>), LedgerError>;

    /// Deletes refused orders that arrived before this time and whose response is delivered, and
    /// those beyond the limits, the oldest first; returns how many. What is shortened or deleted is
    /// not sent any more.
    async fn forget_refused(
        &self,
        before: UnixTime,
        limits: RefusedLimits,
    ) -> Result<u64, LedgerError>;
}

/// What the operator has decided to sell: for all replicas, and beyond a restart.
#[async_trait]
pub trait SalesStore: Send + Sync {
    /// # Errors
    /// [`LedgerError::Unreadable`] when a newer version wrote it: nothing is sold by guessing.
    async fn sales(&self) -> Result<Sales, LedgerError>;

    async fn set_sales(&self, sales: Sales) -> Result<(), LedgerError>;
}

/// What the id of a used login link begins with, beside the messages. No message's id does: a flood
/// of them has no link forgotten that could be used again.
pub const USED_LOGIN: &str = "app-login:";

/// Which incoming messages have been served.
#[async_trait]
pub trait MessageLog: Send + Sync {
    /// Claims a message for this replica. `false` when it is completed, or another live replica has
    /// claimed it. Whoever has claimed it may claim it again.
    async fn claim_message(&self, id: &MessageId, now: UnixTime) -> Result<bool, LedgerError>;

    /// Marks a message as completed.
    async fn complete_message(&self, id: &MessageId, now: UnixTime) -> Result<(), LedgerError>;

    /// Forgets messages that were claimed before this time, and all but the newest `most`; returns
    /// how many. Those of [`USED_LOGIN`] stay.
    async fn forget_messages(&self, before: UnixTime, most: u32) -> Result<u64, LedgerError>;

    /// Forgets those of [`USED_LOGIN`] that were claimed before this time; returns how many.
    async fn forget_used_logins(&self, before: UnixTime) -> Result<u64, LedgerError>;
}

/// Small values that outlive the process, by name.
#[async_trait]
pub trait KvStore: Send + Sync {
    async fn kv_read(&self, name: &str) -> Result<Option<String>, LedgerError>;

    async fn kv_write(&self, name: &str, value: &str) -> Result<(), LedgerError>;
}

/// What the order service needs.
pub trait Ledger:
    OrderStore + LeaseStore + PortAllocator + DecisionStore + RefundStore + Reporting + SalesStore
{
}

impl<T> Ledger for T where
    T: OrderStore
        + LeaseStore
        + PortAllocator
        + DecisionStore
        + RefundStore
        + Reporting
        + SalesStore
        + ?Sized
{
}

/// What the Nostr inbox needs.
pub trait InboxStore: MessageLog + KvStore {}

impl<T> InboxStore for T where T: MessageLog + KvStore + ?Sized {}
