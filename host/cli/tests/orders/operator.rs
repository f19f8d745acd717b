//! What the operator does while orders are served: sales that pause, and leases that end.

use crate::support::customer::until;
use crate::support::fake::{
    FakeBackends, FakeCluster, FakeWallet, Generous, NullResponder, new_order, settings, spawn,
};
use paygress_core::backend::cluster::EndReason;
use paygress_core::backend::store::{LeaseStates, LeaseStore, OrderStore, Reporting, SalesStore};
use paygress_core::model::ids::Customer;
use paygress_core::model::order::{LeaseState, Order, Purchase, State};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::sales::Sales;
use paygress_core::model::units::Sat;
use paygress_core::orders::{Backends, LeaseQuery, OrderService};
use paygress_store::SqlStore;
use serde_json::Value;
use std::sync::Arc;
use tempfile::TempDir;

async fn fakes() -> (FakeBackends, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (FakeBackends::new(directory.path(), Arc::new(Generous)).await, directory)
}

/// Another process on the same ledger.
fn restarted(ledger: &Arc<SqlStore>) -> Arc<OrderService> {
    let backends = Backends {
        wallet: Arc::new(FakeWallet),
        policy: Arc::new(Generous),
        cluster: Arc::new(FakeCluster::default()).into(),
        ledger: ledger.clone(),
        responder: Arc::new(NullResponder),
    };
    OrderService::new(settings(), backends)
}

fn pod_of(answer: &Value) -> &str {
    answer["pod_name"].as_str().unwrap_or_else(|| panic!("not sold: {answer}"))
}

/// The only lease, and the order that made it.
async fn sold(fakes: &FakeBackends) -> (paygress_core::model::order::Lease, Order) {
    let lease = fakes.ledger.live_leases(None).await.unwrap().remove(0);
    let order = fakes.ledger.orders_of(&lease.id).await.unwrap().remove(0);
    (lease, order)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sold_is_refused_before_anything_is_taken() {
    let (fakes, _directory) = fakes().await;
    let running = fakes.order(10, spawn(None, None)).await;
    pod_of(&running);
    let (lease, _) = sold(&fakes).await;
    let more = || Purchase::TopUp { pod: lease.pod() };
    let is_refused = |answer: &Value| answer["error_type"] == "resource_unavailable";

    fakes.orders.set_sales(Sales::Paused).await.unwrap();
    let refused = fakes.order(10, spawn(None, None)).await;
    assert!(is_refused(&refused), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("your token was not taken"));
    assert!(refused.get("refund_token").is_none(), "{refused}");
    let price = fakes.orders.price(&spawn(None, None), None, None).await;
    assert_eq!(price.unwrap_err().code, ErrorType::ResourceUnavailable, "nobody is sent to a mint");
    let extended = fakes.order(10, more()).await;
    assert_eq!(extended["success"], true, "{extended}");

    fakes.orders.set_sales(Sales::Draining).await.unwrap();
    for purchase in [spawn(None, None), more()] {
        let refused = fakes.order(10, purchase).await;
        assert!(is_refused(&refused), "{refused}");
    }
    let orders = fakes.ledger.page(None, 100).await.unwrap();
    let refused = orders.iter().filter(|order| order.state() == State::Refused);
    assert!(refused.clone().all(|order| order.state.redeemed().is_none()));
    assert_eq!(refused.count(), 3);

    fakes.orders.set_sales(Sales::Open).await.unwrap();
    pod_of(&fakes.order(10, spawn(None, None)).await);
}

/// Another replica has the same ledger, too.
#[tokio::test(flavor = "multi_thread")]
async fn sales_stay_paused_in_another_process() {
    let (fakes, _directory) = fakes().await;
    assert_eq!(fakes.ledger.sales().await.unwrap(), Sales::Open);
    fakes.orders.set_sales(Sales::Paused).await.unwrap();
    let other = restarted(&fakes.ledger);
    assert_eq!(other.sales().await.unwrap(), Sales::Paused);
    let customer = Customer::parse(&"c".repeat(64)).unwrap();
    let incoming = new_order(customer, "10-77".to_owned(), spawn(None, None));
    let answer = other.submit(incoming).await.unwrap().answer().await.unwrap();
    assert_eq!(answer.error().unwrap().error_type, ErrorType::ResourceUnavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sold_before_is_answered_again_while_sales_pause() {
    let (fakes, _directory) = fakes().await;
    let customer = Customer::parse(&"c".repeat(64)).unwrap();
    let incoming = new_order(customer, "10-78".to_owned(), spawn(None, None));
    let again = incoming.clone();
    let first = fakes.orders.submit(incoming).await.unwrap().answer().await.unwrap();
    fakes.orders.set_sales(Sales::Draining).await.unwrap();
    let second = fakes.orders.submit(again).await.unwrap().answer().await.unwrap();
    assert!(first.error().is_none() && second.error().is_none(), "{second:?}");
}

/// All that is left goes back: ten minutes for 10 sat, of which a moment is used.
async fn check_paid_back(fakes: &FakeBackends, order: &Order) {
    let ended = until("it is not paid back", async || {
        let order = fakes.ledger.order(&order.id).await.unwrap().unwrap();
        (order.state() == State::Refunded).then_some(order)
    })
    .await;
    let due = ended.state.refund_due().unwrap();
    assert!((Sat(9)..=Sat(10)).contains(&due), "{due}");
    let refusal = ended.state.refusal().unwrap();
    assert_eq!(refusal.end_reason, Some(EndReason::EndedByOperator), "{refusal}");
    let lease = fakes.ledger.lease(&ended.pod()).await.unwrap().unwrap();
    assert_eq!((lease.state, lease.end), (LeaseState::Ended, Some(EndReason::EndedByOperator)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_the_operator_ends_is_paid_back_once() {
    let (fakes, _directory) = fakes().await;
    pod_of(&fakes.order(10, spawn(None, None)).await);
    let (lease, order) = sold(&fakes).await;
    let ended = fakes.orders.end_lease(&lease.pod()).await.unwrap();
    assert_eq!(ended.end_reason, Some(EndReason::EndedByOperator));
    assert!((9..=10).contains(&ended.refunded_sats), "{ended:?}");
    check_paid_back(&fakes, &order).await;
    assert_eq!(fakes.orders.end_lease(&lease.pod()).await.unwrap(), ended, "the same again");
    // A customer who stops it now learns why it ended, and gets what was made.
    let stopped = fakes.orders.stop(&lease.pod(), lease.customer.as_ref().unwrap()).await.unwrap();
    assert_eq!(stopped.end_reason, Some(EndReason::EndedByOperator));
    let unknown = paygress_core::orders::pod_named("ssh-pod-aaaaaaaaaa".to_owned()).unwrap();
    let unknown = fakes.orders.end_lease(&unknown).await.unwrap_err();
    assert_eq!(unknown.code, ErrorType::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_a_process_has_only_written_down_is_carried_out_by_the_next_one() {
    let (fakes, _directory) = fakes().await;
    pod_of(&fakes.order(10, spawn(None, None)).await);
    let (lease, order) = sold(&fakes).await;
    fakes.ledger.mark_ending(&lease.pod(), EndReason::EndedByOperator.into()).await.unwrap();
    let refused = fakes.order(10, Purchase::TopUp { pod: lease.pod() }).await;
    assert_eq!(refused["error_type"], "lease_expired", "nobody pays for what is ending");
    let watching = tokio::spawn(restarted(&fakes.ledger).watch());
    check_paid_back(&fakes, &order).await;
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_every_lease_once_page_by_page() {
    let (fakes, _directory) = fakes().await;
    for _ in 0..7 {
        pod_of(&fakes.order(10, spawn(Some("small"), None)).await);
    }
    pod_of(&fakes.order(10, spawn(Some("large"), None)).await);
    let (ended, _) = sold(&fakes).await;
    fakes.orders.end_lease(&ended.pod()).await.unwrap();
    let search = async |mut query: LeaseQuery| {
        let mut pods = Vec::new();
        loop {
            let found = fakes.orders.find_leases(&query).await.unwrap();
            assert!(found.leases.len() <= query.limit);
            pods.extend(found.leases.iter().map(|lease| lease.pod().to_string()));
            match found.next {
                Some(next) => query.after = Some(next),
                None => return pods,
            }
        }
    };
    let all = |states| LeaseQuery { states, limit: 3, ..LeaseQuery::default() };
    let pods = search(all(LeaseStates::All)).await;
    let distinct: std::collections::BTreeSet<_> = pods.iter().collect();
    assert_eq!((pods.len(), distinct.len()), (8, 8));
    assert_eq!(search(all(LeaseStates::Current)).await.len(), 7);
    assert_eq!(search(all(LeaseStates::Ended)).await, [ended.pod().to_string()]);
    let large = LeaseQuery { tier: Some("large".to_owned()), ..all(LeaseStates::All) };
    assert_eq!(search(large).await.len(), 1);
    let text = Some(pods[0][8..].to_uppercase());
    assert_eq!(search(LeaseQuery { text, ..all(LeaseStates::All) }).await, pods[..1]);
}
