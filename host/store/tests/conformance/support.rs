use paygress_core::backend::policy::Resources;
use paygress_core::backend::store::{LeaseUpdate, Ledger, OpenOutcome, Repetition};
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::{Customer, LeaseId, MessageId, OrderId, ProofY, Username};
use paygress_core::model::lease::PortKind;
use paygress_core::model::order::{Lease, LeaseState, Order, Purchase, State};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::UnixTime;
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::Database;
use paygress_store::db::testing::Server;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tempfile::TempDir;

pub(crate) async fn sqlite() -> (Arc<SqlStore>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await.unwrap();
    (Arc::new(store), directory)
}

/// The server that the tests of this process share while one of them needs it.
static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());

pub(crate) fn server() -> Arc<Server> {
    let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start().unwrap());
        *shared = Arc::downgrade(&server);
        server
    })
}

pub(crate) async fn postgres() -> (Arc<SqlStore>, Arc<Server>) {
    let server = server();
    let store = replica(&server.new_database().unwrap()).await;
    (Arc::new(store), server)
}

pub(crate) async fn replica(url: &Secret) -> SqlStore {
    SqlStore::new(Database::postgres(url, &[SqlStore::SCHEMA]).await.unwrap())
}

pub(crate) fn customer(digit: &str) -> Customer {
    Customer::parse(&digit.repeat(64)).unwrap()
}

/// A Y for this name.
pub(crate) fn y(name: &str) -> ProofY {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    ProofY::parse(format!("{digits:0<66}")).unwrap()
}

pub(crate) fn message_id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

/// A new order of customer `c` that this message has made.
pub(crate) fn order(message: &str, ys: &[&str]) -> Order {
    order_for(testing::spawn(), message, ys)
}

pub(crate) fn order_for(purchase: Purchase, message: &str, ys: &[&str]) -> Order {
    let mut order = testing::order(purchase, State::Received).unwrap();
    order.message = message_id(message);
    order.reply_to.customer = Some(customer("c"));
    order.reply_to.address.insert("relay".to_owned(), Some("wss://r".to_owned()));
    order.token_info.ys = ys.iter().map(|name| y(name)).collect();
    order
}

/// A top-up of customer `c` for this lease.
pub(crate) fn top_up(lease: &Lease, message: &str) -> Order {
    order_for(Purchase::TopUp { pod: lease.pod() }, message, &[message])
}

/// The live lease that this order of customer `c` has made.
pub(crate) fn lease_of(order: &Order, port: u16, expires_at: u64) -> Lease {
    Lease { id: LeaseId::of(&order.id), ..lease(port, expires_at) }
}

/// A live lease of customer `c`.
pub(crate) fn lease(port: u16, expires_at: u64) -> Lease {
    Lease {
        id: new_lease_id(),
        customer: Some(customer("c")),
        tier: testing::tier("basic"),
        image: testing::image("i:1"),
        resources: Resources { cpu_millicores: 1, memory_mib: 1 },
        username: Username::default(),
        port: Some(port),
        port_kind: PortKind::HostPort,
        state: LeaseState::Live,
        created_at: UnixTime(100),
        expires_at: Some(UnixTime(expires_at)),
        end: None,
        served_until: None,
        noticed_at: None,
        pod_uid: None,
        host_keys: vec![HostKey::parse(testing::HOST_KEY).unwrap()],
        root: Some(true),
        pod_key: None,
        ssh_host: None,
        http: None,
    }
}

pub(crate) fn new_lease_id() -> LeaseId {
    LeaseId::of(&OrderId::random())
}

pub(crate) async fn open(ledger: &dyn Ledger, order: &Order) {
    let outcome = ledger.open(order, Repetition::ByContent).await.unwrap();
    assert_eq!(outcome, OpenOutcome::Created);
}

/// Takes an order through these states.
pub(crate) async fn advance(ledger: &dyn Ledger, order: &mut Order, states: &[State]) {
    for state in states {
        move_to(ledger, order, *state, LeaseUpdate::Keep).await;
    }
}

/// Takes an order to this state, and its lease along.
pub(crate) async fn move_to(
    ledger: &dyn Ledger,
    order: &mut Order,
    state: State,
    lease: LeaseUpdate<'_>,
) {
    let from = order.state();
    order.state = testing::order_state(&order.purchase, state);
    ledger.transition(order, from, lease).await.unwrap();
}

/// Opens an order that makes a lease, in state `active`.
pub(crate) async fn sell(
    ledger: &dyn Ledger,
    message: &str,
    port: u16,
    ends: u64,
) -> (Order, Lease) {
    let mut order = order(message, &[message]);
    open(ledger, &order).await;
    let lease = lease_of(&order, port, ends);
    move_to(ledger, &mut order, State::Active, LeaseUpdate::Put(&lease)).await;
    (order, lease)
}
