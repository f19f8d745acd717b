//! Replicas of an earlier version, which write orders beside those of this one until they are replaced.

use crate::history::{NOW, history_of, of_today, order_before};
use crate::support::{advance, customer, open, server};
use paygress_core::backend::policy::CustomerHistory;
use paygress_core::backend::store::LedgerError;
use paygress_core::model::order::{Order, OrderState, State};
use paygress_core::model::order_state::RefundCause;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::{Database, Value};

/// A ledger that replicas of both versions write.
struct Shared {
    database: Database,
    store: SqlStore,
}

impl Shared {
    fn new(database: Database) -> Self {
        Self { store: SqlStore::new(database.clone()), database }
    }

    async fn execute(&self, statement: &'static str, values: Vec<Value>) {
        let changed = self.database.transact(move |transaction| {
            Ok::<_, LedgerError>(transaction.execute(statement, &values)?)
        });
        assert_eq!(changed.await.unwrap(), 1);
    }

    /// Writes a new order as the earlier version does, which knows no column of histories.
    async fn open_by_earlier(&self, order: &Order) {
        let statement = "INSERT INTO orders (id, lease, state, body, token, password,
                 refund_token, delivered, earned, message, customer, created_at, worker)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        let mut values = columns(order);
        values.extend([
            Value::from(order.message.as_str()),
            customer("c").to_string().into(),
            order.created_at.0.into(),
            Value::Number(7),
        ]);
        self.execute(statement, values).await;
    }

    /// Takes it to this state, as the earlier version does.
    async fn advance_by_earlier(&self, order: &mut Order, state: OrderState) {
        order.state = state;
        let statement = "UPDATE orders SET lease = ?2, state = ?3, body = ?4, token = ?5,
             password = ?6, refund_token = ?7, delivered = ?8, earned = ?9 WHERE id = ?1";
        self.execute(statement, columns(order)).await;
    }

    async fn history(&self) -> CustomerHistory {
        history_of(&self.store, None, NOW).await
    }
}

/// What the earlier version stores of an order with each write.
fn columns(order: &Order) -> Vec<Value> {
    let text = |secret: Option<&Secret>| Value::from(secret.map(Secret::expose));
    vec![
        Value::from(order.id.as_str()),
        order.lease().map(String::from).into(),
        order.state().as_str().into(),
        serde_json::to_string(order).unwrap().into(),
        text(order.state.token()),
        text(order.state.password()),
        text(order.state.refund_token()),
        Value::Number(order.delivered.into()),
        order.earned().0.into(),
    ]
}

fn in_state(order: &Order, state: State) -> OrderState {
    testing::order_state(&order.purchase, state)
}

/// One that is over, and of which 4 of 10 sat go back.
fn refunded_in_part(order: &Order) -> OrderState {
    let (due, expires_at) = (Sat(4), UnixTime(700));
    let (refusal, added, served_until) = (None, None, None);
    let cause = RefundCause::LeaseEnded { due, expires_at, refusal, added, served_until };
    let sale = testing::paid(&order.purchase).into();
    OrderState::RefundPending { sale, cause, password: None }
}

/// Each of its steps counts as it would of a replica of this version.
async fn orders_of_the_earlier_version_count(shared: &Shared) {
    let mut order = order_before("r1", 5);
    shared.open_by_earlier(&order).await;
    let undecided = CustomerHistory { last_day_undecided: 1, ..of_today(1, 5, 10, 0) };
    assert_eq!(shared.history().await, undecided);
    for state in [State::Decided, State::Redeeming, State::Provisioning, State::Active] {
        let next = in_state(&order, state);
        shared.advance_by_earlier(&mut order, next).await;
        for _ in 0..2 {
            assert_eq!(shared.history().await, of_today(1, 5, 10, 600), "{state:?}");
        }
    }
    let next = refunded_in_part(&order);
    shared.advance_by_earlier(&mut order, next).await;
    assert_eq!(shared.history().await, of_today(1, 5, 6, 360));
}

async fn what_comes_to_nothing_there_does_not_count(shared: &Shared) {
    for (name, is_seen_before) in [("r2", true), ("r3", false)] {
        let mut order = order_before(name, 3);
        shared.open_by_earlier(&order).await;
        if is_seen_before {
            assert_eq!(shared.history().await.orders, 2);
        }
        let next = in_state(&order, State::Refused);
        shared.advance_by_earlier(&mut order, next).await;
        assert_eq!(shared.history().await, of_today(1, 5, 6, 360), "{name}");
    }
}

/// What was received here, and is decided by a replica of the earlier version.
async fn an_order_that_it_has_taken_over_counts(shared: &Shared) {
    let mut order = order_before("r4", 2);
    open(&shared.store, &order).await;
    let next = in_state(&order, State::Decided);
    shared.advance_by_earlier(&mut order, next).await;
    assert_eq!(shared.history().await, of_today(2, 5, 16, 960));
    // And back.
    advance(&shared.store, &mut order, &[State::Redeeming, State::Refused]).await;
    assert_eq!(shared.history().await, of_today(1, 5, 6, 360));
}

/// One that cannot be read keeps its customer from nothing.
async fn a_damaged_one_does_not_count(shared: &Shared) {
    let order = order_before("r5", 1);
    shared.open_by_earlier(&order).await;
    let damage = "UPDATE orders SET body = '{}' WHERE id = ?1";
    shared.execute(damage, vec![Value::from(order.id.as_str())]).await;
    assert_eq!(shared.history().await, of_today(1, 5, 6, 360));
}

async fn check(database: Database) {
    let shared = Shared::new(database);
    orders_of_the_earlier_version_count(&shared).await;
    what_comes_to_nothing_there_does_not_count(&shared).await;
    an_order_that_it_has_taken_over_counts(&shared).await;
    a_damaged_one_does_not_count(&shared).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_sells_counts_in_a_sqlite_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    check(Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_sells_counts_in_postgres() {
    let server = server();
    let url = server.new_database().unwrap();
    check(Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap()).await;
}
