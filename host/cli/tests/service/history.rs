//! Policies that decide by what a customer has ordered before, in a running service.

use super::policy::bought;
use crate::support::command::{built, printed};
use crate::support::customer::{Buyer, Running};
use paygress::sandbox::Sandbox;
use serde_json::{Value, json};

/// Makes an example the duration policy.
async fn set_duration(sandbox: &Sandbox, example: &str, settings: &Value) {
    let path = sandbox.directory.path().join(format!("{example}.json"));
    std::fs::write(&path, settings.to_string()).unwrap();
    let component = built(&format!("plugins-examples/{example}.wasm"));
    let settings = format!("duration={}", path.display());
    printed(sandbox, &["policy", "swap", "duration", &component, "--settings", &settings]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_at_the_same_time_do_not_spend_a_budget_twice() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let (buyer, other) = (Buyer::new(&sandbox).await, Buyer::new(&sandbox).await);
    // Two tokens of 11 sat, which are 10 after the mint's fee.
    set_duration(&sandbox, "daily-budget", &json!({"sat_per_day": 25})).await;
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(json!({"cashu_token": buyer.token(11).await}));
    }
    let ask = |number: usize| buyer.ask(requests[number].clone());
    let (first, second, third) = tokio::join!(ask(0), ask(1), ask(2));
    let answers = [first, second, third];
    let mut sold = answers.iter().filter(|answer| answer["expires_at"].is_string()).count();
    assert!(sold <= 2, "{answers:?}");
    // Those that have seen each other may all have been refused.
    while sold < 2 {
        assert_eq!(bought(&buyer, 11).await, 10);
        sold = sold.saturating_add(1);
    }
    let answer = buyer.ask(json!({"cashu_token": buyer.token(11).await})).await;
    assert_eq!(answer["error_type"], "resource_unavailable", "{answer}");
    let message = answer["message"].as_str().unwrap();
    let left = "25 sat in 24 hours; 5 sat are left, and this token is worth 10 sat";
    assert!(message.contains(left) && message.contains("more is left in 2"), "{message}");
    assert_eq!(bought(&other, 11).await, 10, "a budget is one customer's");
}

#[tokio::test(flavor = "multi_thread")]
async fn free_time_comes_with_the_first_order_of_a_key() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let (buyer, other) = (Buyer::new(&sandbox).await, Buyer::new(&sandbox).await);
    set_duration(&sandbox, "first-hour", &json!({})).await;
    for expected in [70, 10, 10] {
        assert_eq!(bought(&buyer, 11).await, expected);
    }
    assert_eq!(bought(&other, 11).await, 70);
}
