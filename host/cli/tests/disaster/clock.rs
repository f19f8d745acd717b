//! The clock of the service's machine is wrong by a month, in both directions, and right again.

use crate::account::orders;
use crate::customer::{Customer, pod_of, wait_for_orders};
use crate::service::{Installation, Service};
use crate::support::customer::until;
use paygress_core::model::order::{RefundEnd, State};
use paygress_core::protocol::RequestBody;
use serde_json::json;
use std::time::Duration;

const DAY: i64 = 86_400;
const MONTH: i64 = 31 * DAY;
/// Four sat buy as many seconds, and some more may have passed.
const SOLD: std::ops::RangeInclusive<u64> = 180..=241;
/// How long an answer is waited for that does not come.
const NO_ANSWER: Duration = Duration::from_secs(2);

async fn is_reclaimed(installation: &Installation) -> bool {
    let orders = orders(installation).await;
    let mut ends = orders.iter().filter_map(|order| order.state.refund()?.end());
    ends.any(|end| matches!(end, RefundEnd::Reclaimed(_)))
}

/// A pod that is sold now has the time that was sold, by the clock of its node.
async fn assert_sold(installation: &Installation, customer: &Customer, service: &Service) {
    let token = customer.token(5).await;
    let pod = pod_of(&customer.buy_over_http(service, &token).await.good());
    let left = installation.pods.seconds_left(&pod);
    assert!(SOLD.contains(&left), "{pod} runs for {left} s more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_by_a_month_loses_no_sat() {
    let installation = Installation::new(&[("REFUND_KEPT_DAYS", "30")], "").await;
    let service = installation.start().await;
    let customer = Customer::new(&installation).await;
    pod_of(&customer.buy(61).await);
    let stopped = pod_of(&customer.buy(31).await);
    let request = json!({"type": "stop", "pod_name": stopped});
    let answer = customer.buyer.ask(request).await;
    assert_eq!(answer["success"], true, "{answer}");
    service.kill_9().await;

    // A month ahead: leases are over, and the refund was kept for long enough.
    let service = installation.start_at(MONTH).await;
    wait_for_orders(&installation, State::Active, 0).await;
    until("the refund is not reclaimed", async || is_reclaimed(&installation).await.then_some(()))
        .await;
    assert_sold(&installation, &customer, &service).await;
    // Messages are older than those that are served.
    let token = customer.token(5).await;
    let request: RequestBody = serde_json::from_value(json!({"cashu_token": token})).unwrap();
    let (client, key) = (&customer.buyer.client, customer.buyer.service);
    assert!(client.ask(key, &request, NO_ANSWER, |_| ()).await.is_err(), "it was answered");
    customer.account(&installation).await;
    service.kill_9().await;

    // Right again: what nobody has answered is served, and what was sold runs.
    let service = installation.start().await;
    wait_for_orders(&installation, State::Active, 2).await;
    customer.account(&installation).await;
    service.kill_9().await;

    a_month_behind(&installation, &customer).await;
    let _service = installation.start().await;
    customer.account(&installation).await;
}

/// Messages are from the future.
async fn a_month_behind(installation: &Installation, customer: &Customer) {
    let service = installation.start_at(-MONTH).await;
    let token = customer.token(5).await;
    let refused = customer.buyer.ask(json!({"cashu_token": token})).await;
    assert_eq!(refused["error_type"], "invalid_request", "{refused}");
    customer.assert_untouched(&token).await;
    assert_sold(installation, customer, &service).await;
    service.kill_9().await;
}
