use paygress_core::backend::policy::Resources;
use paygress_core::backend::responder::{ReplyTo, Transport};
use paygress_core::backend::store::{LeaseUpdate, Ledger, OpenOutcome};
use paygress_core::backend::wallet::TokenInfo;
use paygress_core::model::order::{Lease, LeaseState, Order, OrderSecrets, Purchase, State};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Customer, LeaseId, MintUrl, OrderId, ProofY, Sat, UnixTime};
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
    Customer(digit.repeat(64))
}

/// A new order of customer `c` that this message has made.
pub(crate) fn order(message: &str, ys: &[&str]) -> Order {
    let purchase = Purchase::Spawn {
        image: None,
        tier: None,
        username: "user".to_owned(),
        public_key: None,
        wanted: None,
    };
    Order {
        message: message.to_owned(),
        reply_to: ReplyTo {
            transport: Transport::Nostr,
            customer: customer("c"),
            relay: Some("wss://r".to_owned()),
            request: None,
        },
        token_info: TokenInfo {
            mint: MintUrl("https://m".to_owned()),
            gross: Sat(8),
            ys: ys.iter().map(|y| ProofY((*y).to_owned())).collect(),
        },
        created_at: UnixTime(100),
        secrets: OrderSecrets {
            token: Some(Secret::new("cashuBsecret")),
            password: Some(Secret::new("hunter22")),
            refund_token: None,
        },
        ..Order::blank(purchase)
    }
}

/// A live lease of customer `c`.
pub(crate) fn lease(port: u16, expires_at: u64) -> Lease {
    Lease {
        id: new_lease_id(),
        customer: customer("c"),
        tier: "basic".to_owned(),
        image: "i:1".to_owned(),
        resources: Resources { cpu_millicores: 1, memory_mib: 1 },
        username: "user".to_owned(),
        port,
        state: LeaseState::Live,
        created_at: UnixTime(100),
        expires_at: Some(UnixTime(expires_at)),
        end: None,
    }
}

pub(crate) fn new_lease_id() -> LeaseId {
    LeaseId::of(&OrderId::random())
}

pub(crate) async fn open(ledger: &dyn Ledger, order: &Order) {
    assert_eq!(ledger.open(order).await.unwrap(), OpenOutcome::Created);
}

/// Takes an order through these states.
pub(crate) async fn advance(ledger: &dyn Ledger, order: &mut Order, states: &[State]) {
    for state in states {
        let from = order.state;
        order.state = *state;
        ledger.transition(order, from, LeaseUpdate::Keep).await.unwrap();
    }
}

/// Opens an order that makes this lease, in state `active`.
pub(crate) async fn sell(ledger: &dyn Ledger, message: &str, lease: &Lease) -> Order {
    let mut order = order(message, &[message]);
    open(ledger, &order).await;
    order.lease = Some(lease.id.clone());
    order.state = State::Active;
    ledger.transition(&order, State::Received, LeaseUpdate::Put(lease)).await.unwrap();
    order
}
