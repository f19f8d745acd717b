//! What the host costs: each part beside the bare library that it is built on. Printed as a table
//! by `cargo xtask bench`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/bare_policy.rs"]
mod bare_policy;
#[path = "support/pairs.rs"]
mod pairs;

use bare_policy::BarePolicy;
use criterion::Criterion;
use pairs::{Plan, calls, prepared_calls};
use paygress::app::App;
use paygress::config::default_policies;
use paygress::sandbox::Sandbox;
use paygress_core::Policy;
use paygress_core::backend::policy::{Context, Payment, Placement, PolicySet, Rendered, Slot};
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::Repetition;
use paygress_core::backend::store::{LeaseUpdate, OrderStore};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{Customer, MessageId, MintUrl, OrderId, ProofY};
use paygress_core::model::order::{Order, OrderView, State};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::orders::{NewOrder, OrderService};
use paygress_core::protocol::Response;
use paygress_core::testing;
use paygress_nostr::{Keys, gift_wrap};
use paygress_policy::{Host, PolicyEngine, Source};
use paygress_sandbox::TestWallet;
use paygress_store::SqlStore;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

fn source(slot: Slot) -> Source {
    Source::plain(
        paygress_policy::read_component(&default_policies().join(format!("{slot}.wasm"))).unwrap(),
    )
}

fn view() -> OrderView {
    OrderView {
        id: "a".to_owned(),
        customer: "c".repeat(64),
        username: "user".to_owned(),
        ..OrderView::default()
    }
}

/// What the order and the context are on both sides.
fn context() -> Context {
    Context { now: UnixTime::now(), capacity_leases: 100, ..Context::default() }
}

/// The default policies, which take their settings in each call, and which start from snapshots.
fn sets() -> [Arc<dyn PolicySet>; 2] {
    let sources = Slot::ALL.into_iter().map(|slot| (slot, source(slot))).collect();
    let engine = PolicyEngine::start(None).unwrap();
    [Arc::clone(&engine), engine.with_snapshots()]
        .map(|engine| Host::load(engine, &sources).unwrap().current())
}

/// Both sides instantiate, configure or start from a snapshot, and quote.
fn policy_calls(sets: &[Arc<dyn PolicySet>; 2]) {
    let runtime = Runtime::new().unwrap();
    let (source, view, context) = (source(Slot::Pricing), view(), context());
    let bare = [
        BarePolicy::configured_in_each_call(&source, context.now.0),
        BarePolicy::from_snapshot(&source, context.now.0),
    ];
    let names = ["fresh policy call", "the same, from a snapshot"];
    for ((name, bare), set) in names.into_iter().zip(&bare).zip(sets) {
        pairs::measure(
            name,
            Plan { rounds: 300, calls: 30 },
            calls(|| bare.quote()),
            calls(|| runtime.block_on(set.quote(&view, &context)).unwrap()),
        );
    }
}

/// There is no bare figure of these. Each is timed by itself as well, for the longest of them.
fn orders_of_four_calls(c: &mut Criterion, sets: &[Arc<dyn PolicySet>; 2]) {
    let runtime = Runtime::new().unwrap();
    let (view, context) = (view(), context());
    let payment =
        Payment { mint: MintUrl::of_dry_run(), gross: Sat(100), fee: Sat(1), net: Sat(99) };
    for (name, set) in ["host", "snapshot"].into_iter().zip(sets) {
        let id = format!("four calls of one order/{name}");
        let mut times: Vec<Duration> = Vec::new();
        c.bench_function(&id, |b| {
            b.iter_custom(|count| {
                let orders = (0..count).map(|_| {
                    let begun = Instant::now();
                    black_box(runtime.block_on(four_calls(&**set, &view, &payment, &context)));
                    begun.elapsed()
                });
                let orders: Vec<Duration> = orders.collect();
                times.extend_from_slice(&orders);
                orders.iter().sum::<Duration>()
            })
        });
        pairs::record_calls(&id, &times);
    }
}

async fn four_calls(
    set: &dyn PolicySet,
    view: &OrderView,
    payment: &Payment,
    context: &Context,
) -> Rendered {
    let image = set.admit(view, context).await.unwrap();
    let quote = set.quote(view, context).await.unwrap();
    let grant = set.grant(view, &quote, payment, context).await.unwrap();
    let placement = Placement {
        pod_name: "ssh-pod-a".to_owned(),
        image,
        resources: quote.resources,
        host_port: Some(30_000),
        access: AccessModes::default(),
        container_port: 2_222,
        secret_name: "ssh-pod-a".to_owned(),
        secret_mount_path: "/run/paygress/login".to_owned(),
    };
    set.render(view, &quote, &grant, &placement).await.unwrap()
}

fn gift_wraps() {
    use nostr_sdk::nips::nip59::UnwrappedGift;
    let (alice, service) = (Keys::generate(), Keys::generate());
    let request =
        serde_json::json!({"cashu_token": format!("cashuB{}", "x".repeat(1_000))}).to_string();
    let (_, wrap) = gift_wrap::gift_wrap(&alice, &service.public_key(), &request, None).unwrap();
    let runtime = Runtime::new().unwrap();
    pairs::measure(
        "unwrap of one gift wrap",
        Plan { rounds: 300, calls: 20 },
        calls(|| runtime.block_on(UnwrappedGift::from_gift_wrap(&service, &wrap)).unwrap()),
        calls(|| gift_wrap::unwrap(&service, &wrap).unwrap()),
    );
}

fn order() -> Order {
    let mut order = testing::order(testing::spawn(), State::Received).unwrap();
    order.message = MessageId::parse(order.id.as_str()).unwrap();
    order.reply_to.customer = Some(Customer::parse(&"c".repeat(64)).unwrap());
    order.token_info.ys = vec![ProofY::parse(format!("{:0>66}", order.id.as_str())).unwrap()];
    order
}

fn ledger() {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bare = rusqlite::Connection::open(directory.path().join("bare.sqlite")).unwrap();
    bare.pragma_update(None, "journal_mode", "WAL").unwrap();
    bare.pragma_update(None, "synchronous", "FULL").unwrap();
    bare.execute_batch(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, steps INTEGER); INSERT INTO t VALUES (1, 0)",
    )
    .unwrap();
    let path = directory.path().join("ledger.sqlite");
    let ledger = runtime.block_on(SqlStore::sqlite(&path)).unwrap();
    let received = || {
        let mut order = order();
        runtime.block_on(ledger.open(&order, Repetition::ByContent)).unwrap();
        order.state = testing::order_state(&order.purchase, State::Decided);
        order
    };
    pairs::measure(
        "ledger transition",
        Plan { rounds: 200, calls: 10 },
        // Another value each time: SQLite does not write what is there already.
        calls(|| bare.execute("UPDATE t SET steps = steps + 1 WHERE id = 1", []).unwrap()),
        prepared_calls(received, |order: Order| {
            runtime.block_on(ledger.transition(&order, State::Received, LeaseUpdate::Keep)).unwrap()
        }),
    );
}

/// A service, and the wallets of a customer who has money and of somebody else.
async fn shop() -> (Sandbox, TestWallet, TestWallet, App) {
    let sandbox =
        Sandbox::new(&[("SSH_PORT_RANGE_START", "20000"), ("SSH_PORT_RANGE_END", "29999")], "")
            .await
            .unwrap();
    let (payer, receiver) = (
        TestWallet::new(sandbox.mint.url()).await.unwrap(),
        TestWallet::new(sandbox.mint.url()).await.unwrap(),
    );
    payer.fill(100_000).await.unwrap();
    let app = sandbox.app().await.unwrap();
    (sandbox, payer, receiver, app)
}

async fn buy(orders: &Arc<OrderService>, token: String) -> Response {
    let incoming = NewOrder {
        repetition: Repetition::ByContent,
        message: MessageId::parse(OrderId::random()).unwrap(),
        // No recipient: sending is not part of the measurement.
        reply_to: ReplyTo {
            transport: "none".to_owned(),
            customer: None,
            address: BTreeMap::new(),
        },
        network: None,
        token: Secret::new(token),
        purchase: testing::spawn(),
        password: Some(Secret::new("a good password")),
    };
    orders.submit(incoming).await.unwrap().answer().await.unwrap()
}

/// An order from submission to response, on a mint in this process and pods without isolation.
/// The bare figure is the swap at that mint alone.
fn whole_order() {
    let runtime = Runtime::new().unwrap();
    let (sandbox, payer, receiver, app) = runtime.block_on(shop());
    let token = || runtime.block_on(payer.token(16)).unwrap();
    pairs::measure(
        "whole order, in process",
        Plan { rounds: 100, calls: 1 },
        prepared_calls(token, |token: String| runtime.block_on(receiver.receive(&token)).unwrap()),
        prepared_calls(token, |token: String| {
            let response = runtime.block_on(buy(&app.orders, token));
            assert!(matches!(response, Response::Access(_)), "{response:?}");
        }),
    );
    drop(sandbox);
}

fn main() {
    let sets = sets();
    policy_calls(&sets);
    gift_wraps();
    ledger();
    whole_order();
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
        .configure_from_args();
    orders_of_four_calls(&mut criterion, &sets);
    criterion.final_summary();
}
