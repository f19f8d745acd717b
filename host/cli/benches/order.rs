//! What the host costs: each part beside the bare library that it is built on. Printed as a table
//! by `cargo xtask bench`.
#![allow(clippy::unwrap_used, missing_docs)]

use bindings::paygress::policy::types;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use paygress::app::App;
use paygress::config::default_policies;
use paygress::sandbox::Sandbox;
use paygress_core::Policy;
use paygress_core::backend::policy::{Context, Payment, Placement, PolicySet, Rendered, Slot};
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::Repetition;
use paygress_core::backend::store::{LeaseUpdate, OrderStore};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{Customer, OrderId, ProofY};
use paygress_core::model::order::{Order, OrderView, Purchase, State};
use paygress_core::model::run::Run;
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
use std::sync::Arc;
use std::time::Duration;
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

/// The contract as wasmtime alone takes it.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit/1.0", world: "pricing-policy" });
}

/// The order and context of the other row, in the contract's types.
fn quote_arguments() -> (types::Order, types::Context) {
    let view = view();
    let order = types::Order {
        id: view.id,
        customer: view.customer,
        purpose: types::Purpose::Spawn,
        image: None,
        tier: None,
        username: view.username,
        wanted_seconds: None,
    };
    let context = types::Context {
        now_unix_seconds: UnixTime::now().0,
        capacity_leases: 100,
        active_leases: 0,
        customer_leases: Vec::new(),
    };
    (order, context)
}

/// The same component and call on wasmtime alone: a fresh instance is configured and quotes. What
/// the host does besides: its limits and checks, counting, and the crossing to another thread.
fn bare_wasmtime(c: &mut Criterion) {
    use wasmtime::component::{Component, Linker};
    let mut config = wasmtime::Config::new();
    let mut pool = wasmtime::PoolingAllocationConfig::new();
    pool.total_component_instances(4)
        .total_core_instances(16)
        .total_memories(4)
        .total_tables(16)
        .linear_memory_keep_resident(1 << 20);
    config.allocation_strategy(pool).epoch_interruption(true);
    let engine = wasmtime::Engine::new(&config).unwrap();
    let source = source(Slot::Pricing);
    let component = Component::from_binary(&engine, &source.component).unwrap();
    let pre = Linker::<()>::new(&engine).instantiate_pre(&component).unwrap();
    let pre = bindings::PricingPolicyPre::new(pre).unwrap();
    let (order, context) = quote_arguments();
    c.bench_function("policy call/bare", |b| {
        b.iter(|| {
            let mut store = wasmtime::Store::new(&engine, ());
            store.set_epoch_deadline(u64::MAX / 2);
            let world = pre.instantiate(&mut store).unwrap();
            let settings = world.paygress_policy_settings();
            settings.call_configure(&mut store, &source.settings).unwrap().unwrap();
            let pricing = world.paygress_policy_pricing();
            pricing.call_quote(&mut store, &order, &context).unwrap().unwrap()
        });
    });
}

fn policies(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let sources = Slot::ALL.into_iter().map(|slot| (slot, source(slot))).collect();
    let set = Host::load(PolicyEngine::start(None).unwrap(), &sources).unwrap().current();
    let (view, context) =
        (view(), Context { now: UnixTime::now(), capacity_leases: 100, ..Context::default() });
    c.bench_function("policy call/host", |b| {
        b.iter(|| runtime.block_on(set.quote(&view, &context)).unwrap())
    });
    let from_snapshots = Host::load(PolicyEngine::start(None).unwrap().with_snapshots(), &sources)
        .unwrap()
        .current();
    c.bench_function("policy call/snapshot", |b| {
        b.iter(|| runtime.block_on(from_snapshots.quote(&view, &context)).unwrap())
    });
    let payment =
        Payment { mint: "https://m".to_owned(), gross: Sat(100), fee: Sat(1), net: Sat(99) };
    for (name, set) in [("host", &set), ("snapshot", &from_snapshots)] {
        c.bench_function(&format!("four calls of one order/{name}"), |b| {
            b.iter(|| runtime.block_on(four_calls(&**set, &view, &payment, &context)))
        });
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

fn gift_wraps(c: &mut Criterion) {
    use nostr_sdk::nips::nip59::UnwrappedGift;
    let (alice, service) = (Keys::generate(), Keys::generate());
    let request =
        serde_json::json!({"cashu_token": format!("cashuB{}", "x".repeat(1_000))}).to_string();
    let (_, wrap) = gift_wrap::gift_wrap(&alice, &service.public_key(), &request, None).unwrap();
    let runtime = Runtime::new().unwrap();
    c.bench_function("unwrap of one gift wrap/bare", |b| {
        b.iter(|| runtime.block_on(UnwrappedGift::from_gift_wrap(&service, &wrap)).unwrap())
    });
    c.bench_function("unwrap of one gift wrap/host", |b| {
        b.iter(|| gift_wrap::unwrap(&service, &wrap).unwrap())
    });
}

fn order() -> Order {
    let mut order = testing::order(testing::spawn(), State::Received).unwrap();
    order.message = order.id.to_string();
    order.reply_to.customer = Some(Customer::parse(&"c".repeat(64)).unwrap());
    order.token_info.ys = vec![ProofY::parse(format!("{:0>66}", order.id.as_str())).unwrap()];
    order
}

fn ledger(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bare = rusqlite::Connection::open(directory.path().join("bare.sqlite")).unwrap();
    bare.pragma_update(None, "journal_mode", "WAL").unwrap();
    bare.pragma_update(None, "synchronous", "FULL").unwrap();
    bare.execute_batch(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, steps INTEGER); INSERT INTO t VALUES (1, 0)",
    )
    .unwrap();
    // Another value each time: SQLite does not write what is there already.
    c.bench_function("ledger transition/bare", |b| {
        b.iter(|| bare.execute("UPDATE t SET steps = steps + 1 WHERE id = 1", []).unwrap())
    });
    let path = directory.path().join("ledger.sqlite");
    let ledger = runtime.block_on(SqlStore::sqlite(&path)).unwrap();
    c.bench_function("ledger transition/host", |b| {
        b.iter_batched(
            || {
                let mut order = order();
                runtime.block_on(ledger.open(&order, Repetition::ByContent)).unwrap();
                order.state = testing::order_state(&order.purchase, State::Decided);
                order
            },
            |order| {
                runtime
                    .block_on(ledger.transition(&order, State::Received, LeaseUpdate::Keep))
                    .unwrap()
            },
            BatchSize::SmallInput,
        );
    });
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
        message: OrderId::random().into(),
        // No recipient: sending is not part of the measurement.
        reply_to: ReplyTo {
            transport: "none".to_owned(),
            customer: None,
            address: BTreeMap::new(),
        },
        network: None,
        token: Secret::new(token),
        purchase: Purchase::Spawn {
            image: None,
            tier: None,
            username: "user".to_owned(),
            public_key: None,
            wanted: None,
            run: Run::Ssh,
            http: None,
        },
        password: Some(Secret::new("a good password")),
    };
    orders.submit(incoming).await.unwrap().answer().await.unwrap()
}

/// An order from submission to response, on a mint in this process and pods without isolation.
/// The bare figure is the swap at that mint alone.
fn whole_order(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (sandbox, payer, receiver, app) = runtime.block_on(shop());
    let token = || runtime.block_on(payer.token(16)).unwrap();
    let mut group = c.benchmark_group("whole order");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    group.bench_function("bare", |b| {
        b.iter_batched(
            token,
            |token| runtime.block_on(receiver.receive(&token)).unwrap(),
            BatchSize::PerIteration,
        )
    });
    group.bench_function("host", |b| {
        b.iter_batched(
            token,
            |token| {
                let response = runtime.block_on(buy(&app.orders, token));
                assert!(matches!(response, Response::Access(_)), "{response:?}");
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    drop(sandbox);
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = bare_wasmtime, policies, gift_wraps, ledger, whole_order
}
criterion_main!(benches);
