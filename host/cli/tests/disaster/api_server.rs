//! The API server is away for a while. What the real client makes of that is in
//! `cluster/api_server.rs`.

use crate::account::count;
use crate::customer::{Customer, pod_of, wait_for_orders};
use crate::pods::Trouble;
use crate::service::Installation;
use crate::support::customer::until;
use paygress_core::model::order::State;
use serde_json::Value;
use std::collections::BTreeSet;
use tokio::task::JoinHandle;

/// A sat buys five seconds.
const SETTINGS: &str =
    "[policy.duration]\nminimum_seconds = 5\n[policy.pricing]\nsats_per_hour = 720\n";
/// Longer than a paid order waits for a cluster that is away.
const TEN_MINUTES: i64 = 700;

/// The API server goes away while a pod that is paid is being started.
async fn caught(installation: &Installation, customer: &Customer, sat: u64) -> JoinHandle<Value> {
    let buying = customer.pay_and_wait(installation, sat).await;
    installation.pods.begin(Trouble::ApiServerAway);
    installation.pods.end(Trouble::Starting);
    buying
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_kept_and_orders_wait_or_are_refused_before_they_are_paid() {
    let installation = Installation::new(&[], SETTINGS).await;
    let service = installation.start().await;
    let customer = Customer::new(&installation).await;
    let kept = pod_of(&customer.buy(401).await);
    let caught = caught(&installation, &customer, 401).await;

    let token = customer.token(5).await;
    customer.buy_over_http(&service, &token).await.is(503, "backend_error");
    customer.assert_untouched(&token).await;
    service.wait_for_readyz(503).await;
    assert!(installation.pods.running().contains(&kept), "a pod was removed");
    assert_eq!(count(&installation, State::Active).await, 1);

    installation.pods.end(Trouble::ApiServerAway);
    let waited = pod_of(&caught.await.unwrap());
    service.wait_for_readyz(200).await;
    assert_eq!(installation.pods.running(), BTreeSet::from([kept, waited]));
    customer.account(&installation).await;
    println!("an API server away: 1 order refused before it was paid, 1 waited, 0 pods lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_is_recorded_when_the_api_server_is_back() {
    let installation = Installation::new(&[], SETTINGS).await;
    let _service = installation.start().await;
    let customer = Customer::new(&installation).await;
    pod_of(&customer.buy(3).await);
    installation.pods.begin(Trouble::ApiServerAway);
    until("the pod does not end", async || installation.pods.running().is_empty().then_some(()))
        .await;
    assert_eq!(count(&installation, State::Active).await, 1, "nobody knows that it has ended");
    installation.pods.end(Trouble::ApiServerAway);
    wait_for_orders(&installation, State::Ended, 1).await;
    customer.account(&installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_is_refunded_when_it_is_away_for_ten_minutes() {
    let installation = Installation::new(&[], "").await;
    let mut service = installation.start().await;
    let customer = Customer::new(&installation).await;
    let caught = caught(&installation, &customer, 101).await;
    service.set_clock(TEN_MINUTES).await;
    let answer = caught.await.unwrap();
    let refund = answer["refund_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let back = customer.buyer.wallet.receive(refund).await.unwrap();
    assert!((97..=101).contains(&back), "{back} of 101 sat");
    installation.pods.end(Trouble::ApiServerAway);
    customer.account(&installation).await;
    println!("{back} of 101 sat are back; the rest were the mint's fees");
}
