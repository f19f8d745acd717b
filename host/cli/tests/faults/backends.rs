//! The backends of the order service, with injected faults. What is outside of the process (the
//! cluster, the way back) outlives it.

use async_trait::async_trait;
use paygress_core::backend::capacity::{Capacity, Demand, NoCapacity, Reservation};
use paygress_core::backend::cluster::{
    CapacitySource, ClusterError, ClusterEvent, ClusterFeatures, ClusterHealth, EndReason, Ending,
    LeasePlan, PodExpiry, PodLauncher, PodObserver, PodProgress, PodRemover, PodValidator,
    ReadyPod, StartupPhase,
};
use paygress_core::backend::responder::{ReplyTo, Responder, SendError};
use paygress_core::backend::store::{
    DecisionBasis, DecisionStore, HourlyLeases, HourlyRevenue, LeasePlace, LeaseStates, LeaseStore,
    LeaseUpdate, LedgerError, OpenOutcome, OrderStore, PodUpdate, PortAllocator, RefundStore,
    RefusedLimits, Repetition, Reporting, SalesStore, StateCount,
};
use paygress_core::model::ids::{Customer, LeaseId, MintUrl, OrderId, PodName, PublicKey};
use paygress_core::model::order::{Lease, Order, State};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::sales::Sales;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::protocol::Response;
use paygress_store::SqlStore;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, broadcast, mpsc};

/// What happens at the nth write to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtWrite {
    /// The process is killed before it.
    KilledBefore,
    /// The process is killed after it.
    KilledAfter,
    /// The disk is full, for so many writes.
    DiskFull(usize),
    /// It is done, and the connection to the database is lost before the answer.
    AnswerLost,
}

/// A ledger on a bad disk, in a process that is killed.
pub(crate) struct BadLedger {
    pub(crate) ledger: SqlStore,
    pub(crate) fault: Option<(usize, AtWrite)>,
    pub(crate) writes: Mutex<usize>,
    pub(crate) killed: Arc<Notify>,
}

impl BadLedger {
    async fn write<T>(
        &self,
        work: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let number = {
            let mut writes = self.writes.lock().unwrap();
            *writes += 1;
            *writes
        };
        match self.fault {
            Some((at, AtWrite::KilledBefore)) if number == at => self.die().await,
            Some((at, AtWrite::DiskFull(times))) if (at..at + times).contains(&number) => {
                Err(LedgerError::database("database or disk is full"))
            }
            Some((at, AtWrite::KilledAfter)) if number == at => {
                let _ = work.await;
                self.die().await
            }
            Some((at, AtWrite::AnswerLost)) if number == at => {
                work.await?;
                Err(LedgerError::database("connection was lost"))
            }
            _ => work.await,
        }
    }

    async fn die<T>(&self) -> T {
        self.killed.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl OrderStore for BadLedger {
    async fn open(
        &self,
        order: &Order,
        repetition: Repetition,
    ) -> Result<OpenOutcome, LedgerError> {
        self.write(self.ledger.open(order, repetition)).await
    }
    async fn transition(
        &self,
        order: &Order,
        from: State,
        lease: LeaseUpdate<'_>,
    ) -> Result<(), LedgerError> {
        self.write(self.ledger.transition(order, from, lease)).await
    }
    async fn check_state(&self, id: &OrderId, state: State) -> Result<(), LedgerError> {
        self.ledger.check_state(id, state).await
    }
    async fn order(&self, id: &OrderId) -> Result<Option<Order>, LedgerError> {
        self.ledger.order(id).await
    }
    async fn has_room(&self) -> bool {
        self.ledger.has_room().await
    }
    async fn orders_of(&self, lease: &LeaseId) -> Result<Vec<Order>, LedgerError> {
        self.ledger.orders_of(lease).await
    }
    async fn spawn_order(&self, lease: &LeaseId) -> Result<Option<Order>, LedgerError> {
        self.ledger.spawn_order(lease).await
    }
    async fn unfinished(&self) -> Result<Vec<Order>, LedgerError> {
        self.ledger.unfinished().await
    }
    async fn delivered(&self, id: &OrderId, state: State) -> Result<(), LedgerError> {
        self.write(self.ledger.delivered(id, state)).await
    }
}

#[async_trait]
impl LeaseStore for BadLedger {
    async fn lease(&self, pod: &PodName) -> Result<Option<Lease>, LedgerError> {
        self.ledger.lease(pod).await
    }
    async fn lease_of_key(&self, key: &PublicKey) -> Result<Option<Lease>, LedgerError> {
        self.ledger.lease_of_key(key).await
    }
    async fn live_leases(&self, of: Option<&Customer>) -> Result<Vec<Lease>, LedgerError> {
        self.ledger.live_leases(of).await
    }
    async fn mark_ending(&self, pod: &PodName, ending: Ending) -> Result<(), LedgerError> {
        self.write(self.ledger.mark_ending(pod, ending)).await
    }
    async fn mark_noticed(
        &self,
        pod: &PodName,
        expires_at: UnixTime,
        due: UnixTime,
    ) -> Result<bool, LedgerError> {
        self.write(self.ledger.mark_noticed(pod, expires_at, due)).await
    }
    async fn replace_pod(
        &self,
        before: &Lease,
        running: &ReadyPod,
    ) -> Result<PodUpdate, LedgerError> {
        self.write(self.ledger.replace_pod(before, running)).await
    }
    async fn end_lease(&self, lease: &Lease, orders: &[Order]) -> Result<(), LedgerError> {
        self.write(self.ledger.end_lease(lease, orders)).await
    }
}

#[async_trait]
impl PortAllocator for BadLedger {
    async fn reserve_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, LedgerError> {
        self.write(self.ledger.reserve_port(lease, range)).await
    }
    async fn reassign_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, LedgerError> {
        self.write(self.ledger.reassign_port(lease, range)).await
    }
    async fn reserve_place(&self, lease: &LeaseId, most: u32) -> Result<bool, LedgerError> {
        self.write(self.ledger.reserve_place(lease, most)).await
    }
    async fn release_port(&self, lease: &LeaseId) -> Result<(), LedgerError> {
        self.write(self.ledger.release_port(lease)).await
    }
    async fn reserve_capacity(
        &self,
        lease: &LeaseId,
        demand: &Demand,
        capacity: Option<Arc<dyn Capacity>>,
    ) -> Result<Result<(), NoCapacity>, LedgerError> {
        self.write(self.ledger.reserve_capacity(lease, demand, capacity)).await
    }
    async fn reservations(&self) -> Result<Vec<Reservation>, LedgerError> {
        self.ledger.reservations().await
    }
    async fn release_unused_ports(&self) -> Result<u32, LedgerError> {
        self.ledger.release_unused_ports().await
    }
    async fn ports_in_use(&self) -> Result<u32, LedgerError> {
        self.ledger.ports_in_use().await
    }
    async fn has_free_port(&self, range: RangeInclusive<u16>) -> Result<bool, LedgerError> {
        self.ledger.has_free_port(range).await
    }
}

#[async_trait]
impl DecisionStore for BadLedger {
    async fn decision_basis(
        &self,
        customer: Option<&Customer>,
        besides: Option<&OrderId>,
        now: UnixTime,
    ) -> Result<DecisionBasis, LedgerError> {
        self.ledger.decision_basis(customer, besides, now).await
    }
}

#[async_trait]
impl RefundStore for BadLedger {
    async fn pending_refunds(&self, of: Option<&Customer>) -> Result<Vec<Order>, LedgerError> {
        self.ledger.pending_refunds(of).await
    }
    async fn close_refund(&self, order: &Order) -> Result<(), LedgerError> {
        self.write(self.ledger.close_refund(order)).await
    }
    async fn owed(&self, mint: &MintUrl, besides: Option<&OrderId>) -> Result<Sat, LedgerError> {
        self.ledger.owed(mint, besides).await
    }
}

#[async_trait]
impl Reporting for BadLedger {
    async fn page(&self, after: Option<&OrderId>, limit: u32) -> Result<Vec<Order>, LedgerError> {
        self.ledger.page(after, limit).await
    }
    async fn damaged(&self) -> Result<Vec<String>, LedgerError> {
        self.ledger.damaged().await
    }
    async fn revenue(&self, since: UnixTime) -> Result<Vec<HourlyRevenue>, LedgerError> {
        self.ledger.revenue(since).await
    }
    async fn count_by_state(&self) -> Result<Vec<StateCount>, LedgerError> {
        self.ledger.count_by_state().await
    }
    async fn hourly_leases(
        &self,
        since: UnixTime,
        until: UnixTime,
    ) -> Result<Vec<HourlyLeases>, LedgerError> {
        self.ledger.hourly_leases(since, until).await
    }
    async fn lease_page(
        &self,
        states: LeaseStates,
        of: Option<&Customer>,
        after: Option<&LeasePlace>,
        limit: u32,
    ) -> Result<(Vec<Lease>, Option<LeasePlace>), LedgerError> {
        self.ledger.lease_page(states, of, after, limit).await
    }
    async fn forget_refused(
        &self,
        before: UnixTime,
        limits: RefusedLimits,
    ) -> Result<u64, LedgerError> {
        self.ledger.forget_refused(before, limits).await
    }
}

#[async_trait]
impl SalesStore for BadLedger {
    async fn sales(&self) -> Result<Sales, LedgerError> {
        self.ledger.sales().await
    }
    async fn set_sales(&self, sales: Sales) -> Result<(), LedgerError> {
        self.write(self.ledger.set_sales(sales)).await
    }
}

/// What is wrong with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterFault {
    None,
    /// The API server is away for so many calls, after so many.
    Unavailable(usize, usize),
    /// No node has room, or the image is missing: the pod never becomes ready.
    NeverReady,
    /// The port is taken, so many times.
    PortTaken(usize),
    /// The quota is used up: refused in the dry run.
    Quota,
    /// The node is lost once the pod is ready.
    NodeLost,
}

/// A cluster without pods: it remembers what runs, and lives on when the service is killed.
pub(crate) struct ScriptedCluster {
    pub(crate) fault: Mutex<ClusterFault>,
    calls: Mutex<usize>,
    pods: Mutex<HashMap<PodName, UnixTime>>,
    events: broadcast::Sender<ClusterEvent>,
}

impl ScriptedCluster {
    pub(crate) fn new() -> Self {
        Self {
            fault: Mutex::new(ClusterFault::None),
            calls: Mutex::default(),
            pods: Mutex::default(),
            events: broadcast::Sender::new(64),
        }
    }

    fn call(&self) -> Result<ClusterFault, ClusterError> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        let fault = *self.fault.lock().unwrap();
        match fault {
            ClusterFault::Unavailable(after, times)
                if (after + 1..after + 1 + times).contains(&number) =>
            {
                Err(ClusterError::unavailable("a test"))
            }
            fault => Ok(fault),
        }
    }

    /// What has run out is gone.
    fn alive(&self, pod: &PodName) -> Result<(), ClusterError> {
        let mut pods = self.pods.lock().unwrap();
        match pods.get(pod) {
            Some(end) if *end > UnixTime::now() => Ok(()),
            Some(_) => {
                pods.remove(pod);
                let _ = self.events.send(ClusterEvent::Ended(pod.clone(), EndReason::Expired));
                Err(ClusterError::NotFound)
            }
            None => Err(ClusterError::NotFound),
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.pods.lock().unwrap().len()
    }

    /// The node of this pod burns down.
    pub(crate) fn lose(&self, pod: &PodName) {
        self.pods.lock().unwrap().remove(pod);
        let _ = self.events.send(ClusterEvent::Ended(pod.clone(), EndReason::Disrupted));
    }
}

#[async_trait]
impl PodValidator for ScriptedCluster {
    async fn dry_run(&self, _: &LeasePlan) -> Result<Demand, ClusterError> {
        match self.call()? {
            ClusterFault::Quota => {
                Err(Refusal::new(ErrorType::ResourceUnavailable, "the quota is used up").into())
            }
            _ => Ok(Demand::default()),
        }
    }
}

impl CapacitySource for ScriptedCluster {}

#[async_trait]
impl PodLauncher for ScriptedCluster {
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        self.call()?;
        let pod = plan.lease.pod_name();
        self.pods.lock().unwrap().entry(pod).or_insert_with(|| UnixTime::now().after(plan.sold));
        Ok(())
    }
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        match self.call()? {
            ClusterFault::NeverReady => Err(ClusterError::not_ready("ImagePullBackOff")),
            ClusterFault::PortTaken(times) if times > 0 => {
                *self.fault.lock().unwrap() = ClusterFault::PortTaken(times - 1);
                Err(ClusterError::port_taken("a test"))
            }
            _ => self.alive(pod).map(|()| ReadyPod::default()),
        }
    }
}

#[async_trait]
impl PodProgress for ScriptedCluster {
    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase, ClusterError> {
        self.call()?;
        self.alive(pod).map(|()| StartupPhase::Starting)
    }
}

#[async_trait]
impl PodExpiry for ScriptedCluster {
    async fn check_running(&self, pod: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        self.call()?;
        self.alive(pod)
    }
    async fn set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<(), ClusterError> {
        let fault = self.call()?;
        self.alive(pod)?;
        self.pods.lock().unwrap().insert(pod.clone(), at);
        if fault == ClusterFault::NodeLost {
            *self.fault.lock().unwrap() = ClusterFault::None;
            self.lose(pod);
        }
        Ok(())
    }
}

#[async_trait]
impl PodRemover for ScriptedCluster {
    async fn remove(&self, pod: &PodName) -> Result<(), ClusterError> {
        self.call()?;
        if self.pods.lock().unwrap().remove(pod).is_some() {
            let _ = self.events.send(ClusterEvent::Ended(pod.clone(), EndReason::Removed));
        }
        Ok(())
    }
}

#[async_trait]
impl PodObserver for ScriptedCluster {
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let mut events = self.events.subscribe();
        let there = self.pods.lock().unwrap().keys().cloned().collect();
        let _ = sink.send(ClusterEvent::Resync(there)).await;
        while let Ok(event) = events.recv().await {
            if sink.send(event).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        self.call()?;
        Ok(self.pods.lock().unwrap().keys().cloned().collect())
    }
}

#[async_trait]
impl ClusterHealth for ScriptedCluster {
    async fn check(&self) -> Result<(), ClusterError> {
        self.call().map(drop)
    }
}

impl ClusterFeatures for ScriptedCluster {}

/// The customers' inboxes; now and then sending fails.
#[derive(Default)]
pub(crate) struct FakeResponder {
    pub(crate) failing: Mutex<usize>,
    /// The request that is answered, and the response.
    pub(crate) responses: Mutex<Vec<(String, Response)>>,
}

#[async_trait]
impl Responder for FakeResponder {
    async fn send(&self, to: &ReplyTo, response: &Response) -> Result<(), SendError> {
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(SendError::undelivered("no relay took it"));
        }
        let request = to.part("request").unwrap_or_default().to_owned();
        self.responses.lock().unwrap().push((request, response.clone()));
        Ok(())
    }
}
