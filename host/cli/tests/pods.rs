//! What becomes of pods, on a cluster without any: where they are moved to, and why they ended while
//! the service was down.
#![cfg(test)]

mod support;

use async_trait::async_trait;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::cluster::{
    Cluster, ClusterError, ClusterEvent, EndReason, LeasePlan, StartupPhase,
};
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::{LeaseStore, OrderStore, PortAllocator, Repetition, Reporting};
use paygress_core::model::ids::{Customer, PodName};
use paygress_core::model::lease::{Lease, LeaseState};
use paygress_core::model::order::{Order, State};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::orders::{Backends, NewOrder, OrderService, Settings};
use paygress_core::protocol::Response;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use support::customer::until;
use support::fake::{FakeWallet, Generous, NullResponder, settings, spawn};
use tempfile::TempDir;
use tokio::sync::mpsc;

const UNAVAILABLE: ErrorType = ErrorType::ResourceUnavailable;

/// What a cluster without pods answers.
#[derive(Default)]
struct Script {
    /// How often the port of a new pod is taken.
    taken: usize,
    /// The ports of the pods that were validated, in turn.
    validated: Vec<u16>,
    /// Why a new pod does not fit, by its tier.
    too_little: Option<NoCapacity>,
    /// How many of the ports that were validated first other pods have.
    of_others: usize,
    /// Whether what it has left is not known yet.
    is_listing: bool,
    /// Whether its pods are gone.
    is_empty: bool,
    /// What it reports to whoever watches it first.
    events: Vec<ClusterEvent>,
}

#[derive(Default)]
struct ScriptedCluster(Mutex<Script>);

impl ScriptedCluster {
    fn running(&self) -> Result<(), ClusterError> {
        match self.0.lock().unwrap().is_empty {
            true => Err(ClusterError::NotFound),
            false => Ok(()),
        }
    }
}

fn demand(port: u16) -> Demand {
    Demand::new(format!("port {port}"))
}

/// What it has left for pods.
struct Left {
    too_little: Option<NoCapacity>,
    /// What pods on the ports of others need.
    of_others: Vec<Demand>,
}

impl Capacity for Left {
    fn check(&self, _: &[Reservation], new: &Demand) -> Result<(), NoCapacity> {
        if self.of_others.contains(new) { Err(NoCapacity::Port) } else { Ok(()) }
    }
    fn fits(&self, _: &[Reservation], _: &Tier) -> Result<(), NoCapacity> {
        self.too_little.map_or(Ok(()), Err)
    }
    fn count(&self, _: &[Reservation], _: &Tier, most: u32) -> u32 {
        most
    }
    fn utilisation(&self) -> Utilisation {
        Utilisation { cpu: 0, memory: 0 }
    }
}

#[async_trait]
impl Cluster for ScriptedCluster {
    async fn dry_run(&self, plan: &LeasePlan) -> Result<Demand, ClusterError> {
        let port = plan.placement.host_port;
        self.0.lock().unwrap().validated.push(port);
        Ok(demand(port))
    }
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        let script = self.0.lock().unwrap();
        let of_others = script.validated.iter().take(script.of_others);
        Some(Arc::new(Left {
            too_little: script.too_little,
            of_others: of_others.map(|port| demand(*port)).collect(),
        }))
    }
    fn is_capacity_pending(&self) -> bool {
        self.0.lock().unwrap().is_listing
    }
    async fn launch(&self, _: &LeasePlan) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn ready(&self, _: &PodName) -> Result<(), ClusterError> {
        let mut script = self.0.lock().unwrap();
        match script.taken.checked_sub(1) {
            Some(left) => {
                script.taken = left;
                Err(ClusterError::port_taken("a test"))
            }
            None => Ok(()),
        }
    }
    async fn startup_phase(&self, _: &PodName) -> Result<StartupPhase, ClusterError> {
        Ok(StartupPhase::Starting)
    }
    async fn check_running(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        self.running()
    }
    async fn set_expiry(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        self.running()
    }
    async fn remove(&self, _: &PodName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let events = std::mem::take(&mut self.0.lock().unwrap().events);
        for event in events {
            if sink.send(event).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }
    async fn check(&self) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        Ok(Vec::new())
    }
}

/// A service, and what outlives it.
struct Service {
    cluster: Arc<ScriptedCluster>,
    ports: RangeInclusive<u16>,
    ledger: Arc<SqlStore>,
    _directory: TempDir,
}

impl Service {
    async fn new(script: Script) -> Self {
        let directory = fast_directory().unwrap();
        let file = directory.path().join("ledger.sqlite");
        let ledger = Arc::new(SqlStore::sqlite(&file).await.unwrap().with_reserve(0));
        let cluster = Arc::new(ScriptedCluster(Mutex::new(script)));
        Self { cluster, ports: settings().ports, ledger, _directory: directory }
    }

    /// As it starts on what is there.
    fn start(&self) -> Arc<OrderService> {
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: Arc::new(Generous),
            cluster: self.cluster.clone(),
            ledger: self.ledger.clone(),
            responder: Arc::new(NullResponder),
        };
        // What is paid back is not what a customer gets for a stop of theirs.
        let ports = self.ports.clone();
        OrderService::new(Settings { refund_on_stop: None, ports, ..settings() }, backends)
    }

    /// What a customer who orders a pod is answered.
    async fn order_pod(&self) -> Response {
        let incoming = NewOrder {
            repetition: Repetition::ByContent,
            message: "1".repeat(64),
            reply_to: ReplyTo {
                transport: "fake".to_owned(),
                customer: Some(Customer::parse(&"c".repeat(64)).unwrap()),
                address: BTreeMap::new(),
            },
            network: None,
            token: Secret::new("10-1"),
            purchase: spawn(None, None),
            password: Some(Secret::new("a fake password")),
        };
        self.start().submit(incoming).await.unwrap().answer().await.unwrap()
    }

    /// Sells a pod.
    async fn sell(&self) -> Lease {
        let answer = self.order_pod().await;
        assert!(matches!(answer, Response::Access(_)), "{answer:?}");
        until("the answer is not delivered", async || {
            self.ledger.unfinished().await.unwrap().is_empty().then_some(())
        })
        .await;
        self.ledger.live_leases(None).await.unwrap().remove(0)
    }

    async fn order(&self) -> Order {
        self.ledger.page(None, 10).await.unwrap().remove(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_needs_follows_it_to_another_port() {
    for taken in [0, 1, 2] {
        let service = Service::new(Script { taken, ..Script::default() }).await;
        let lease = service.sell().await;
        let validated = service.cluster.0.lock().unwrap().validated.clone();
        assert_eq!(validated.len(), taken + 1, "each of its ports is validated");
        assert_eq!(validated.last(), Some(&lease.port));
        assert!(validated.windows(2).all(|two| two[0] != two[1]), "{validated:?}");
        let reserved = Reservation { demand: demand(lease.port), lease: lease.id };
        assert_eq!(service.ledger.reservations().await.unwrap(), [reserved], "moved {taken} times");
    }
}

/// A pod gets another port before it is paid for, if other pods have the first one.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_pod_has_is_not_sold() {
    for (of_others, last, dry_runs, is_sold) in [
        (0, 20_001, 1, true),
        (1, 20_001, 2, true),
        // There is no other one.
        (1, 20_000, 1, false),
        (2, 20_001, 4, false),
    ] {
        let script = Script { of_others, ..Script::default() };
        let service = Service { ports: 20_000..=last, ..Service::new(script).await };
        let answer = service.order_pod().await;
        let validated = service.cluster.0.lock().unwrap().validated.clone();
        assert_eq!(validated.len(), dry_runs, "{validated:?}");
        let reservations = service.ledger.reservations().await.unwrap();
        if is_sold {
            assert!(matches!(answer, Response::Access(_)), "{answer:?}");
            let port = validated[dry_runs - 1];
            assert!(!validated[..of_others].contains(&port), "{validated:?}");
            assert_eq!(service.order().await.pod().lease().unwrap(), reservations[0].lease);
            assert_eq!(reservations[0].demand, demand(port));
        } else {
            let error = answer.error().unwrap();
            let expected = (UNAVAILABLE, "no node has the reserved port free");
            assert_eq!((error.error_type, error.message.as_str()), expected);
            let details = error.details.as_deref();
            assert_eq!(details, Some("your token was not taken; try again later"));
            assert!(reservations.is_empty(), "{reservations:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_know_yet_what_is_left_is_not_ready() {
    let service = Service::new(Script { is_listing: true, ..Script::default() }).await;
    let orders = service.start();
    let reasons = orders.unready_reasons().await;
    assert!(reasons.len() == 1 && reasons[0].contains("not listed yet"), "{reasons:?}");
    service.cluster.0.lock().unwrap().is_listing = false;
    assert!(orders.unready_reasons().await.is_empty());
}

/// Customers of a tier that will never fit do not wait for pods to end.
#[tokio::test(flavor = "multi_thread")]
async fn customers_learn_whether_a_smaller_tier_is_needed() {
    for (too_little, text, may_fit_later) in [
        (NoCapacity::Nodes, "no node has enough left for this pod", true),
        (NoCapacity::TooLarge, "no node is large enough for this pod", false),
        (NoCapacity::Quota, "the quota is used up", true),
        (NoCapacity::QuotaTooSmall, "the quota is too small for this pod", false),
    ] {
        let service =
            Service::new(Script { too_little: Some(too_little), ..Script::default() }).await;
        let answer = service.order_pod().await;
        let error = answer.error().unwrap();
        assert_eq!((error.error_type, error.message.as_str()), (UNAVAILABLE, text));
        let details = error.details.as_deref().unwrap();
        assert!(details.starts_with("your token was not taken"), "{details}");
        assert_eq!(details.contains("when a pod has ended"), may_fit_later, "{details}");
        assert!(service.cluster.0.lock().unwrap().validated.is_empty(), "by its tier alone");
        assert_eq!(service.ledger.ports_in_use().await.unwrap(), 0);
    }
}

/// How the order of a pod ends that was gone when the service came back. `events` are the cluster's
/// then.
async fn found_gone(
    marked: Option<EndReason>,
    events: impl FnOnce(PodName) -> Vec<ClusterEvent>,
) -> Order {
    let service = Service::new(Script::default()).await;
    let lease = service.sell().await;
    if let Some(reason) = marked {
        service.ledger.mark_ending(&lease.pod(), reason).await.unwrap();
    }
    {
        let mut script = service.cluster.0.lock().unwrap();
        (script.is_empty, script.events) = (true, events(lease.pod()));
    }
    let watching = tokio::spawn(service.start().watch());
    let order = until("the end of the lease is not recorded", async || {
        let lease = service.ledger.lease(&lease.pod()).await.unwrap().unwrap();
        let order = service.order().await;
        (lease.state == LeaseState::Ended && order.state() != State::RefundPending).then_some(order)
    })
    .await;
    watching.abort();
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), 0);
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_its_customer_ended_while_the_service_was_down_is_not_paid_back() {
    let listed = |pod: PodName| ClusterEvent::Resync(vec![pod]);
    let exited = found_gone(None, |pod| {
        // Its Job is still there, and says how it ended.
        vec![ClusterEvent::Ended(pod.clone(), EndReason::Exited), listed(pod)]
    });
    // It was being stopped when the service died, and nothing is left of it.
    let stopped = found_gone(Some(EndReason::Stopped), |_| vec![ClusterEvent::Resync(Vec::new())]);
    for (what, order) in [("exited", exited.await), ("stopped", stopped.await)] {
        assert_eq!(order.state(), State::Ended, "{what}");
        assert_eq!(order.state.refund_due(), None, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_others_ended_while_the_service_was_down_is_paid_back() {
    let removed = found_gone(None, |_| vec![ClusterEvent::Resync(Vec::new())]);
    let disrupted = found_gone(None, |pod| {
        let listed = ClusterEvent::Resync(vec![pod.clone()]);
        vec![ClusterEvent::Ended(pod, EndReason::Disrupted), listed]
    });
    for (what, order) in [("removed", removed.await), ("disrupted", disrupted.await)] {
        assert_eq!(order.state(), State::Refunded, "{what}");
        // Ten minutes for 10 sat, of which a moment is used.
        let due = order.state.refund_due().unwrap();
        assert!((Sat(9)..=Sat(10)).contains(&due), "{what}: {due}");
        assert!(order.state.refusal().unwrap().message.contains("the cluster lost your pod"));
    }
}
