//! Rows that cannot be read: a disk has failed, or a newer version has written them.

use crate::support::{move_to, new_lease_id, open, order, sell, server};
use paygress_core::backend::capacity::{Demand, Reservation};
use paygress_core::backend::store::{
    LeaseStore, LeaseUpdate, LedgerError, OrderStore, PortAllocator, RefundStore, RefusedLimits,
    Repetition, Reporting,
};
use paygress_core::model::ids::{LeaseId, MintUrl, OrderId};
use paygress_core::model::order::State;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::{Database, Value};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_keeps_no_other_from_being_served_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    others_are_served(Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_keeps_no_other_from_being_served_on_postgres() {
    let server = server();
    let url = server.new_database().unwrap();
    others_are_served(Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap()).await;
}

async fn damage(database: &Database, table: &'static str, id: &str) {
    change(database, format!("UPDATE {table} SET body = '{{}}' WHERE id = ?1"), id).await;
}

/// Changes the row that this statement is about.
async fn change(database: &Database, statement: String, id: &str) {
    let id = id.to_owned();
    let changed = database
        .transact(move |transaction| {
            Ok::<_, LedgerError>(transaction.execute(&statement, &[Value::from(&id)])?)
        })
        .await;
    assert_eq!(changed.unwrap(), 1);
}

/// An order that was refused.
async fn refused(store: &SqlStore, message: &str) -> OrderId {
    let mut order = order(message, &[message]);
    open(store, &order).await;
    move_to(store, &mut order, State::Refused, LeaseUpdate::Keep).await;
    order.id
}

async fn others_are_served(database: Database) {
    let store = SqlStore::new(database.clone());
    assert!(store.damaged().await.unwrap().is_empty());
    let (damaged, good) = (order("k1", &["a"]), order("k2", &["b"]));
    open(&store, &damaged).await;
    open(&store, &good).await;
    let (of_damaged, damaged_lease) = sell(&store, "k3", 40_000, 200).await;
    let (_, lease) = sell(&store, "k4", 40_001, 200).await;
    let damaged_refusal = refused(&store, "k5").await;
    for id in [&damaged.id, &of_damaged.id, &damaged_refusal] {
        damage(&database, "orders", id.as_str()).await;
    }
    damage(&database, "leases", damaged_lease.id.as_str()).await;

    let ids: Vec<OrderId> =
        store.unfinished().await.unwrap().into_iter().map(|order| order.id).collect();
    assert!(ids.contains(&good.id) && !ids.contains(&damaged.id), "{ids:?}");
    let leases: Vec<LeaseId> =
        store.live_leases(None).await.unwrap().into_iter().map(|lease| lease.id).collect();
    assert_eq!(leases, [lease.id]);
    assert_eq!(store.pending_refunds(None).await.unwrap(), []);
    let all = RefusedLimits { whole: 0, most: u32::MAX };
    assert_eq!(store.forget_refused(UnixTime(0), all).await.unwrap(), 0, "the others are kept");

    // Whoever reads that very row, or all of them, fails with its name.
    let failed = store.order(&damaged.id).await.unwrap_err().to_string();
    assert!(failed.contains(&format!("order {}", damaged.id)), "{failed}");
    assert!(store.page(None, 10).await.is_err());
    // Nor is it taken for absent where money depends on it: not its proofs, nor its pod.
    let same_proofs = order("k6", &["a"]);
    assert!(store.open(&same_proofs, Repetition::ByContent).await.is_err());
    assert!(store.lease(&damaged_lease.pod()).await.is_err());

    // Each is named, at once.
    let named = store.damaged().await.unwrap();
    for row in [
        format!("order {}", damaged.id),
        format!("order {}", of_damaged.id),
        format!("order {damaged_refusal}"),
        format!("lease {}", damaged_lease.id),
    ] {
        let count = named.iter().filter(|reason| reason.contains(&row)).count();
        assert_eq!(count, 1, "{row}: {named:?}");
    }
    assert_eq!(named.len(), 4, "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_row_may_owe_is_not_spared_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    is_not_spared(Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_row_may_owe_is_not_spared_on_postgres() {
    let server = server();
    let url = server.new_database().unwrap();
    is_not_spared(Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap()).await;
}

async fn is_not_spared(database: Database) {
    let store = SqlStore::new(database.clone());
    let (refunded, mint) = (OrderId::random(), testing::mint().unwrap());
    let other = MintUrl::parse("https://other.invalid").unwrap();
    // What is paid has its amount in a column: it is counted, at whatever mint it may be.
    let paid = [State::Paid, State::Provisioning, State::Active, State::RefundPending];
    for (state, owed) in paid.into_iter().zip([10, 20, 30, 40]) {
        let mut order = order(state.as_str(), &[state.as_str()]);
        open(&store, &order).await;
        move_to(&store, &mut order, state, LeaseUpdate::Keep).await;
        damage(&database, "orders", order.id.as_str()).await;
        assert_eq!(store.owed(&mint, Some(&refunded)).await.unwrap(), Sat(owed), "{state:?}");
        assert_eq!(store.owed(&other, Some(&refunded)).await.unwrap(), Sat(owed), "{state:?}");
    }
    // What is not has it in the row that cannot be read.
    for state in [State::Decided, State::Redeeming, State::PaymentUnknown] {
        let mut order = order(state.as_str(), &[state.as_str()]);
        open(&store, &order).await;
        move_to(&store, &mut order, state, LeaseUpdate::Keep).await;
        assert_eq!(store.owed(&mint, Some(&refunded)).await.unwrap(), Sat(50), "{state:?}");
        damage(&database, "orders", order.id.as_str()).await;
        let owed = store.owed(&mint, Some(&refunded)).await;
        assert!(matches!(owed, Err(LedgerError::Unreadable(_))), "{state:?}: {owed:?}");
        let ended = "UPDATE orders SET state = 'refused' WHERE id = ?1".to_owned();
        change(&database, ended, order.id.as_str()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_port_keeps_no_other_from_being_sold_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    others_are_sold(Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_port_keeps_no_other_from_being_sold_on_postgres() {
    let server = server();
    let url = server.new_database().unwrap();
    others_are_sold(Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap()).await;
}

async fn others_are_sold(database: Database) {
    let store = SqlStore::new(database.clone());
    let demand = || Demand::new("a pod".to_owned());
    let mut reserved = Vec::new();
    for lease in [new_lease_id(), new_lease_id(), new_lease_id()] {
        store.reserve_port(&lease, 40_000..=40_002).await.unwrap().unwrap();
        store.reserve_capacity(&lease, &demand(), None).await.unwrap().unwrap();
        reserved.push(Reservation { lease, demand: demand() });
    }
    let damaged = reserved.remove(0).lease;
    let statement = "UPDATE ports SET lease = 'x y' WHERE lease = ?1".to_owned();
    change(&database, statement, damaged.as_str()).await;

    let mut read = store.reservations().await.unwrap();
    for reservations in [&mut read, &mut reserved] {
        reservations.sort_by(|a, b| a.lease.as_str().cmp(b.lease.as_str()));
    }
    assert_eq!(read, reserved);
    let released = reserved.remove(0).lease;
    store.release_port(&released).await.unwrap();
    let next = new_lease_id();
    assert!(store.reserve_port(&next, 40_000..=40_002).await.unwrap().is_some());
    assert_eq!(store.reserve_capacity(&next, &demand(), None).await.unwrap(), Ok(()));
    // Its port is not sold once more, nor taken for unused.
    assert_eq!(store.release_unused_ports().await.unwrap(), 2, "those without an order");
    for lease in [&reserved[0].lease, &next] {
        store.reserve_port(lease, 40_000..=40_002).await.unwrap().unwrap();
    }
    assert_eq!(store.reserve_port(&new_lease_id(), 40_000..=40_002).await.unwrap(), None);
    assert_eq!(store.ports_in_use().await.unwrap(), 3);
    let named = store.damaged().await.unwrap();
    assert!(named.len() == 1 && named[0].contains("port of lease x y"), "{named:?}");
}
