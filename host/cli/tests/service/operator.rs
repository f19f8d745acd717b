//! What an operator does with leases and sales of a running service: with the program, over the
//! admin socket; and what they see of the time before a restart.

use crate::support::command::{paygress, printed, text};
use crate::support::customer::{Buyer, Running, until};
use crate::support::web::Web;
use paygress::sandbox::Sandbox;
use serde_json::json;

const OPERATOR: &str = "a token of the operator of this test";

/// What the hours of a day have together: orders, leases that began, and sats.
async fn history(web: &Web) -> [i64; 3] {
    let history = web.get("/operator/history?days=1", OPERATOR).await.good();
    let hours = history["hours"].as_array().unwrap();
    ["orders", "leases_begun", "earned_sats"]
        .map(|field| hours.iter().map(|hour| hour[field].as_i64().unwrap()).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_sales_beyond_a_restart_and_ends_a_lease() {
    let sandbox = Sandbox::new(&[("OPERATOR_TOKEN", OPERATOR)], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(20).await})).await;
    let pod = bought["pod_name"].as_str().unwrap();
    assert_eq!(printed(&sandbox, &["sales", "status"]).await.trim(), "sales: open");
    assert_eq!(printed(&sandbox, &["sales", "pause"]).await.trim(), "sales: paused");
    let before = history(&web).await;
    assert!(before[..2] == [1, 1] && before[2] > 0, "{before:?}");
    drop(running);
    // What is dropped takes a moment to release its files and its socket.
    let app = until("the service does not start again", async || sandbox.app().await.ok()).await;
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    assert_eq!(history(&web).await, before, "it is in the ledger");
    assert_eq!(printed(&sandbox, &["sales", "status"]).await.trim(), "sales: paused");
    let token = buyer.token(5).await;
    let refused = buyer.ask(json!({"cashu_token": token})).await;
    assert_eq!(refused["error_type"], "resource_unavailable", "{refused}");
    assert!(buyer.wallet.receive(&token).await.unwrap() > 0, "it was not taken");
    assert_eq!(printed(&sandbox, &["sales", "drain"]).await.trim(), "sales: draining");
    let more = json!({"cashu_token": buyer.token(5).await, "pod_name": pod});
    assert_eq!(buyer.ask(more).await["error_type"], "resource_unavailable");
    assert_eq!(printed(&sandbox, &["sales", "resume"]).await.trim(), "sales: open");

    let ended = printed(&sandbox, &["lease", "end", pod]).await;
    assert!(
        ended.starts_with(&format!("{pod} has ended (ended-by-operator); due to its customers: "))
            && ended.ends_with(" sat, and the mint's fees where you bear them\n"),
        "{ended}"
    );
    let status = buyer.ask(json!({"type": "status", "pod_name": pod})).await;
    assert_eq!(
        (status["status"].as_str(), status["end_reason"].as_str()),
        (Some("ended"), Some("ended-by-operator")),
        "{status}"
    );
    let unknown = paygress(&sandbox, &["lease", "end", "ssh-pod-aaaaaaaaaa"]).await;
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("not_found"));
}
