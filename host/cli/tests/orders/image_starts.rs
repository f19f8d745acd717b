//! Images that customers name and that have not started yet: few pods of them are launched at the
//! same time, and nobody has the orders of others refused for nothing.

use crate::support::customer::until;
use crate::support::fake::{
    FakeCluster, FakeWallet, Gate, Images, NullResponder, UNPROVEN, new_order, settings, spawn,
    without_mints,
};
use async_trait::async_trait;
use futures::future::join_all;
use paygress_core::backend::policy::Payment;
use paygress_core::backend::wallet::{
    Payments, ReceiveError, RecoveryError, RefundAmount, RefundIssuer, RefundState, RefundToken,
    Resolution, ResolveMode, TokenInfo, TokenReader, Wallet, WalletError,
};
use paygress_core::limits;
use paygress_core::model::ids::{Customer, MintUrl, OrderId};
use paygress_core::model::order::{Purchase, State};
use paygress_core::model::refusal::Refusal;
use paygress_core::model::run::{ProgramState, Run};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_core::orders::{Backends, OrderService, Submission, pod_named};
use paygress_core::protocol::Response;
use paygress_store::SqlStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use tempfile::TempDir;

/// Its mint makes no refund, and never answers to a swap of a token without DLEQ proofs.
struct SlowWallet;

#[async_trait]
impl TokenReader for SlowWallet {
    async fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal> {
        FakeWallet.decode(token).await
    }
    async fn verify(&self, token: &Secret, token_info: &TokenInfo) -> Result<Payment, Refusal> {
        FakeWallet.verify(token, token_info).await
    }
    async fn verify_dleq(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Payment, Refusal> {
        FakeWallet.verify_dleq(token, token_info).await
    }
    async fn is_proven(&self, token: &Secret, token_info: &TokenInfo) -> bool {
        FakeWallet.is_proven(token, token_info).await
    }
    async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        FakeWallet.token_from_payload(payload).await
    }
}

#[async_trait]
impl Payments for SlowWallet {
    async fn receive(
        &self,
        order: &OrderId,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError> {
        if token_info.gross == UNPROVEN {
            return std::future::pending().await;
        }
        FakeWallet.receive(order, token, token_info).await
    }
    async fn resolve(&self, _: &OrderId, token_info: &TokenInfo, _: ResolveMode) -> Resolution {
        Resolution::Received(token_info.gross)
    }
    async fn recover(&self) -> Result<(), RecoveryError> {
        Ok(())
    }
}

#[async_trait]
impl RefundIssuer for SlowWallet {
    async fn refund(
        &self,
        _: &OrderId,
        _: &MintUrl,
        _: RefundAmount,
    ) -> Result<RefundToken, WalletError> {
        Err(WalletError::failed(std::io::Error::other("the mint is away")))
    }
    async fn refund_state(&self, _: &OrderId, _: &MintUrl) -> Result<RefundState, WalletError> {
        Ok(RefundState::Waiting)
    }
    async fn reclaim(&self, _: &OrderId, _: &MintUrl) -> Result<Option<Sat>, WalletError> {
        Ok(None)
    }
}

without_mints!(SlowWallet);

struct Service {
    orders: Arc<OrderService>,
    cluster: Arc<FakeCluster>,
    images: Arc<Images>,
    tokens: AtomicU32,
    _directory: TempDir,
}

impl Service {
    async fn start(cluster: FakeCluster, wallet: Arc<dyn Wallet>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ledger.sqlite");
        let (cluster, images) = (Arc::new(cluster), Arc::new(Images::new("image:1")));
        let backends = Backends {
            wallet,
            policy: images.clone(),
            cluster: cluster.clone().into(),
            ledger: Arc::new(SqlStore::sqlite(&file).await.unwrap()),
            responder: Arc::new(NullResponder),
        };
        let orders = OrderService::new(settings(), backends);
        Self { orders, cluster, images, tokens: AtomicU32::new(1), _directory: directory }
    }

    /// An order of a pod of the image, by the customer of this number.
    async fn submit(&self, of: u8, sat: Sat) -> Submission {
        self.submit_purchase(of, sat, spawn(None, Some("named"))).await
    }

    async fn submit_purchase(&self, of: u8, sat: Sat, purchase: Purchase) -> Submission {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let order = new_order(customer(of), format!("{}-{token}", sat.0), purchase);
        self.orders.submit(order).await.unwrap()
    }

    /// Waits until the order of this customer is in this state.
    async fn wait_for_state(&self, order: &Submission, of: u8, state: State) {
        until("the order does not go on", async || {
            let status = self.orders.order(order.order(), &customer(of)).await.unwrap();
            (status.state == state).then_some(())
        })
        .await;
    }
}

fn customer(number: u8) -> Customer {
    Customer::parse(&format!("{number:064x}")).unwrap()
}

fn assert_sold(answer: &Response) {
    assert!(matches!(answer, Response::Access(_)), "{answer:?}");
}

/// Else a customer who stops pods at once, which costs next to nothing, has an image that everybody
/// uses count as one that has never started.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_its_customer_stops_says_nothing_of_its_image() {
    let gate = Arc::new(Gate::default());
    let cluster = FakeCluster { gate: Some(gate.clone()), ..FakeCluster::default() };
    let service = Service::start(cluster, Arc::new(FakeWallet)).await;
    let finish = async |order: Submission| {
        gate.reached.notified().await;
        gate.go.notify_one();
        order.answer().await.unwrap()
    };
    assert_sold(&finish(service.submit(1, Sat(10)).await).await);
    service.cluster.gone.store(true, Ordering::Relaxed);
    let stopped = finish(service.submit(2, Sat(10)).await).await;
    assert!(stopped.error().is_some(), "{stopped:?}");
    service.cluster.gone.store(false, Ordering::Relaxed);
    // It is known to start: one customer may have any number of it started at the same time.
    for number in 0..=limits::FIRST_STARTS_OF_ONE {
        let order = service.submit(3, Sat(10)).await;
        tokio::select! {
            () = gate.reached.notified() => {}
            answer = order.answer() => panic!("number {number}: {answer:?}"),
        }
    }
}

/// It may be so for days, as long as its mint is away.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_waits_for_its_refund_is_in_nobodys_way() {
    let broken = ["broken:1", "broken:2", "broken:3", "broken:4"];
    assert_eq!(broken.len(), limits::FIRST_STARTS_OF_ONE);
    let cluster = FakeCluster::without_images(&broken);
    let service = Service::start(cluster, Arc::new(SlowWallet)).await;
    for image in broken {
        service.images.publish(image);
        let order = service.submit(1, Sat(10)).await;
        service.wait_for_state(&order, 1, State::RefundPending).await;
    }
    service.images.publish("image:1");
    assert_sold(&service.submit(1, Sat(10)).await.answer().await.unwrap());
}

/// Their mint has to say first that it has not signed them.
#[tokio::test(flavor = "multi_thread")]
async fn invented_tokens_keep_nobody_from_an_image() {
    let service = Service::start(FakeCluster::default(), Arc::new(SlowWallet)).await;
    for of in (1..).take(limits::FIRST_STARTS_OF_IMAGE) {
        let order = service.submit(of, UNPROVEN).await;
        service.wait_for_state(&order, of, State::Redeeming).await;
    }
    assert_sold(&service.submit(99, Sat(10)).await.answer().await.unwrap());
}

/// Else each request has the API server list pods.
#[tokio::test(flavor = "multi_thread")]
async fn however_often_a_status_is_requested_the_cluster_is_requested_once_a_moment() {
    let cluster = FakeCluster { runs_images: true, ..FakeCluster::default() };
    let service = Service::start(cluster, Arc::new(FakeWallet)).await;
    let mut with_program = spawn(None, None);
    let Purchase::Spawn { run, .. } = &mut with_program else { panic!("no spawn") };
    *run = Run::Image;
    let answer = service.submit_purchase(1, Sat(10), with_program).await.answer().await.unwrap();
    let Response::Access(access) = answer else { panic!("{answer:?}") };
    let (pod, begun) = (pod_named(access.pod_name).unwrap(), Instant::now());
    let customer = customer(1);
    for status in join_all((0..100).map(|_| service.orders.status(&pod, &customer))).await {
        assert_eq!(status.unwrap().image_program, Some(ProgramState::Running));
    }
    let kept = limits::POD_CACHE_KEPT.as_secs();
    let moments = begun.elapsed().as_secs().div_euclid(kept).saturating_add(1);
    let requests = service.cluster.program_requests.load(Ordering::Relaxed);
    assert!((1..=moments).contains(&requests), "{requests} in {:?}", begun.elapsed());
}
