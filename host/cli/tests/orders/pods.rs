//! What becomes of pods, on a cluster without any: where they are moved to, and why they ended while
//! the service was down.

use crate::scripted_cluster::{Script, ScriptedCluster, demand};
use crate::support::customer::until;
use crate::support::fake::{FakeWallet, Generous, NullResponder, settings, spawn};
use paygress_core::backend::capacity::{NoCapacity, Reservation};
use paygress_core::backend::cluster::{ClusterEvent, EndReason};
use paygress_core::backend::receipt::{ReceiptSigner, SignError};
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::{
    LeaseStore, LeaseUpdate, LedgerError, OrderStore, PortAllocator, Repetition,
};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{Customer, MessageId, OrderId, PodName};
use paygress_core::model::lease::{Lease, LeaseState};
use paygress_core::model::order::{Order, OrderState, State};
use paygress_core::model::order_state::Unpaid;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::orders::{Backends, Capture, NewOrder, OrderService, PodAccess, Settings};
use paygress_core::protocol::{Response, SignedReceipt};
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::Database;
use paygress_store::db::testing::fast_directory;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

const UNAVAILABLE: ErrorType = ErrorType::ResourceUnavailable;

/// An order of this customer, with this token.
fn incoming(customer: &str, token: u32, image: Option<&str>) -> NewOrder {
    NewOrder {
        repetition: Repetition::ByContent,
        message: MessageId::parse(OrderId::random()).unwrap(),
        reply_to: ReplyTo {
            transport: "fake".to_owned(),
            customer: Some(Customer::parse(&customer.repeat(64)).unwrap()),
            address: BTreeMap::new(),
        },
        network: None,
        token: Secret::new(format!("10-{token}")),
        purchase: spawn(None, image),
        password: Some(Secret::new("a fake password")),
    }
}

/// A service, and what outlives it.
struct Service {
    cluster: Arc<ScriptedCluster>,
    access: PodAccess,
    database: Database,
    ledger: Arc<SqlStore>,
    _directory: TempDir,
}

impl Service {
    async fn new(script: Script) -> Self {
        let directory = fast_directory().unwrap();
        let file = directory.path().join("ledger.sqlite");
        let database = Database::sqlite(&file, SqlStore::SCHEMA).await.unwrap();
        let ledger = Arc::new(SqlStore::new(database.clone()).with_reserve(0));
        let cluster = Arc::new(ScriptedCluster(Mutex::new(script)));
        Self { cluster, access: settings().access, database, ledger, _directory: directory }
    }

    /// As it starts on what is there.
    fn start(&self) -> Arc<OrderService> {
        self.start_capturing(Capture::BeforeLaunch)
    }

    fn start_capturing(&self, capture: Capture) -> Arc<OrderService> {
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: Arc::new(Generous),
            cluster: self.cluster.with_fake_parts(),
            ledger: self.ledger.clone(),
            responder: Arc::new(NullResponder),
        };
        // What is paid back is not what a customer gets for a stop of theirs.
        let access = self.access.clone();
        let settings =
            Settings { refund_on_stop: None, access, capture, sweep: true, ..settings() };
        OrderService::new(settings, backends)
    }

    /// What a customer who orders a pod is answered.
    async fn order_pod(&self) -> Response {
        let incoming = incoming("c", 1, None);
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

    /// An order that was decided, and cannot be read any more.
    async fn damaged_order(&self) {
        let mut order = testing::order(spawn(None, None), State::Received).unwrap();
        self.ledger.open(&order, Repetition::ByContent).await.unwrap();
        order.state = testing::order_state(&order.purchase, State::Decided);
        self.ledger.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
        let damaged = self.database.transact(|transaction| {
            let statement = "UPDATE orders SET body = '{}' WHERE state = 'decided'";
            Ok::<_, LedgerError>(transaction.execute(statement, &[])?)
        });
        assert_eq!(damaged.await.unwrap(), 1);
    }

    /// The order of a pod that is gone when the service comes back, once the end is recorded.
    /// `events` are the cluster's then.
    async fn found_gone(&self, lease: &Lease, events: Vec<ClusterEvent>) -> Order {
        {
            let mut script = self.cluster.0.lock().unwrap();
            (script.is_empty, script.events) = (true, events);
        }
        let watching = tokio::spawn(self.start().watch());
        let order = until("the end of the lease is not recorded", async || {
            let stored = self.ledger.lease(&lease.pod()).await.unwrap().unwrap();
            let order = self.ledger.orders_of(&lease.id).await.unwrap().remove(0);
            (stored.state == LeaseState::Ended && order.state() != State::RefundPending)
                .then_some(order)
        })
        .await;
        watching.abort();
        assert_eq!(self.ledger.ports_in_use().await.unwrap(), 0);
        order
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_needs_follows_it_to_another_port() {
    for taken in [0, 1, 2] {
        let service = Service::new(Script { taken, ..Script::default() }).await;
        let lease = service.sell().await;
        let validated = service.cluster.0.lock().unwrap().validated.clone();
        assert_eq!(validated.len(), taken + 1, "each of its ports is validated");
        assert_eq!(validated.last().copied(), lease.port);
        assert!(validated.windows(2).all(|two| two[0] != two[1]), "{validated:?}");
        let reserved = Reservation { demand: demand(lease.login_port()), lease: lease.id };
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
        let service =
            Service { access: PodAccess::by_ports(20_000..=last), ..Service::new(script).await };
        let answer = service.order_pod().await;
        let validated = service.cluster.0.lock().unwrap().validated.clone();
        assert_eq!(validated.len(), dry_runs, "{validated:?}");
        let reservations = service.ledger.reservations().await.unwrap();
        if is_sold {
            assert!(matches!(answer, Response::Access(_)), "{answer:?}");
            let port = validated[dry_runs - 1];
            assert!(!validated[..of_others].contains(&port), "{validated:?}");
            let lease = service.ledger.live_leases(None).await.unwrap().remove(0);
            assert_eq!(lease.port, Some(port));
            assert_eq!(reservations, [Reservation { lease: lease.id, demand: demand(port) }]);
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

struct Unsigned;

impl ReceiptSigner for Unsigned {
    fn sign(&self, content: String, at: UnixTime) -> Result<SignedReceipt, SignError> {
        let [id, pubkey, sig] = std::array::from_fn(|_| String::new());
        Ok(SignedReceipt { id, pubkey, created_at: at.0, kind: 0, tags: Vec::new(), content, sig })
    }
}

/// Whoever reads the login the moment that the pod takes it gets what the answer has a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_has_its_receipt_before_its_order_is_active() {
    let deadlines = Arc::new(Semaphore::new(0));
    let script = Script { deadlines: Some(deadlines.clone()), ..Script::default() };
    let service = Service::new(script).await;
    let orders = service.start();
    orders.set_receipts(Arc::new(Unsigned));
    let order = orders.submit(incoming("c", 1, None)).await.unwrap();
    let lease = until("the pod takes no logins", async || {
        let leases = service.ledger.live_leases(None).await.unwrap();
        leases.into_iter().find(|lease| lease.state == LeaseState::Live)
    })
    .await;
    let owner = Customer::parse(&"c".repeat(64)).unwrap();
    let early = orders.access(&lease.pod(), &owner).await.unwrap();
    deadlines.close();
    let Response::Access(answer) = order.answer().await.unwrap() else { panic!("not sold") };
    assert!(answer.receipt.is_some());
    assert_eq!(early.receipt, answer.receipt);
    assert_eq!(early.receipt, orders.access(&lease.pod(), &owner).await.unwrap().receipt);
}

/// Where pods have no port, the operator says how many there are.
#[tokio::test(flavor = "multi_thread")]
async fn pods_without_ports_are_counted() {
    let access = PodAccess::new(AccessModes::gateway(), 1..=1, 1);
    let service = Service { access, ..Service::new(Script::default()).await };
    let lease = service.sell().await;
    assert_eq!(lease.port, None);
    assert_eq!(service.cluster.0.lock().unwrap().validated, [0], "its placement has no port");
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), 1);
    let orders = service.start();
    let second = orders.submit(incoming("d", 2, None)).await.unwrap().answer().await.unwrap();
    let error = second.error().unwrap();
    let expected = (UNAVAILABLE, "No more pods can be leased now");
    assert_eq!((error.error_type, error.message.as_str()), expected);
    // With ports again, the lease without one counts as before.
    let with_ports = Service { access: settings().access, ..service };
    assert_eq!(with_ports.ledger.ports_in_use().await.unwrap(), 1);
    let answer = with_ports.start().submit(incoming("d", 3, None)).await.unwrap();
    assert!(matches!(answer.answer().await.unwrap(), Response::Access(_)));
    let leases = with_ports.ledger.live_leases(None).await.unwrap();
    assert_eq!(leases.iter().filter(|lease| lease.port.is_some()).count(), 1);
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
        service.ledger.mark_ending(&lease.pod(), reason.into()).await.unwrap();
    }
    service.found_gone(&lease, events(lease.pod())).await
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

/// All pods are listed for it: at the start, since an earlier process may have left some, and seldom.
#[tokio::test(start_paused = true)]
async fn pods_without_a_lease_are_looked_for_every_two_minutes() {
    let (sender, mut lists) = mpsc::unbounded_channel();
    let service = Service::new(Script { orphan_lists: Some(sender), ..Script::default() }).await;
    let begun = Instant::now();
    let watching = tokio::spawn(service.start().watch());
    for seconds in [0, 120, 240] {
        let listed: Instant = lists.recv().await.unwrap();
        assert_eq!(listed.duration_since(begun).as_secs(), seconds);
    }
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_order_keeps_no_refund_from_being_made() {
    let service = Service::new(Script::default()).await;
    let lease = service.sell().await;
    service.damaged_order().await;
    let order = service.found_gone(&lease, vec![ClusterEvent::Resync(Vec::new())]).await;
    assert_eq!(order.state(), State::Refunded);
    assert_eq!(order.state.refund().map(|refund| refund.amount), order.state.refund_due());
}

/// How often the pod of an order is removed whose payment was given up and came after all, and that
/// is refunded then; by a service that takes payments before it launches.
async fn removals_of_unknown_payment(launched: bool) -> usize {
    let service = Service::new(Script::default()).await;
    let mut order = testing::order(spawn(None, None), State::Received).unwrap();
    service.ledger.open(&order, Repetition::ByContent).await.unwrap();
    let unpaid = Unpaid { launched, ..testing::unpaid(&order.purchase) };
    // It is old: its port is needed by now.
    order.state = OrderState::PaymentUnknown { unpaid, abandoned: None };
    let lease = testing::reserved_lease(&order.id);
    let update = LeaseUpdate::Put(&lease);
    service.ledger.transition(&order, State::Received, update).await.unwrap();
    service.start().resume().await.unwrap();
    until("the order is not refunded", async || {
        let stored = service.ledger.order(&order.id).await.unwrap().unwrap();
        (stored.state() == State::Refunded).then_some(())
    })
    .await;
    service.cluster.0.lock().unwrap().removed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_launched_unpaid_is_removed_whatever_is_set_then() {
    assert_eq!(removals_of_unknown_payment(true).await, 2, "when it is given up, and refunded");
    assert_eq!(removals_of_unknown_payment(false).await, 1, "when it is refunded");
}

/// How these orders end, one after the other, where no pod starts and payments are taken once one
/// is ready: `Refused` if it was launched before it was paid for, `Refunded` if after.
async fn launched_broken(room: Option<u32>, orders: Vec<NewOrder>) -> Vec<State> {
    let service = Service::new(Script { is_broken: true, room, ..Script::default() }).await;
    let started = service.start_capturing(Capture::OnceReady);
    let mut ends = Vec::new();
    for incoming in orders {
        let submission = started.submit(incoming).await.unwrap();
        let id = submission.order().clone();
        submission.answer().await.unwrap();
        ends.push(service.ledger.order(&id).await.unwrap().unwrap().state());
    }
    assert_eq!(service.ledger.ports_in_use().await.unwrap(), 0);
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_had_a_pod_for_nothing_pays_first_the_next_time() {
    let orders = vec![
        incoming("a", 1, None),
        // The token again, as another customer; the customer again; and neither.
        incoming("b", 1, None),
        incoming("a", 2, None),
        incoming("d", 3, None),
    ];
    let ends = launched_broken(None, orders).await;
    assert_eq!(ends, [State::Refused, State::Refunded, State::Refunded, State::Refused]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_pod_is_of_the_default_image_and_keeps_nobody_out_who_pays() {
    let one = |image| vec![incoming("a", 1, image)];
    assert_eq!(launched_broken(None, one(Some("image:2"))).await, [State::Refunded]);
    assert_eq!(launched_broken(Some(1), one(None)).await, [State::Refunded]);
    assert_eq!(launched_broken(Some(2), one(None)).await, [State::Refused]);
}
