//! Stores that an older version has left.

use crate::history::history_of;
use crate::support::{customer, order, server};
use paygress_core::backend::policy::CustomerHistory;
use paygress_core::backend::store::{HourlyRevenue, LedgerError, Reporting};
use paygress_core::model::order::{Order, OrderState, RefundEnd};
use paygress_core::model::order_state::{Refund, RefundCause, RefundOutcome};
use paygress_core::model::units::{Sat, Seconds, SignedSat, UnixTime};
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::{Database, Schema, SchemaVersion, Value};

const VERSION_1: Schema =
    Schema { name: SqlStore::SCHEMA.name, steps: SqlStore::SCHEMA.steps.split_at(1).0 };

/// A paid order of which a part was refunded, and the refund reclaimed.
fn paid_order() -> Order {
    let mut order = order("old", &["old"]);
    let mut paid = testing::paid(&order.purchase);
    paid.redeemed = Sat(9);
    let (due, expires_at) = (Sat(3), UnixTime(700));
    let (refusal, added, served_until) = (None, None, None);
    let cause = RefundCause::LeaseEnded { due, expires_at, refusal, added, served_until };
    let outcome = RefundOutcome::Ended(RefundEnd::Reclaimed(Sat(2)));
    let (amount, fee, made_at) = (Sat(2), Sat(1), UnixTime(200));
    let refund = Refund { amount, fee, fee_borne: Sat(0), made_at, outcome };
    order.state = OrderState::Refunded { sale: paid.into(), cause, refund };
    order
}

/// Writes an order as version 1 did: without a column for what it has brought.
async fn write_as_version_1(old: Database, order: &Order) {
    let values = [
        Value::from(order.id.as_str()),
        Value::from(serde_json::to_string(order).unwrap()),
        Value::from(customer("c").to_string()),
    ];
    old.transact(move |transaction| {
        let insert = "INSERT INTO orders (id, message, customer, state, created_at, worker, body)
             VALUES (?1, ?1, ?3, 'paid', 100, 0, ?2)";
        Ok::<_, LedgerError>(transaction.execute(insert, &values)?)
    })
    .await
    .unwrap();
}

/// Its revenue, and its customer's history.
async fn check_migrated(migrated: Database) {
    let store = SqlStore::new(migrated);
    assert_eq!(
        store.revenue(UnixTime(0)).await.unwrap(),
        [HourlyRevenue { from: UnixTime(0), orders: 1, earned: SignedSat(8) }]
    );
    let history = history_of(&store, None, UnixTime(107)).await;
    let expected = CustomerHistory {
        orders: 1,
        first_ago: Some(Seconds(7)),
        last_day_paid: Sat(8),
        last_day_bought: Seconds(600),
        last_day_first_ago: Some(Seconds(7)),
        last_day_undecided: 0,
    };
    assert_eq!(history, expected);
}

#[test]
fn a_new_order_brings_as_much_as_a_migrated_one() {
    assert_eq!(paid_order().earned(), SignedSat(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_of_version_1_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    write_as_version_1(Database::sqlite(&path, VERSION_1).await.unwrap(), &paid_order()).await;
    check_migrated(Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_database_of_version_1_is_migrated() {
    let server = server();
    let url = server.new_database().unwrap();
    write_as_version_1(Database::postgres(&url, &[VERSION_1]).await.unwrap(), &paid_order()).await;
    check_migrated(Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap()).await;
}

/// The version of the ledger's schema in a database of version 1.
fn version_1() -> SchemaVersion {
    let Schema { name, steps } = SqlStore::SCHEMA;
    SchemaVersion { name, found: 1, known: steps.len() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_a_sqlite_file_is_read_beside_its_service_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    assert!(Database::sqlite_version(&path, SqlStore::SCHEMA).await.is_err());
    assert!(!path.exists(), "none is made");
    let _service = Database::sqlite(&path, VERSION_1).await.unwrap();
    for _ in 0..2 {
        let read = Database::sqlite_version(&path, SqlStore::SCHEMA).await.unwrap();
        assert_eq!(read, version_1());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_versions_in_a_postgres_are_read_and_not_changed() {
    let server = server();
    let url = server.new_database().unwrap();
    let empty = Database::postgres_state(&url, &[SqlStore::SCHEMA]).await.unwrap();
    assert_eq!(empty.schemas, [SchemaVersion { found: 0, ..version_1() }]);
    drop(Database::postgres(&url, &[VERSION_1]).await.unwrap());
    for _ in 0..2 {
        let read = Database::postgres_state(&url, &[SqlStore::SCHEMA]).await.unwrap();
        assert_eq!((read.schemas, read.server.is_empty()), (vec![version_1()], false));
    }
}
