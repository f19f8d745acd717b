//! Bad input: each is refused with its own error_type over the real messages, and the token is
//! still spendable afterwards. (Quota and Pod Security are in `cluster/`: they take a real
//! cluster.)

use crate::support::customer::{Buyer, Running};
use paygress::sandbox::Sandbox;
use paygress_core::backend::policy::Slot;
use paygress_policy::{Publisher, Source, Sources, Trigger, read_component};
use paygress_sandbox::token::relabelled;
use paygress_sandbox::{TestMint, TestWallet, free_port};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

fn refused(answer: &Value, code: &str) {
    assert_eq!(answer["error_type"], code, "{answer}");
    assert!(
        answer["message"].as_str().is_some_and(|message| message.len() > 10),
        "it says what happened: {answer}"
    );
    assert!(answer.get("refund_token").is_none(), "nothing was taken, nothing is given back");
}

/// A wallet of this mint, and a token of it.
async fn ten_sat(mint: &TestMint) -> (TestWallet, String) {
    let wallet = TestWallet::new(mint.url()).await.unwrap();
    wallet.fill(10).await.unwrap();
    let token = wallet.token(10).await.unwrap();
    (wallet, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_name_and_leaves_the_token_good() {
    let (away, foreign) = (TestMint::start(0).await.unwrap(), TestMint::start(0).await.unwrap());
    let (_, away_token) = ten_sat(&away).await;
    let (foreign_wallet, foreign_token) = ten_sat(&foreign).await;
    let sandbox = Sandbox::accepting(away.url()).await.unwrap();
    drop(away);
    let app = sandbox.app().await.unwrap();
    let policies = Arc::clone(&app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let (token, small) = (buyer.token(10).await, buyer.token(3).await);
    let mint = sandbox.mint.url();
    let lookalike = relabelled(&token, &format!("{mint}@evil.example"), "sat").unwrap();
    let dollars = relabelled(&token, mint, "usd").unwrap();
    for (request, code) in [
        (json!({"ssh_username": "alice"}), "invalid_token"),
        (json!({"cashu_token": "cashuBgarbage"}), "invalid_token"),
        (json!({"pod_name": "ssh-pod-unknown", "cashu_token": small}), "not_found"),
        (json!({"cashu_token": away_token}), "mint_network_error"),
        (json!({"cashu_token": foreign_token}), "non_whitelisted_mint"),
        (json!({"cashu_token": lookalike}), "non_whitelisted_mint"),
        (json!({"cashu_token": dollars}), "unsupported_unit"),
        (json!({"cashu_token": token, "duration_minutes": 600}), "insufficient_payment"),
        (
            json!({"cashu_token": token, "pod_image": "docker.io/library/alpine:3"}),
            "image_not_allowed",
        ),
        (json!({"cashu_token": token, "ssh_username": "root"}), "invalid_request"),
        (json!({"cashu_token": token, "ssh_username": "a;rm -rf /"}), "invalid_request"),
        (json!({"cashu_token": token, "ssh_username": "$(id)"}), "invalid_request"),
        (json!({"cashu_token": token, "ssh_username": "-oProxyCommand=x"}), "invalid_request"),
        (json!({"cashu_token": token, "tier": "galactic"}), "invalid_spec"),
        (json!({"cashu_token": token, "run": "everything"}), "invalid_request"),
        // The sandbox's pods have no image.
        (json!({"cashu_token": token, "run": "image"}), "invalid_request"),
        (json!({"cashu_token": token, "ssh_public_key": "ssh-ed25519 AAAA"}), "invalid_request"),
        (json!({"cashu_token": token, "ssh_public_key": "ssh-rsa AAAA"}), "invalid_request"),
    ] {
        refused(&buyer.ask(request).await, code);
    }
    assert_eq!(foreign_wallet.receive(&foreign_token).await.unwrap(), 10);
    by_a_hostile_policy(&policies, &buyer, &token).await;

    // After all of that the same token is worth what it was.
    assert_eq!(buyer.wallet.receive(&token).await.unwrap(), 9);
    refused(&buyer.ask(json!({"cashu_token": token})).await, "token_already_spent");
}

async fn by_a_hostile_policy(policies: &Publisher, buyer: &Buyer, token: &str) {
    let path = "../../target/plugins-for-tests/hostile.wasm";
    let hostile = read_component(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let sources = Sources::from([(Slot::Pricing, Source::plain(hostile))]);
    policies.publish(&sources, Trigger::Operator).unwrap();
    for misdeed in ["panic", "spin", "allocate", "zero-seconds"] {
        let answer = buyer.ask(json!({"cashu_token": token, "tier": misdeed})).await;
        refused(&answer, "policy_unavailable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_ports_are_leased_the_next_customer_keeps_the_token() {
    let port = free_port().unwrap().to_string();
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
