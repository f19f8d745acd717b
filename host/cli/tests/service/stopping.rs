//! The service is stopped as by SIGTERM: who waits is answered, and their order goes on.

use crate::recovery::{broken_until, furnished};
use crate::support::customer::{TIMEOUT, until};
use crate::support::web::Web;
use http_body_util::BodyExt;
use paygress::sandbox::Sandbox;
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use paygress_core::orders::order_named;
use paygress_core::protocol::Response;
use paygress_sandbox::TestWallet;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_order_that_takes_longer_gets_where_it_goes_on() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hanging = broken_until(Arc::clone(&go), None);
    let app = furnished(&sandbox, |backends| hanging(backends, Arc::clone(&reached))).await;
    let (web, orders) = (Web::new(app.http_address().unwrap()), Arc::clone(&app.orders));
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(app.run_until(stopped));
    let wallet = TestWallet::new(sandbox.mint.url()).await.unwrap();
    wallet.fill(1_000).await.unwrap();
    let bearer = "b".repeat(40);
    let (buyer, authorization) = (web.clone(), format!("Bearer {bearer}"));
    let body = json!({"cashu_token": wallet.token(5).await.unwrap()}).to_string();
    let of_buyer = authorization.clone();
    let waiting = tokio::spawn(async move {
        let headers = [("authorization", of_buyer.as_str())];
        buyer.ask("POST", "/spawn-pod", &headers, &body).await
    });
    timeout(TIMEOUT, reached.notified()).await.expect("its pod is launched");
    let pods = web.get("/pods", &bearer).await.good();
    let events = format!("/pods/{}/events", pods["pods"][0]["pod_name"].as_str().unwrap());
    let events = web.open("GET", &events, &[("authorization", &authorization)], "").await;
    assert_eq!(events.status(), 200);

    stop.send_replace(true);
    let events = timeout(TIMEOUT, events.into_body().collect()).await;
    events.expect("the stream ends").expect("it is not cut");
    let ready = until("/readyz does not know of it", async || {
        let ready = web.ask("GET", "/readyz", &[], "").await;
        ready.body.contains("the service is stopping").then_some(ready)
    })
    .await;
    assert_eq!(ready.status, 503);
    assert!(!waiting.is_finished() && !served.is_finished(), "the order has some time left");
    let answer = timeout(TIMEOUT, waiting).await.expect("it is answered").unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.headers["connection"], "close");
    let order = answer.json();
    let id = order["order_id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("/orders/{id}"));
    timeout(TIMEOUT, served).await.expect("the service ends").unwrap().unwrap();

    go.notify_one();
    let (id, customer) =
        (order_named(id.to_owned()).unwrap(), Customer::of_bearer(&Secret::new(bearer)));
    let response = timeout(TIMEOUT, orders.wait_response(&id, &customer)).await;
    let response = response.expect("the order goes on").unwrap();
    assert!(matches!(response, Response::Access(_)), "it has no pod");
}
