//! The probe pod: nothing is sold before it has started, and no customer pays to find out why pods
//! do not start.

use crate::support::customer::until;
use crate::support::fake::{
    FakeCluster, FakeWallet, Gate, Images, NullResponder, UNPROVEN, new_order, settings, spawn,
};
use async_trait::async_trait;
use paygress_core::backend::cluster::{
    EndReason, LeasePlan, Neighbours, NetworkIsolation, Probe, ProbeProblem,
};
use paygress_core::backend::store::{
    LeaseStore, LeaseUpdate, OrderStore, PortAllocator, Repetition,
};
use paygress_core::limits;
use paygress_core::model::ids::{Customer, LeaseId, MessageId, OrderId, PodName};
use paygress_core::model::lease::{Lease, LeaseState};
use paygress_core::model::order::{Order, OrderState, Purchase, State};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::units::{Sat, Seconds, UnixTime};
use paygress_core::orders::{Backends, NewOrder, OrderService, Settings};
use paygress_core::protocol::Response;
use paygress_core::testing;
use paygress_store::SqlStore;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Probes that end when the test says so, and find what it says.
struct Probes {
    probed: Mutex<Vec<LeasePlan>>,
    /// The pods that tried the network, each with its neighbour.
    tried: Mutex<Vec<(PodName, Option<PodName>)>>,
    findings: tokio::sync::Mutex<mpsc::UnboundedReceiver<Option<ProbeProblem>>>,
    isolation: Mutex<NetworkIsolation>,
}

#[async_trait]
impl Probe for Probes {
    async fn run(&self, plan: &LeasePlan) -> Option<ProbeProblem> {
        self.probed.lock().unwrap().push(plan.clone());
        self.findings.lock().await.recv().await.flatten()
    }

    async fn try_network(
        &self,
        plan: &LeasePlan,
        neighbour: Option<&LeasePlan>,
    ) -> Option<ProbeProblem> {
        let name = |plan: &LeasePlan| plan.lease.pod_name();
        self.tried.lock().unwrap().push((name(plan), neighbour.map(name)));
        None
    }

    fn network_isolation(&self) -> NetworkIsolation {
        *self.isolation.lock().unwrap()
    }
}

/// A service that runs until it is dropped.
struct Service {
    orders: Arc<OrderService>,
    cluster: Arc<FakeCluster>,
    probes: Arc<Probes>,
    images: Arc<Images>,
    ledger: Arc<SqlStore>,
    /// What the next probes find.
    findings: mpsc::UnboundedSender<Option<ProbeProblem>>,
    tokens: AtomicU32,
    watching: JoinHandle<()>,
    _directory: TempDir,
}

impl Service {
    async fn start(room: Option<u32>) -> Self {
        Self::start_beside(room, Vec::new()).await
    }

    /// With pods that an earlier process has left.
    async fn start_beside(room: Option<u32>, old: Vec<PodName>) -> Self {
        let running = Mutex::new(old.iter().cloned().collect());
        Self::start_on(FakeCluster { room, running, old, ..FakeCluster::default() }).await
    }

    async fn start_on(cluster: FakeCluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ledger.sqlite");
        let ledger = Arc::new(SqlStore::sqlite(&file).await.unwrap());
        let (findings, receiver) = mpsc::unbounded_channel();
        let receiver = tokio::sync::Mutex::new(receiver);
        let isolation = Mutex::new(NetworkIsolation::Unknown);
        let (probed, tried) = (Mutex::default(), Mutex::default());
        let probes = Arc::new(Probes { probed, tried, findings: receiver, isolation });
        let cluster = Arc::new(FakeCluster { probe: Some(probes.clone()), ..cluster });
        let images = Arc::new(Images::new("image:1"));
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: images.clone(),
            cluster: cluster.clone().into(),
            ledger: ledger.clone(),
            responder: Arc::new(NullResponder),
        };
        let orders = OrderService::new(Settings { sweep: true, ..settings() }, backends);
        let watching = tokio::spawn(Arc::clone(&orders).watch());
        let tokens = AtomicU32::new(1);
        Self {
            orders,
            cluster,
            probes,
            images,
            ledger,
            findings,
            tokens,
            watching,
            _directory: directory,
        }
    }

    /// An order of a pod, with a token of so many sat.
    fn new_order(&self, sat: Sat) -> NewOrder {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let customer = Customer::parse(&"c".repeat(64)).unwrap();
        new_order(customer, format!("{}-{token}", sat.0), spawn(None, None))
    }

    /// What a customer who orders a pod is answered.
    fn order(&self) -> JoinHandle<Response> {
        let incoming = self.new_order(Sat(10));
        let orders = Arc::clone(&self.orders);
        tokio::spawn(async move { orders.submit(incoming).await.unwrap().answer().await.unwrap() })
    }

    /// Stores an order in this state, with its lease.
    async fn store(&self, order: &Order, lease: LeaseUpdate<'_>) {
        // Active ones are not resumed: nothing changes it before its lease is there.
        let active = testing::order(order.purchase.clone(), State::Active).unwrap();
        let first = Order { state: active.state, ..order.clone() };
        self.ledger.open(&first, Repetition::ByContent).await.unwrap();
        self.ledger.transition(order, State::Active, lease).await.unwrap();
    }

    /// Waits until the order is in this state.
    async fn wait_for_state(&self, id: &OrderId, state: State) {
        until("the order does not go on", async || {
            let stored = self.ledger.order(id).await.unwrap().unwrap();
            (stored.state() == state).then_some(())
        })
        .await;
    }

    /// Waits until so many probes have begun.
    async fn wait_for_probes(&self, count: usize) {
        until("a probe does not begin", async || (self.probes() >= count).then_some(())).await;
        assert_eq!(self.probes(), count);
    }

    fn probes(&self) -> usize {
        self.probes.probed.lock().unwrap().len()
    }

    /// The reasons why it is not ready, once it has none or this one.
    async fn wait_for_reason(&self, reason: Option<&'static str>) {
        until("it is not as ready as it should be", async || {
            let reasons = self.orders.unready_reasons().await;
            reasons.iter().copied().eq(reason).then_some(())
        })
        .await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

fn assert_sold(answer: &Response) {
    assert!(matches!(answer, Response::Access(_)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_the_first_probe_and_is_served_then() {
    let service = Service::start(None).await;
    service.wait_for_probes(1).await;
    let reasons = service.orders.unready_reasons().await;
    assert!(reasons.len() == 1 && reasons[0].contains("probe pod is being started"), "{reasons:?}");
    let order = service.order();
    until("the order is not taken", async || {
        let counts = service.orders.overview(UnixTime(0)).await.unwrap().count_by_state;
        (!counts.is_empty()).then_some(())
    })
    .await;
    assert!(!order.is_finished() && service.cluster.running.lock().unwrap().is_empty());
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), 0, "nor has it a port");
    // Nobody is sent to their wallet either.
    let price = service.orders.price(&spawn(None, None), None, None).await;
    assert_eq!(price.unwrap_err().code, ErrorType::ResourceUnavailable);

    service.findings.send(None).unwrap();
    assert_sold(&order.await.unwrap());
    service.wait_for_reason(None).await;
    assert_eq!(service.orders.probe_warning(), None);
    let probed = service.probes.probed.lock().unwrap().remove(0);
    assert!(probed.lease.is_probe());
    assert_eq!(probed.placement.image.as_str(), "image:1");
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), 1, "the probe takes no port");
}

/// Nobody fills the places that top-ups need too, and that others need once the probe has ended.
#[tokio::test(flavor = "multi_thread")]
async fn few_orders_without_proven_tokens_wait_for_a_probe() {
    let service = Service::start(None).await;
    service.wait_for_probes(1).await;
    let submit = async |sat, network: u32| {
        let network = Some(IpAddr::V4(Ipv4Addr::from(network)));
        service.orders.submit(NewOrder { network, ..service.new_order(sat) }).await
    };
    let mut waiting = Vec::new();
    for network in (1..).take(limits::PROBE_WAITS) {
        waiting.push(submit(UNPROVEN, network).await.unwrap());
    }
    let refused = submit(UNPROVEN, 0).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::ResourceUnavailable);
    assert!(refused.message.contains("try again in a minute"), "{refused}");
    // Those that have cost their senders what they are worth wait all the same.
    let proven = submit(Sat(10), 0).await.unwrap();
    service.findings.send(None).unwrap();
    for order in waiting.into_iter().chain([proven]) {
        assert_sold(&order.answer().await.unwrap());
    }
    assert_sold(&submit(UNPROVEN, 0).await.unwrap().answer().await.unwrap());
}

/// What a probe finds is true of the pod that it was of.
#[tokio::test(flavor = "multi_thread")]
async fn policies_that_are_published_during_a_probe_are_probed_themselves() {
    let service = Service::start(None).await;
    service.wait_for_probes(1).await;
    service.images.publish("image:2");
    let order = service.order();
    service.findings.send(None).unwrap();
    service.wait_for_probes(2).await;
    assert!(!order.is_finished(), "the pod that started is another one");
    service.findings.send(Some(ProbeProblem::Exited)).unwrap();
    let answer = order.await.unwrap();
    let error = answer.error().unwrap_or_else(|| panic!("sold: {answer:?}"));
    assert!(error.message.contains("do not start right now"), "{error:?}");
    let probed = service.probes.probed.lock().unwrap().clone();
    let images: Vec<&str> = probed.iter().map(|plan| plan.placement.image.as_str()).collect();
    assert_eq!(images, ["image:1", "image:2"]);
    // The other way round: what fails keeps no others from being sold.
    service.images.publish("image:3");
    service.wait_for_probes(3).await;
    service.images.publish("image:4");
    let order = service.order();
    service.findings.send(Some(ProbeProblem::Exited)).unwrap();
    service.wait_for_probes(4).await;
    service.findings.send(None).unwrap();
    assert_sold(&order.await.unwrap());
}

/// Before that its customer would not be root in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_paid_for_before_a_restart_is_launched_after_the_first_probe() {
    let service = Service::start(None).await;
    service.wait_for_probes(1).await;
    let order = testing::order(testing::spawn(), State::Paid).unwrap();
    let lease = testing::reserved_lease(&order.id);
    service.store(&order, LeaseUpdate::Put(&lease)).await;
    service.orders.resume().await.unwrap();
    service.wait_for_state(&order.id, State::Provisioning).await;
    // The subject of the test is time: else it is active after some milliseconds.
    let active = service.wait_for_state(&order.id, State::Active);
    let early = tokio::time::timeout(Duration::from_millis(300), active).await;
    assert!(early.is_err() && service.cluster.running.lock().unwrap().is_empty());
    service.findings.send(None).unwrap();
    service.wait_for_state(&order.id, State::Active).await;
}

/// The process died after the pod was ready, and before its order was active.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_while_its_pod_is_resumed_is_not_lost() {
    let gate = Arc::new(Gate::default());
    let cluster = FakeCluster { gate: Some(gate.clone()), ..FakeCluster::default() };
    let service = Service::start_on(cluster).await;
    service.findings.send(None).unwrap();
    let mut order = testing::order(testing::spawn(), State::Provisioning).unwrap();
    let end = UnixTime::now().after(Seconds(600));
    let OrderState::Provisioning { expires_at, .. } = &mut order.state else { panic!() };
    *expires_at = Some(end);
    let reserved = testing::reserved_lease(&order.id);
    let lease = Lease { state: LeaseState::Live, expires_at: Some(end), ..reserved };
    service.store(&order, LeaseUpdate::Put(&lease)).await;
    service.orders.resume().await.unwrap();
    gate.reached.notified().await;
    let pod = lease.pod();
    let mut top_up = testing::order(Purchase::TopUp { pod: pod.clone() }, State::Active).unwrap();
    top_up.message = MessageId::parse("another").unwrap();
    service.store(&top_up, LeaseUpdate::Extend(&pod, Seconds(60))).await;
    gate.go.notify_one();
    service.wait_for_state(&order.id, State::Active).await;
    let lease = service.ledger.lease(&pod).await.unwrap().unwrap();
    assert_eq!(lease.expires_at, Some(end.after(Seconds(60))), "the minute was paid for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_start_is_sold_to_nobody_until_it_is_changed() {
    let service = Service::start(None).await;
    service.findings.send(Some(ProbeProblem::Image)).unwrap();
    service.wait_for_reason(Some(ProbeProblem::Image.message())).await;
    let answer = service.order().await.unwrap();
    let error = answer.error().unwrap_or_else(|| panic!("sold: {answer:?}"));
    assert_eq!(error.error_type, ErrorType::ResourceUnavailable);
    assert_eq!(error.details.as_deref(), Some("your token was not taken"));
    assert!(!error.message.contains("SSH_BASE_IMAGE"), "that is for the operator: {error:?}");
    let warnings = service.orders.overview(UnixTime(0)).await.unwrap().warnings;
    assert_eq!(warnings, [ProbeProblem::Image.message()]);

    // An order of now waits for the probe of the new image.
    service.images.publish("image:2");
    service.wait_for_probes(2).await;
    let order = service.order();
    service.findings.send(None).unwrap();
    assert_sold(&order.await.unwrap());
    let probed = service.probes.probed.lock().unwrap().clone();
    assert_eq!(probed[1].placement.image.as_str(), "image:2");
    assert_ne!(probed[0].lease, probed[1].lease, "what is left of the first is not in its way");
    service.wait_for_reason(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_change_of_the_pod_is_probed_and_what_was_sold_is_served_meanwhile() {
    let service = Service::start(None).await;
    service.findings.send(None).unwrap();
    assert_sold(&service.order().await.unwrap());
    // Another price, for instance.
    service.images.publish("image:1");
    assert_sold(&service.order().await.unwrap());
    service.images.publish("image:2");
    service.wait_for_probes(2).await;
    assert!(service.orders.unready_reasons().await.is_empty(), "it serves, and new orders wait");
    let order = service.order();
    service.findings.send(Some(ProbeProblem::Port)).unwrap();
    let answer = order.await.unwrap();
    let code = answer.error().map(|error| error.error_type);
    assert_eq!(code, Some(ErrorType::ResourceUnavailable), "{answer:?}");
    service.wait_for_reason(Some(ProbeProblem::Port.message())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_or_less_than_it_might_be_closes_nothing() {
    for problem in [
        ProbeProblem::Full,
        ProbeProblem::GaveWay,
        ProbeProblem::Unavailable,
        ProbeProblem::Policies,
        ProbeProblem::NoUserNamespaces,
        ProbeProblem::NoImagePrograms,
    ] {
        let service = Service::start(None).await;
        service.findings.send(Some(problem)).unwrap();
        assert_sold(&service.order().await.unwrap());
        service.wait_for_reason(None).await;
        assert_eq!(service.orders.probe_warning(), Some(problem.message()));
    }
}

/// What customers reach is the operator's to decide: pods are sold, and it is not hidden.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_reach_the_cluster_are_a_warning() {
    for (isolation, is_warned) in [
        (NetworkIsolation::Enforced(Neighbours::Tried), false),
        (NetworkIsolation::Enforced(Neighbours::NoRoom), false),
        (NetworkIsolation::Unknown, false),
        (NetworkIsolation::NotEnforced, true),
    ] {
        let service = Service::start(None).await;
        *service.probes.isolation.lock().unwrap() = isolation;
        service.findings.send(None).unwrap();
        assert_sold(&service.order().await.unwrap());
        service.wait_for_reason(None).await;
        assert_eq!(service.orders.network_warning(), isolation.warning());
        let warnings = service.orders.overview(UnixTime(0)).await.unwrap().warnings;
        assert_eq!(warnings.len(), usize::from(is_warned), "{isolation:?}: {warnings:?}");
    }
}

/// Two pods at once would take a place that is sold where there is room for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_tries_the_network_has_a_neighbour_where_there_is_room_for_both() {
    for (room, has_neighbour) in [(None, true), (Some(2), true), (Some(1), false)] {
        let service = Service::start(room).await;
        service.findings.send(None).unwrap();
        let (pod, neighbour) = until("the network is not tried", async || {
            service.probes.tried.lock().unwrap().first().cloned()
        })
        .await;
        assert_eq!(neighbour.is_some(), has_neighbour, "{room:?}");
        assert_ne!(neighbour.as_ref(), Some(&pod), "each has a name of its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cluster_gets_no_probe_pod_and_closes_nothing() {
    let service = Service::start(Some(0)).await;
    until("a full cluster is not noticed", async || {
        (service.orders.probe_warning() == Some(ProbeProblem::Full.message())).then_some(())
    })
    .await;
    service.wait_for_reason(None).await;
    assert_eq!(service.probes(), 0, "it would take a place that was sold");
    // The subject of the test is time: else they are launched after some milliseconds.
    let tried = until("it is not tried", async || service.probes.tried.lock().unwrap().pop());
    let early = tokio::time::timeout(Duration::from_millis(300), tried).await;
    assert!(early.is_err(), "nor is the network tried: {early:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_pod_of_a_process_that_died_is_swept() {
    let left = LeaseId::of_probe().pod_name();
    let service = Service::start_beside(None, vec![left.clone()]).await;
    until("the pod is not swept", async || {
        (!service.cluster.running.lock().unwrap().contains(&left)).then_some(())
    })
    .await;
}

/// Who names an image that never starts has their money back: they could hold places for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_has_just_failed_is_refused_before_the_payment() {
    let service = Service::start_on(FakeCluster::without_images(&["image:1"])).await;
    service.findings.send(None).unwrap();
    let purchase = spawn(None, Some("image:1"));
    let order = async || {
        let order = NewOrder { purchase: purchase.clone(), ..service.new_order(Sat(10)) };
        let answer = service.orders.submit(order).await.unwrap().answer().await.unwrap();
        let error = answer.error().unwrap_or_else(|| panic!("sold: {answer:?}"));
        (error.error_type, error.end_reason, error.refund.is_some())
    };
    let failed = Some(EndReason::ImageFailed);
    assert_eq!(order().await, (ErrorType::ProvisioningError, failed, true));
    for _ in 0..3 {
        assert_eq!(order().await, (ErrorType::ResourceUnavailable, failed, false));
    }
    assert_eq!(service.cluster.broken.lock().unwrap().len(), 1, "one pod was launched");
    let price = service.orders.price(&purchase, None, None).await;
    assert_eq!(price.unwrap_err().end_reason, failed, "nobody is sent to their wallet either");
    // Other images are sold.
    service.images.publish("image:2");
    service.findings.send(None).unwrap();
    assert_sold(&service.order().await.unwrap());
}
