//! What only replicas can show.

use crate::support::{open, order, replica, server};
use paygress_core::backend::store::{LeaseUpdate, LedgerError, MessageLog, OrderStore, Reporting};
use paygress_core::model::order::State;
use paygress_core::model::units::UnixTime;
use paygress_core::testing;
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
    assert!(first.claim_message("message", UnixTime(1)).await.unwrap());
    assert!(second.unfinished().await.unwrap().is_empty(), "its replica lives");
    assert!(!second.claim_message("message", UnixTime(1)).await.unwrap());
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
    assert!(second.claim_message("message", UnixTime(1)).await.unwrap(), "and so is its message");
}
