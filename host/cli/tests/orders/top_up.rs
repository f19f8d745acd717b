//! More time for a pod that ends, or comes to nothing, while it is paid for: it is paid back, or not
//! sold. And a pod that another replica has by now.

use crate::support::customer::until;
use crate::support::fake::{
    FakeCluster, FakeWallet, Generous, NullResponder, new_order, settings, spawn,
};
use async_trait::async_trait;
use paygress_core::backend::capacity::Tier;
use paygress_core::backend::cluster::{
    Cluster, ClusterError, LeasePlan, PodExpiry, PodLauncher, PodRemover, ReadyPod,
};
use paygress_core::backend::policy::Resources;
use paygress_core::backend::store::{LeaseStore, LeaseUpdate, OrderStore, Repetition};
use paygress_core::limits;
use paygress_core::model::ids::{Customer, MessageId, PodName};
use paygress_core::model::order::{Lease, LeaseState, OrderState, Purchase, State};
use paygress_core::model::order_state::{Paid, RefundCause};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Sat, Seconds, UnixTime};
use paygress_core::orders::{Backends, Capture, NewOrder, OrderService, PriceEstimate, Settings};
use paygress_core::protocol::Response;
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// At which others do something in the meantime.
#[derive(Default)]
struct BusyCluster {
    /// Who stops the pod whose deadline is moved next.
    stopping: Mutex<Option<(Arc<OrderService>, Customer)>>,
    /// Where another replica takes over the order whose pod is waited for next.
    losing: Mutex<Option<Arc<SqlStore>>>,
    removed: AtomicUsize,
}

/// As another replica does that finds it with its decision made.
async fn take_over(ledger: &SqlStore, pod: &PodName) {
    let mut order = ledger.orders_of(&pod.lease().unwrap()).await.unwrap().remove(0);
    let OrderState::Decided(unpaid) = order.state.clone() else { panic!("{:?}", order.state()) };
    order.state = unpaid.undecided();
    ledger.transition(&order, State::Decided, LeaseUpdate::Keep).await.unwrap();
}

#[async_trait]
impl PodLauncher for BusyCluster {
    async fn launch(&self, _: &LeasePlan) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        let losing = self.losing.lock().unwrap().take();
        match losing {
            None => Ok(ReadyPod::default()),
            Some(ledger) => {
                take_over(&ledger, pod).await;
                Err(ClusterError::port_taken("a test"))
            }
        }
    }
}

#[async_trait]
impl PodExpiry for BusyCluster {
    async fn check_running(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn set_expiry(&self, pod: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        let stopping = self.stopping.lock().unwrap().take();
        if let Some((orders, customer)) = stopping {
            orders.stop(pod, &customer).await.unwrap();
        }
        Ok(())
    }
}

#[async_trait]
impl PodRemover for BusyCluster {
    async fn remove(&self, _: &PodName) -> Result<(), ClusterError> {
        self.removed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Service {
    orders: Arc<OrderService>,
    cluster: Arc<BusyCluster>,
    ledger: Arc<SqlStore>,
    _directory: TempDir,
}

impl Service {
    async fn new(capture: Capture) -> Self {
        let directory = fast_directory().unwrap();
        let ledger = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await.unwrap();
        let ledger = Arc::new(ledger.with_reserve(0));
        let cluster = Arc::<BusyCluster>::default();
        let fake = FakeCluster { room: Some(9), ..FakeCluster::default() };
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: Arc::new(Generous),
            cluster: Cluster {
                launcher: cluster.clone(),
                expiry: cluster.clone(),
                remover: cluster.clone(),
                ..Arc::new(fake).into()
            },
            ledger: ledger.clone(),
            responder: Arc::new(NullResponder),
        };
        let orders = OrderService::new(Settings { capture, ..settings() }, backends);
        Self { orders, cluster, ledger, _directory: directory }
    }
}

fn alice() -> Customer {
    Customer::parse(&"a".repeat(64)).unwrap()
}

fn bob() -> Customer {
    Customer::parse(&"b".repeat(64)).unwrap()
}

fn more(pod: PodName, token: &str) -> NewOrder {
    new_order(alice(), token.to_owned(), Purchase::TopUp { pod })
}

#[tokio::test(flavor = "multi_thread")]
async fn time_that_is_added_while_the_pod_is_stopped_is_paid_back() {
    let service = Service::new(Capture::BeforeLaunch).await;
    let sold = service.orders.submit(new_order(alice(), "10-1".to_owned(), spawn(None, None)));
    let sold = sold.await.unwrap().answer().await.unwrap();
    assert!(matches!(sold, Response::Access(_)), "{sold:?}");
    let pod = service.ledger.live_leases(None).await.unwrap().remove(0).pod();
    let stopping = (Arc::clone(&service.orders), alice());
    *service.cluster.stopping.lock().unwrap() = Some(stopping);
    let submission = service.orders.submit(more(pod.clone(), "20-2")).await.unwrap();
    let id = submission.order().clone();
    // The answer may be brought by whoever takes it up again.
    let _ = submission.answer().await;
    let order = until("the top-up is not paid back", async || {
        service.orders.resume().await.unwrap();
        let order = service.ledger.order(&id).await.unwrap().unwrap();
        (order.state() == State::Refunded).then_some(order)
    })
    .await;
    assert_eq!(order.state.refund_due(), Some(Sat(20)));
    let lease = service.ledger.lease(&pod).await.unwrap().unwrap();
    assert_eq!(lease.state, LeaseState::Ended);
}

impl Service {
    /// The lease of a pod that takes logins, whose own order is in this state.
    async fn live_lease(&self, state: impl FnOnce(Paid, UnixTime) -> OrderState) -> Lease {
        let mut order = testing::order(testing::spawn(), State::Received).unwrap();
        order.message = MessageId::parse("the pod").unwrap();
        order.created_at = UnixTime::now();
        self.ledger.open(&order, Repetition::ByContent).await.unwrap();
        let end = UnixTime::now().after(Seconds(600));
        order.state = state(testing::paid(&order.purchase), end);
        let reserved = testing::reserved_lease(&order.id);
        let (state, customer) = (LeaseState::Live, Some(alice()));
        let lease = Lease { state, customer, expires_at: Some(end), ..reserved };
        let update = LeaseUpdate::Put(&lease);
        self.ledger.transition(&order, State::Received, update).await.unwrap();
        lease
    }

    async fn top_up(&self, lease: &Lease, token: &str) -> Response {
        self.top_up_by(alice(), lease, token).await
    }

    async fn top_up_by(&self, customer: Customer, lease: &Lease, token: &str) -> Response {
        let order = new_order(customer, token.to_owned(), Purchase::TopUp { pod: lease.pod() });
        self.orders.submit(order).await.unwrap().answer().await.unwrap()
    }

    /// So many orders that have extended this lease.
    async fn extend(&self, lease: &Lease, times: usize) {
        for _ in 0..times {
            let more = Purchase::TopUp { pod: lease.pod() };
            let mut order = testing::order(more, State::Received).unwrap();
            order.message = MessageId::parse(order.id.as_str()).unwrap();
            self.ledger.open(&order, Repetition::ByContent).await.unwrap();
            order.state = testing::order_state(&order.purchase, State::Active);
            self.ledger.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
        }
    }

    async fn check_not_sold(&self, lease: &Lease) {
        let early = self.top_up(lease, "20-2").await;
        let error = early.error().unwrap_or_else(|| panic!("sold: {early:?}"));
        assert_eq!(error.error_type, ErrorType::ResourceUnavailable);
        assert_eq!(self.ledger.lease(&lease.pod()).await.unwrap().as_ref(), Some(lease));
    }
}

/// As after a crash between the pod's first login and its deadline: its order may still be paid back.
#[tokio::test(flavor = "multi_thread")]
async fn no_time_is_sold_for_a_pod_whose_order_may_come_to_nothing() {
    let service = Service::new(Capture::BeforeLaunch).await;
    let provisioning = |paid, end| OrderState::Provisioning { paid, expires_at: Some(end) };
    let lease = service.live_lease(provisioning).await;
    // Nor is it stopped: what is due would not be in the response.
    let refused = service.orders.stop(&lease.pod(), &alice()).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::ResourceUnavailable, "{refused}");
    let refused = service.orders.end_lease(&lease.pod()).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::ResourceUnavailable, "{refused}");
    service.check_not_sold(&lease).await;
    // Its worker goes on, and then it is sold.
    service.orders.resume().await.unwrap();
    until("the pod is not active", async || {
        let order = service.ledger.orders_of(&lease.id).await.unwrap().remove(0);
        (order.state() == State::Active).then_some(())
    })
    .await;
    let later = service.top_up(&lease, "20-3").await;
    assert!(matches!(later, Response::ToppedUp(_)), "{later:?}");
}

/// Its pod is removed, and its lease ends, with the refund.
#[tokio::test(flavor = "multi_thread")]
async fn no_time_is_sold_for_a_pod_whose_order_is_being_paid_back() {
    let service = Service::new(Capture::BeforeLaunch).await;
    let pending = |paid: Paid, end| {
        let refusal = Refusal::new(ErrorType::ProvisioningError, "a test");
        let cause = RefundCause::NotProvisioned { refusal, expires_at: Some(end), added: None };
        OrderState::RefundPending { sale: paid.into(), cause, password: None }
    };
    let lease = service.live_lease(pending).await;
    service.check_not_sold(&lease).await;
}

/// It may be the one that the other replica has launched, and that is paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_lost_an_order_leaves_its_pod_alone() {
    let service = Service::new(Capture::OnceReady).await;
    *service.cluster.losing.lock().unwrap() = Some(service.ledger.clone());
    let sold = service.orders.submit(new_order(alice(), "10-1".to_owned(), spawn(None, None)));
    assert!(sold.await.unwrap().answer().await.is_none(), "the other replica answers");
    assert!(service.cluster.losing.lock().unwrap().is_none(), "it was launched unpaid");
    assert_eq!(service.cluster.removed.load(Ordering::Relaxed), 0);
}

/// Where its policies let others extend it.
#[tokio::test(flavor = "multi_thread")]
async fn who_extends_a_pod_of_another_learns_its_price_and_not_what_it_is() {
    let service = Service::new(Capture::BeforeLaunch).await;
    let lease =
        service.live_lease(|paid, expires_at| OrderState::Active { paid, expires_at }).await;
    let more = Purchase::TopUp { pod: lease.pod() };
    let price = async |customer: Option<Customer>| {
        service.orders.price(&more, None, customer.as_ref()).await.unwrap()
    };
    let own = price(Some(alice())).await;
    let tier = Tier { id: testing::tier("basic"), resources: Resources::default() };
    assert_eq!((own.tier.as_ref(), own.amount), (Some(&tier), Sat(60)));
    for other in [Some(bob()), None] {
        assert_eq!(price(other).await, PriceEstimate { tier: None, ..own.clone() });
    }
}

/// Each is read with every status, and is paid back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_extended_so_often_and_others_leave_half_of_that_to_its_customer() {
    let service = Service::new(Capture::BeforeLaunch).await;
    let lease =
        service.live_lease(|paid, expires_at| OrderState::Active { paid, expires_at }).await;
    let is_refused = |response: &Response| {
        response.error().is_some_and(|error| error.error_type == ErrorType::InvalidRequest)
    };
    service.extend(&lease, limits::TOP_UPS_OF_OTHERS - 1).await;
    let last = service.top_up_by(bob(), &lease, "20-2").await;
    assert!(matches!(last, Response::ToppedUp(_)), "{last:?}");
    let refused = service.top_up_by(bob(), &lease, "20-3").await;
    assert!(is_refused(&refused), "{refused:?}");
    service.extend(&lease, limits::TOP_UPS_OF_LEASE - limits::TOP_UPS_OF_OTHERS - 1).await;
    let last = service.top_up(&lease, "20-4").await;
    assert!(matches!(last, Response::ToppedUp(_)), "{last:?}");
    let refused = service.top_up(&lease, "20-5").await;
    assert!(is_refused(&refused), "{refused:?}");
}
