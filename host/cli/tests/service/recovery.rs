//! What is interrupted goes on: a process that is killed, an answer that is lost, a pod that does
//! not start, a relay that is away. After each: the customer has the pod or the money.

use crate::support::crashing::{Stop, crashing};
use crate::support::customer::{Buyer, Running, TIMEOUT, until};
use async_trait::async_trait;
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::backend::cluster::{Cluster, ClusterError, LeasePlan, PodLauncher, ReadyPod};
use paygress_core::backend::store::{LeaseStore, OrderStore, PortAllocator, Reporting};
use paygress_core::backend::wallet::{Payments, TokenReader};
use paygress_core::limits;
use paygress_core::model::ids::{OrderId, PodName};
use paygress_core::model::order::State;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{SignedSat, UnixTime};
use paygress_core::orders::Backends;
use paygress_core::protocol::{RequestBody, Response};
use paygress_nostr::Keys;
use paygress_store::SqlStore;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

/// Pods never start; `None` where it should hang instead, until `go`.
struct BrokenLauncher {
    launcher: Arc<dyn PodLauncher>,
    error: Option<ClusterError>,
    reached: Arc<Notify>,
    go: Arc<Notify>,
}

#[async_trait]
impl PodLauncher for BrokenLauncher {
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        self.launcher.launch(plan).await
    }
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        self.reached.notify_one();
        match &self.error {
            Some(error) => Err(error.clone()),
            None => {
                self.go.notified().await;
                self.launcher.ready(pod).await
            }
        }
    }
}

pub(super) async fn furnished(
    sandbox: &Sandbox,
    override_backends: impl FnOnce(Backends) -> Backends,
) -> App {
    // The one before holds the ledger until its last task is gone.
    let begun = std::time::Instant::now();
    let override_backends = std::cell::Cell::new(Some(override_backends));
    loop {
        match SqlStore::sqlite(&sandbox.config.ledger).await {
            Ok(free) => drop(free),
            Err(error) if begun.elapsed() < TIMEOUT => {
                tracing::debug!(%error, "waiting for the ledger");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        let override_backends = override_backends.take().unwrap();
        return App::build(&sandbox.config, sandbox.cluster(), override_backends).await.unwrap();
    }
}

/// Runs a service that is killed at `reached`, on a runtime of its own, so that all its tasks die
/// with it.
fn killed(
    sandbox: &Arc<Sandbox>,
    override_backends: impl FnOnce(Backends, Arc<Notify>) -> Backends + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let sandbox = Arc::clone(sandbox);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let reached = Arc::new(Notify::new());
            let app =
                furnished(&sandbox, |backends| override_backends(backends, Arc::clone(&reached)))
                    .await;
            tokio::select! {
                ended = app.run() => panic!("the service ended: {ended:?}"),
                () = reached.notified() => {}
            }
        });
        runtime.shutdown_background();
    })
}

fn broken(
    error: Option<ClusterError>,
) -> impl FnOnce(Backends, Arc<Notify>) -> Backends + Send + 'static {
    broken_until(Arc::default(), error)
}

pub(super) fn broken_until(
    go: Arc<Notify>,
    error: Option<ClusterError>,
) -> impl FnOnce(Backends, Arc<Notify>) -> Backends + Send + 'static {
    move |backends, reached| {
        let launcher = Arc::clone(&backends.cluster.launcher);
        let launcher = Arc::new(BrokenLauncher { launcher, error, reached, go });
        let cluster = Cluster { launcher, ..backends.cluster };
        Backends { cluster, ..backends }
    }
}

/// The customer asks, the service is killed at a point, another one starts on what the first left:
/// the answer comes.
async fn answered_after_a_kill(
    settings: &[(&str, &str)],
    override_backends: impl FnOnce(Backends, Arc<Notify>) -> Backends + Send + 'static,
) -> (Arc<Sandbox>, Buyer, serde_json::Value, Running) {
    let sandbox = Arc::new(Sandbox::new(settings, "").await.unwrap());
    let dying = killed(&sandbox, override_backends);
    let buyer = Buyer::new(&sandbox).await;
    let token = buyer.token(5).await;
    let asking = buyer.ask(json!({"cashu_token": token, "ssh_username": "alice"}));
    let restart = async {
        tokio::task::spawn_blocking(move || dying.join().unwrap()).await.unwrap();
        Running::start(furnished(&sandbox, |backends| backends).await)
    };
    let (answer, running) = tokio::join!(asking, restart);
    assert!(buyer.wallet.receive(&token).await.is_err(), "the token was taken");
    (sandbox, buyer, answer, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_swap_the_order_goes_on() {
    let (.., answer, _running) = answered_after_a_kill(&[], crashing(Stop::BeforeTheSwap)).await;
    assert_eq!(answer["ssh_username"], "alice", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_mint_took_the_token_the_pod_still_comes() {
    let (.., answer, _running) = answered_after_a_kill(&[], crashing(Stop::AfterTheSwap)).await;
    assert_eq!(answer["ssh_username"], "alice", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_pod_starts_it_is_launched_again() {
    let (.., answer, _running) = answered_after_a_kill(&[], broken(None)).await;
    assert_eq!(answer["ssh_username"], "alice", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_refund_was_made_the_same_refund_is_sent() {
    let failing = |backends: Backends, reached: Arc<Notify>| {
        let error = Some(ClusterError::not_ready("a test"));
        let backends = broken(error)(backends, Arc::new(Notify::new()));
        crashing(Stop::AfterTheRefundWasMade)(backends, reached)
    };
    let (_sandbox, buyer, answer, _running) = answered_after_a_kill(&[], failing).await;
    assert_eq!(answer["error_type"], "provisioning_error", "{answer}");
    let before = buyer.wallet.balance().await.unwrap();
    let refund = answer["refund_token"].as_str().unwrap();
    let net = buyer.wallet.receive(refund).await.unwrap();
    // 5 sat, less the mint's fee for swapping them, less its fee for swapping them back.
    assert_eq!((net, buyer.wallet.balance().await.unwrap()), (3, before + 3));
}

/// What is answered to an order of 22 sat whose pod does not start, where the wallet holds 64 more,
/// and what the operator has earned with it.
async fn refused_beside_a_full_wallet(fees: &str) -> (serde_json::Value, i64) {
    let sandbox = Sandbox::new(&[("REFUND_FEES", fees)], "").await.unwrap();
    let error = Some(ClusterError::not_ready("ImagePullBackOff"));
    let app =
        furnished(&sandbox, |backends| broken(error)(backends, Arc::new(Notify::new()))).await;
    let (ledger, wallet) = (Arc::clone(&app.ledger), Arc::clone(&app.wallet));
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let token = Secret::new(buyer.token(65).await);
    let token_info = wallet.decode(&token).await.unwrap();
    let held = wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    let answer = buyer.ask(json!({"cashu_token": buyer.token(22).await})).await;
    assert_eq!(answer["error_type"], "provisioning_error", "{answer}");
    let refunded = answer["refunded_sats"].as_u64().unwrap();
    let net = buyer.wallet.receive(answer["refund_token"].as_str().unwrap()).await.unwrap();
    assert_eq!(net.saturating_add(1), refunded, "their own wallet's fee");
    let revenue = ledger.revenue(UnixTime(0)).await.unwrap();
    let earned = revenue.iter().map(|hour| hour.earned.0).sum();
    let left: u64 = wallet.balances().await.unwrap().iter().map(|at| at.available.0).sum();
    assert_eq!(i64::try_from(left).unwrap(), SignedSat(earned).plus(held).0);
    (answer, earned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_ours_costs_the_customer_nothing() {
    let (answer, earned) = refused_beside_a_full_wallet("operator").await;
    assert_eq!((&answer["refunded_sats"], &answer["refund_fee_sats"]), (&json!(22), &json!(0)));
    assert!(!answer["message"].as_str().unwrap().contains("the mint's fee"), "{answer}");
    assert_eq!(earned, -2, "the mint's fees for 22 sat, and for the refund");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_customer_bears_the_fees_if_the_operator_says_so() {
    let (answer, earned) = refused_beside_a_full_wallet("customer").await;
    let refunded = answer["refunded_sats"].as_u64().unwrap();
    assert_eq!(refunded + answer["refund_fee_sats"].as_u64().unwrap(), 21, "{answer}");
    assert_eq!(earned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_start_is_paid_back_and_its_port_freed() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let error = Some(ClusterError::not_ready("ImagePullBackOff"));
    let app =
        furnished(&sandbox, |backends| broken(error)(backends, Arc::new(Notify::new()))).await;
    let ledger = Arc::clone(&app.ledger);
    let wallet = Arc::clone(&app.wallet);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let answer = buyer.ask(json!({"cashu_token": buyer.token(5).await})).await;
    assert_eq!(answer["error_type"], "provisioning_error");
    assert_eq!(buyer.wallet.receive(answer["refund_token"].as_str().unwrap()).await.unwrap(), 3);
    assert_eq!(ledger.ports_in_use().await.unwrap(), 0);
    assert_eq!(wallet.balances().await.unwrap(), [], "the service kept nothing");
    // Sent back to us, our own refund is refused before anything happens to it.
    let again = buyer.ask(json!({"cashu_token": answer["refund_token"]})).await;
    assert!(
        ["token_already_spent", "invalid_token"].contains(&again["error_type"].as_str().unwrap()),
        "{again}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_exchanged_for_another_one() {
    // Below the ports that the system gives to outgoing connections: nobody else takes the free one
    // in between.
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
    let (taken, port) = (21_000..29_000)
        .find_map(|port| free(port + 1).and(free(port)).map(|taken| (taken, port)))
        .unwrap();
    let (first, last) = (port.to_string(), (port + 1).to_string());
    let sandbox =
        Sandbox::new(&[("SSH_PORT_RANGE_START", &first), ("SSH_PORT_RANGE_END", &last)], "")
            .await
            .unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    // Whichever is drawn first, the free one is where the pod ends up.
    let answer = buyer.ask(json!({"cashu_token": buyer.token(5).await})).await;
    assert_eq!(answer["ssh_port"], port + 1, "{answer}");
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_pays_once_and_the_same_order_gets_the_same_answer() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let ledger = Arc::clone(&app.ledger);
    let _running = Running::start(app);
    let keys = Keys::generate();
    let buyer = Buyer::with_keys(&sandbox, keys.clone()).await;
    let order = json!({"cashu_token": buyer.token(5).await, "ssh_username": "alice", "ssh_password": "one and the same"});
    let (first, second) = tokio::join!(buyer.ask(order.clone()), buyer.ask(order.clone()));
    // A message of the same second and the same text is the same message, and is answered once.
    let second_over = UnixTime::now();
    while UnixTime::now() == second_over {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let third = buyer.ask(order.clone()).await;
    let pods: std::collections::HashSet<String> = [&first, &second, &third]
        .iter()
        .filter_map(|answer| answer["pod_name"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(pods.len(), 1, "{first} {second} {third}");
    assert_eq!(third["ssh_password"], "one and the same");
    assert_eq!(ledger.live_leases(None).await.unwrap().len(), 1);
    let mut other = order.clone();
    other["ssh_username"] = json!("bob");
    let refused = buyer.ask(other).await;
    assert_eq!(refused["error_type"], "token_already_spent");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("with the same options and the credential"), "{message}");
    let thief = Buyer::new(&sandbox).await;
    assert_eq!(
        thief.ask(order).await["error_type"],
        "token_already_spent",
        "another customer does not get the login"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_while_the_service_was_down_is_served() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let buyer = Buyer::new(&sandbox).await;
    let sent = Notify::new();
    let request = RequestBody { cashu_token: Some(buyer.token(5).await), ..RequestBody::default() };
    // The request is on the relay before anybody serves.
    let progress = |what: &str| {
        if what.starts_with("sent") {
            sent.notify_one();
        }
    };
    let asking =
        async { buyer.client.ask(buyer.service, &request, TIMEOUT, progress).await.unwrap() };
    let later = async {
        sent.notified().await;
        Running::start(sandbox.app().await.unwrap())
    };
    let (response, _running) = tokio::join!(asking, later);
    assert!(matches!(response.response, Some(Response::Access(_))), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_goes_and_comes_back_is_read_again() {
    let mut sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    assert!(buyer.ask(json!({"cashu_token": buyer.token(5).await})).await["pod_name"].is_string());
    sandbox.relay.stop();
    sandbox.relay.restart().await.unwrap();
    let again = Buyer::new(&sandbox).await;
    assert!(again.ask(json!({"cashu_token": again.token(5).await})).await["pod_name"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_shows_each_order_at_its_end() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let ledger = Arc::clone(&app.ledger);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(6).await})).await;
    // The older form of a token, with the prefix that wallets' links have.
    let old_form =
        format!("cashu:{}", paygress_sandbox::token::as_v3(&buyer.token(4).await).unwrap());
    let topped_up =
        buyer.ask(json!({"pod_name": bought["pod_name"], "cashu_token": old_form})).await;
    assert_eq!(topped_up["extended_duration_seconds"], 180, "{topped_up}");
    let lease = ledger.live_leases(None).await.unwrap().remove(0);
    let stored = ledger.lease(&lease.pod()).await.unwrap().unwrap();
    assert_eq!(stored.expires_at.unwrap().rfc3339(), topped_up["new_expires_at"]);
    until("an answer was not noted as delivered", async || {
        ledger.unfinished().await.unwrap().is_empty().then_some(())
    })
    .await;
}

/// A service that takes the payment once a pod is ready, and what makes its pods ready.
async fn capturing_when_ready(error: Option<ClusterError>) -> (Sandbox, App, Arc<Notify>) {
    let sandbox = Sandbox::new(&[("CAPTURE", "ready")], "").await.unwrap();
    let go = Arc::new(Notify::new());
    let override_backends = broken_until(Arc::clone(&go), error);
    let app = furnished(&sandbox, |backends| override_backends(backends, Arc::default())).await;
    (sandbox, app, go)
}

/// Waits until there are so many orders in a state.
async fn wait_for_orders(ledger: &SqlStore, state: State, orders: u64) {
    until(&format!("{orders} orders are never {state:?}"), async || {
        let counts = ledger.count_by_state().await.unwrap();
        let is_so = counts.iter().any(|count| count.state == state && count.orders == orders);
        is_so.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_pod_that_does_not_start_costs_nobody_anything() {
    let error = ClusterError::not_ready("ImagePullBackOff");
    let (sandbox, app, _) = capturing_when_ready(Some(error)).await;
    let (ledger, wallet) = (Arc::clone(&app.ledger), Arc::clone(&app.wallet));
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let token = buyer.token(5).await;
    let answer = buyer.ask(json!({"cashu_token": token})).await;
    assert_eq!(answer["error_type"], "provisioning_error", "{answer}");
    assert_eq!(answer["refund_token"], json!(null), "nothing was taken");
    assert_eq!(buyer.wallet.receive(&token).await.unwrap(), 4, "less their own wallet's fee");
    assert_eq!(ledger.ports_in_use().await.unwrap(), 0);
    assert_eq!(wallet.balances().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_pod_whose_token_is_spent_elsewhere_is_removed() {
    let (sandbox, app, go) = capturing_when_ready(None).await;
    let ledger = Arc::clone(&app.ledger);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let token = buyer.token(5).await;
    let spent = async {
        wait_for_orders(&ledger, State::Decided, 1).await;
        let lease = ledger.live_leases(None).await.unwrap().remove(0);
        // It listens already, and nobody has the login.
        until("the pod is not launched", async || {
            std::net::TcpStream::connect(("127.0.0.1", lease.login_port())).ok()
        })
        .await;
        buyer.wallet.receive(&token).await.unwrap();
        go.notify_one();
        lease
    };
    let (answer, lease) = tokio::join!(buyer.ask(json!({"cashu_token": token})), spent);
    assert_eq!(answer["error_type"], "token_already_spent", "{answer}");
    let listening = std::net::TcpStream::connect(("127.0.0.1", lease.login_port()));
    assert!(listening.is_err(), "the pod runs");
    assert_eq!(ledger.ports_in_use().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_pods_run_unpaid_and_the_next_is_paid_for_first() {
    let (sandbox, app, _) = capturing_when_ready(None).await;
    let ledger = Arc::clone(&app.ledger);
    let _running = Running::start(app);
    let ask = async |buyer: Buyer| buyer.ask(json!({"cashu_token": buyer.token(5).await})).await;
    let keys = Keys::generate();
    let mut waiting = tokio::task::JoinSet::new();
    let twice = [keys.clone(), keys];
    for keys in twice {
        waiting.spawn(ask(Buyer::with_keys(&sandbox, keys).await));
    }
    wait_for_orders(&ledger, State::Decided, 1).await;
    wait_for_orders(&ledger, State::Provisioning, 1).await;
    for _ in 0..limits::UNPAID_LAUNCHES {
        waiting.spawn(ask(Buyer::new(&sandbox).await));
    }
    wait_for_orders(&ledger, State::Provisioning, 2).await;
    let all = u64::try_from(limits::UNPAID_LAUNCHES).unwrap();
    wait_for_orders(&ledger, State::Decided, all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_an_unpaid_pod_starts_the_order_is_decided_again() {
    let (.., answer, _running) = answered_after_a_kill(&[("CAPTURE", "ready")], broken(None)).await;
    assert_eq!(answer["ssh_username"], "alice", "{answer}");
}
