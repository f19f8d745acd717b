//! What only replicas can show.

use crate::support::{lease_of, message_id, move_to, open, order, replica, server};
use paygress_core::backend::capacity::Demand;
use paygress_core::backend::store::{
    LeaseStore, LeaseUpdate, LedgerError, MessageLog, OrderStore, PortAllocator, Reporting,
};
use paygress_core::model::ids::{LeaseId, OrderId};
use paygress_core::model::order::State;
use paygress_core::model::units::UnixTime;
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::{Database, Value};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_reads_what_another_one_has_written() {
    let server = server();
    let url = server.new_database().unwrap();
    let (first, second) = (replica(&url).await, replica(&url).await);
    open(&first, &order("p0", &["p0"])).await;
    assert!(!second.page(None, 1).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_belongs_to_one_live_replica() {
    let server = server();
    let url = server.new_database().unwrap();
    let (first, second) = (replica(&url).await, replica(&url).await);
    let mut sold = order("p1", &["p1"]);
    open(&first, &sold).await;
    assert!(first.claim_message(&message_id("m"), UnixTime(1)).await.unwrap());
    assert!(second.unfinished().await.unwrap().is_empty(), "its replica lives");
    assert!(!second.claim_message(&message_id("m"), UnixTime(1)).await.unwrap());
    sold.state = testing::order_state(&sold.purchase, State::Decided);
    let result = second.transition(&sold, State::Received, LeaseUpdate::Keep).await;
    assert!(matches!(result, Err(LedgerError::Conflict { .. })), "it is the other one's");
    drop(first);
    // Postgres releases the locks of a connection once it has seen it close.
    let begun = Instant::now();
    let taken = loop {
        let taken = second.unfinished().await.unwrap();
        if !taken.is_empty() {
            break taken;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "a dead replica's order is not taken over"
        );
    };
    assert_eq!(taken.iter().map(|order| &order.id).collect::<Vec<_>>(), [&sold.id]);
    second.transition(&sold, State::Received, LeaseUpdate::Keep).await.unwrap();
    assert!(
        second.claim_message(&message_id("m"), UnixTime(1)).await.unwrap(),
        "and so is its message"
    );
}

/// Gives the order to the replica of this database, while the other one works on it.
async fn take_over(database: &Database, order: &OrderId) {
    let order = order.clone();
    let taken = database.transact(move |transaction| {
        let values = [Value::from(transaction.replica_id()), Value::from(order.as_str())];
        let statement = "UPDATE orders SET worker = ?1 WHERE id = ?2";
        Ok::<_, LedgerError>(transaction.execute(statement, &values)?)
    });
    assert_eq!(taken.await.unwrap(), 1);
}

fn is_conflict<T>(result: Result<T, LedgerError>) -> bool {
    matches!(result, Err(LedgerError::Conflict { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_order_reserves_and_releases_nothing() {
    let server = server();
    let url = server.new_database().unwrap();
    let first = replica(&url).await;
    let database = Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap();
    let second = SqlStore::new(database.clone());
    let range = || 40_000..=40_001;
    let (mut sold, mut refused) = (order("p2", &["p2"]), order("p3", &["p3"]));
    let (of_sold, of_refused) = (LeaseId::of(&sold.id), LeaseId::of(&refused.id));
    for order in [&sold, &refused] {
        open(&first, order).await;
        first.reserve_port(&LeaseId::of(&order.id), range()).await.unwrap().unwrap();
        take_over(&database, &order.id).await;
    }
    let mut before = sold.clone();
    let port = second.reserve_port(&of_sold, range()).await.unwrap().unwrap();
    let live = lease_of(&sold, port, 500);
    let demand = Demand::new("a pod".to_owned());
    second.reserve_capacity(&of_sold, &demand, None).await.unwrap().unwrap();
    move_to(&second, &mut sold, State::Provisioning, LeaseUpdate::Put(&live)).await;
    move_to(&second, &mut refused, State::Refused, LeaseUpdate::Release(&of_refused, None)).await;

    // The first one comes back from the mint.
    for (id, lease) in [(&sold.id, &of_sold), (&refused.id, &of_refused)] {
        assert!(is_conflict(first.check_state(id, State::Received).await));
        assert!(is_conflict(first.reserve_port(lease, range()).await));
        assert!(is_conflict(first.reassign_port(lease, range()).await));
        assert!(is_conflict(first.reserve_capacity(lease, &demand, None).await));
        assert!(is_conflict(first.release_port(lease).await));
    }
    before.state = testing::order_state(&before.purchase, State::Refused);
    let update = LeaseUpdate::Release(&of_sold, None);
    assert!(is_conflict(first.transition(&before, State::Received, update).await));
    let reserved = second.reservations().await.unwrap();
    assert_eq!(reserved.len(), 1, "{reserved:?}");
    assert!(reserved.iter().all(|one| one.lease == of_sold && one.demand == demand));
    assert_eq!(second.lease(&live.pod()).await.unwrap(), Some(live));
    second.check_state(&sold.id, State::Provisioning).await.unwrap();

    // Nor does it once it has the order back, which has ended meanwhile.
    let first_again = Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap();
    take_over(&first_again, &refused.id).await;
    let first_again = SqlStore::new(first_again);
    assert!(is_conflict(first_again.reserve_port(&of_refused, range()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_prepared_once_on_a_connection() {
    let server = server();
    let url = server.new_database().unwrap();
    let database = Database::postgres(&url, &[SqlStore::SCHEMA]).await.unwrap();
    let prepared = database.transact(|transaction| {
        for port in [22, 23] {
            let statement = "SELECT lease FROM ports WHERE port = ?1";
            transaction.query(statement, &[Value::Number(port)])?;
        }
        let count = "SELECT count(*) FROM pg_prepared_statements
             WHERE statement LIKE '%FROM ports WHERE port = $1'";
        let mut row = transaction.first(count, &[])?.expect("a count");
        Ok::<_, LedgerError>(row.number()?)
    });
    assert_eq!(prepared.await.unwrap(), 1);
}
