//! Bad input: each is refused with its own error_type over the real messages, and the token is
//! still spendable afterwards. (Quota and Pod Security are in `cluster.rs`: they take a real
//! cluster.)
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use paygress::sandbox::Sandbox;
use paygress_core::backend::policy::Slot;
use paygress_policy::{Source, Sources, Trigger, read_component};
use paygress_sandbox::token::relabelled;
use paygress_sandbox::{TestMint, TestWallet};
use serde_json::{Value, json};
use std::path::Path;
use support::customer::{Buyer, Running};

fn refused(answer: &Value, code: &str) {
    assert_eq!(answer["error_type"], code, "{answer}");
    assert!(
        answer["message"].as_str().is_some_and(|message| message.len() > 10),
        "it says what happened: {answer}"
    );
    assert!(answer.get("refund_token").is_none(), "nothing was taken, nothing is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_name_and_leaves_the_token_good() {
    // long: a table of refusals.
    let away = TestMint::start(0).await.unwrap();
    let away_wallet = TestWallet::new(away.url()).await.unwrap();
    away_wallet.fill(10).await.unwrap();
    let away_token = away_wallet.token(10).await.unwrap();
    let also = away.url().to_owned();
    drop(away);
    let sandbox = Sandbox::accepting(&also).await.unwrap();
    let app = sandbox.app().await.unwrap();
    let policies = std::sync::Arc::clone(&app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;

    refused(&buyer.ask(json!({"ssh_username": "alice"})).await, "invalid_token");
    refused(&buyer.ask(json!({"cashu_token": "cashuBgarbage"})).await, "invalid_token");
    refused(
        &buyer
            .ask(json!({"pod_name": "ssh-pod-unknown", "cashu_token": buyer.token(3).await}))
            .await,
        "not_found",
    );
    refused(&buyer.ask(json!({"cashu_token": away_token})).await, "mint_network_error");

    let foreign = TestMint::start(0).await.unwrap();
    let foreign_wallet = TestWallet::new(foreign.url()).await.unwrap();
    foreign_wallet.fill(10).await.unwrap();
    let foreign_token = foreign_wallet.token(10).await.unwrap();
    refused(&buyer.ask(json!({"cashu_token": foreign_token})).await, "non_whitelisted_mint");
    assert_eq!(foreign_wallet.receive(&foreign_token).await.unwrap(), 10);

    let token = buyer.token(10).await;
    let lookalike =
        relabelled(&token, &format!("{}@evil.example", sandbox.mint.url()), "sat").unwrap();
    refused(&buyer.ask(json!({"cashu_token": lookalike})).await, "non_whitelisted_mint");
    refused(
        &buyer
            .ask(json!({"cashu_token": relabelled(&token, sandbox.mint.url(), "usd").unwrap()}))
            .await,
        "unsupported_unit",
    );
    refused(
        &buyer.ask(json!({"cashu_token": token, "duration_minutes": 600})).await,
        "insufficient_payment",
    );
    refused(
        &buyer.ask(json!({"cashu_token": token, "pod_image": "docker.io/library/alpine:3"})).await,
        "image_not_allowed",
    );
    for username in ["root", "a;rm -rf /", "$(id)", "-oProxyCommand=x"] {
        refused(
            &buyer.ask(json!({"cashu_token": token, "ssh_username": username})).await,
            "invalid_request",
        );
    }
    refused(&buyer.ask(json!({"cashu_token": token, "tier": "galactic"})).await, "invalid_spec");
    refused(
        &buyer.ask(json!({"cashu_token": token, "ssh_public_key": "ssh-ed25519 AAAA"})).await,
        "invalid_request",
    );

    let hostile = read_component(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins-for-tests/hostile.wasm"),
    )
    .unwrap();
    policies
        .publish(&Sources::from([(Slot::Pricing, Source::plain(hostile))]), Trigger::Operator)
        .unwrap();
    for misdeed in ["panic", "spin", "allocate", "zero-seconds"] {
        refused(
            &buyer.ask(json!({"cashu_token": token, "tier": misdeed})).await,
            "policy_unavailable",
        );
    }

    // After all of that the same token is worth what it was.
    assert_eq!(buyer.wallet.receive(&token).await.unwrap(), 9);
    refused(&buyer.ask(json!({"cashu_token": token})).await, "token_already_spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_ports_are_leased_the_next_customer_keeps_the_token() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let sandbox =
        Sandbox::new(&[("SSH_PORT_RANGE_START", &port), ("SSH_PORT_RANGE_END", &port)], "")
            .await
            .unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let first = buyer.ask(json!({"cashu_token": buyer.token(5).await})).await;
    assert_eq!(first["ssh_port"].to_string(), port, "{first}");
    let token = buyer.token(5).await;
    let second = buyer.ask(json!({"cashu_token": token})).await;
    refused(&second, "resource_unavailable");
    assert_eq!(second["message"], "No available ports in the configured range");
    assert_eq!(buyer.wallet.receive(&token).await.unwrap(), 4);
}
