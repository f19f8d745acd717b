//! Receipts of each kind, verified and recomputed by a script that has no code in common with the
//! service: with nostr-tools and jco.

use super::{opened, run};
use crate::support::command::{built, paygress, printed, published, text};
use crate::support::customer::{Buyer, Running, app_on, until};
use crate::support::fake::FakeCluster;
use crate::support::testbed::root;
use crate::support::web::Web;
use paygress::sandbox::Sandbox;
use paygress_core::backend::receipt::ReceiptSigner;
use paygress_core::model::units::UnixTime;
use paygress_nostr::{Keys, ServiceReceipts, npub};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

/// The answers to a purchase, to more time and to a stop.
async fn answers(sandbox: &Sandbox, web: &Web) -> [Value; 3] {
    let buyer = Buyer::new(sandbox).await;
    let bought = web.spawn(json!({"cashu_token": buyer.token(9).await})).await.good();
    let (pod, bearer) = (&bought["pod_name"], bought["bearer_token"].as_str().unwrap());
    let authorization = format!("Bearer {bearer}");
    let headers = [("authorization", authorization.as_str())];
    let more = json!({"pod_name": pod, "cashu_token": buyer.token(5).await}).to_string();
    let extended = web.ask("POST", "/top-up-pod", &headers, &more).await.good();
    let pod = format!("/pods/{}", pod.as_str().unwrap());
    let stopped = web.ask("DELETE", &pod, &headers, "").await.good();
    [bought, extended, stopped]
}

/// Verifies an answer's receipt with the example, which has no code in common with the service.
async fn verify(sandbox: &Sandbox, answer: &Value, arguments: &[&str]) -> Output {
    let service = sandbox.config.keys.public_key().to_hex();
    verify_json(sandbox, &answer.to_string(), &service, arguments).await
}

async fn verify_json(sandbox: &Sandbox, json: &str, service: &str, arguments: &[&str]) -> Output {
    let file = sandbox.directory.path().join("answer.json");
    std::fs::write(&file, json).unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", "node"]).arg(root().join("examples/receipts/verify.mjs"));
    command.arg(&file).arg(service).args(arguments);
    run(command).await
}

/// Signs an answer's receipt anew, after a change of its order.
fn sign_changed(sandbox: &Sandbox, answer: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let content = answer["receipt"]["content"].as_str().unwrap();
    let mut content: Value = serde_json::from_str(content).unwrap();
    change(&mut content["orders"][0]);
    let signer = ServiceReceipts::new(sandbox.config.keys.clone());
    let mut changed = answer.clone();
    changed["receipt"] = json!(signer.sign(content.to_string(), UnixTime(7)).unwrap());
    changed
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn nostr_tools_verifies_receipts_and_names_what_is_wrong() {
    let (sandbox, _running, web) = opened(&[]).await;
    let [bought, extended, stopped] = answers(&sandbox, &web).await;
    for (answer, kind) in [(&bought, "access"), (&extended, "top_up"), (&stopped, "stop")] {
        let good = verify(&sandbox, answer, &[]).await;
        assert!(good.status.success(), "{kind}: {}", text(&good.stderr));
        let printed = text(&good.stdout);
        assert!(printed.starts_with(&format!("good: {kind} of ")), "{printed}");
        assert!(printed.contains("nothing was recomputed"), "{printed}");
    }
    let key = npub(&sandbox.config.keys.public_key());
    let by_npub = verify_json(&sandbox, &bought.to_string(), &key, &[]).await;
    assert!(by_npub.status.success(), "{}", text(&by_npub.stderr));
    is_refused(&sandbox, &bought.to_string(), "npub1x", "npub1x is not an npub").await;
    for answer in [&bought, &extended, &stopped] {
        what_is_not_the_services_is_refused(&sandbox, answer).await;
    }
    let service = sandbox.config.keys.public_key().to_hex();
    let other_terms = sign_changed(&sandbox, &bought, |order| {
        order["stop_terms"] = json!({"step": 60, "percent": 1});
    });
    is_refused(&sandbox, &other_terms.to_string(), &service, "stop_terms").await;
    a_refund_of_too_little_is_refused(&sandbox, &stopped).await;
}

/// Of a sat less than is due, and of nothing.
async fn a_refund_of_too_little_is_refused(sandbox: &Sandbox, answer: &Value) {
    let service = sandbox.config.keys.public_key().to_hex();
    let less = sign_changed(sandbox, answer, |order| {
        for field in ["due", "amount"] {
            let sats = order["refund"][field].as_u64().unwrap();
            order["refund"][field] = json!(sats.checked_sub(1).unwrap());
        }
    });
    let none = sign_changed(sandbox, answer, |order| order["refund"] = Value::Null);
    for answer in [less, none] {
        is_refused(sandbox, &answer.to_string(), &service, "refund.due: the receipt has ").await;
    }
}

/// A receipt that is forged, truncated, or another service's.
async fn what_is_not_the_services_is_refused(sandbox: &Sandbox, answer: &Value) {
    let service = sandbox.config.keys.public_key().to_hex();
    let other = Keys::generate().public_key().to_hex();
    let mut forged = answer.clone();
    forged["receipt"]["created_at"] = json!(1);
    let whole = answer.to_string();
    for (json, service, reason) in [
        (forged.to_string().as_str(), &service, "its id or its signature is forged"),
        (&whole[..whole.len() / 2], &service, "it is not JSON"),
        (whole.as_str(), &other, "another key than the service's"),
    ] {
        is_refused(sandbox, json, service, reason).await;
    }
}

async fn is_refused(sandbox: &Sandbox, json: &str, service: &str, reason: &str) {
    let refused = verify_json(sandbox, json, service, &[]).await;
    let reasons = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{reason}: {reasons}");
    assert!(refused.stdout.is_empty() && reasons.contains(reason), "{reason}: {reasons}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn jco_recomputes_a_receipt_and_names_what_differs() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let components = published(&sandbox, &app.policies);
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    // The receipt of the stop has both orders: the one of the pod, and the one of more time.
    let [bought, _, stopped] = answers(&sandbox, &web).await;
    let recomputed = ["--components", &components];
    let good = verify(&sandbox, &stopped, &recomputed).await;
    assert!(good.status.success(), "{}", text(&good.stderr));
    let printed = text(&good.stdout);
    assert!(printed.contains("image, price, time and refund terms were recomputed"), "{printed}");

    // As in a cluster whose nodes are watched.
    let with_nodes = sign_changed(&sandbox, &bought, |order| {
        let utilisation = json!({"cpu_per_mille": 750, "memory_per_mille": 100});
        order["decision"]["context"]["utilisation"] = utilisation;
    });
    let good = verify(&sandbox, &with_nodes, &recomputed).await;
    assert!(good.status.success(), "{}", text(&good.stderr));

    for answer in [&bought, &stopped] {
        what_differs_is_named(&sandbox, answer, &components).await;
    }

    let other = Path::new(&components).join("pricing.wasm");
    std::fs::copy(built("plugins/duration.wasm"), other).unwrap();
    let refused = text(&verify(&sandbox, &bought, &recomputed).await.stderr);
    assert!(refused.contains("not recomputed: pricing.wasm has not the SHA-256"), "{refused}");
}

/// Of a receipt that the service has signed with another price, another time and other refund
/// terms, these fields, as the program names them.
async fn what_differs_is_named(sandbox: &Sandbox, answer: &Value, components: &str) {
    let changed = &sign_changed(sandbox, answer, |order| {
        let decision = &mut order["decision"];
        for field in [&["quote", "price", "msat"][..], &["grant", "seconds"]] {
            let value = field.iter().fold(&mut *decision, |value, name| &mut value[*name]);
            *value = json!(value.as_u64().unwrap().saturating_mul(3));
        }
        decision["refund"]["percent"] = json!(1);
        order["stop_terms"] = order["decision"]["refund"].clone();
        // Or what is due would differ too.
        for field in ["used", "served_until"] {
            order.as_object_mut().unwrap().remove(field);
        }
    });
    let signed = verify(sandbox, changed, &[]).await;
    assert!(signed.status.success(), "the service has signed that: {}", text(&signed.stderr));
    let output = verify(sandbox, changed, &["--components", components]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    // Each begins with the order.
    let lines = text(&output.stderr);
    let found: Vec<&str> =
        lines.lines().filter_map(|line| line.split_once(": ")).map(|(_, found)| found).collect();
    let [price, time, terms] = found.as_slice() else { panic!("{lines}") };
    assert!(price.starts_with("decision.quote.price.msat: the receipt has "), "{lines}");
    assert!(time.starts_with("decision.grant.seconds: the receipt has "), "{lines}");
    assert_eq!(*terms, "decision.refund.percent: the receipt has 1, and must have 100");
    let file = sandbox.directory.path().join("answer.json").to_string_lossy().into_owned();
    let by_program = ["receipt", "verify", &file, "--components", components];
    let by_program = text(&paygress(sandbox, &by_program).await.stdout);
    let expected = by_program.lines().filter(|line| line.contains("must have")).map(str::trim);
    assert_eq!(found, expected.collect::<Vec<_>>(), "{by_program}");
}

/// The answer to an order that was paid for, and whose image no node can pull; and the components.
async fn refusal(sandbox: &Sandbox) -> (Value, String) {
    let cluster = FakeCluster::without_images(&["paygress.local/ssh:1"]);
    let app = app_on(sandbox, cluster).await;
    let components = published(sandbox, &app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(sandbox).await;
    let refused = buyer.ask(json!({"cashu_token": buyer.token(9).await})).await;
    assert!(refused["refund_token"].is_string(), "{refused}");
    (refused, components)
}

/// The answer to an order whose pod the operator has ended since; and the components.
async fn lost(sandbox: &Sandbox) -> (Value, String) {
    let app = sandbox.app().await.unwrap();
    let components = published(sandbox, &app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(sandbox).await;
    let token = buyer.token(9).await;
    let bought = buyer.ask(json!({"cashu_token": token})).await;
    let pod = bought["pod_name"].as_str().unwrap_or_else(|| panic!("{bought}"));
    printed(sandbox, &["lease", "end", pod]).await;
    until("nothing is paid back", async || {
        let status = buyer.ask(json!({"type": "status", "pod_name": pod})).await;
        status["refund_token"].is_string().then_some(())
    })
    .await;
    // The same order, and another message even within the same second.
    let order = json!({"cashu_token": token, "ssh_password": "of the same order"});
    (buyer.ask(order).await, components)
}

async fn is_recomputed(sandbox: &Sandbox, kind: &str, (answer, components): &(Value, String)) {
    let good = verify(sandbox, answer, &["--components", components]).await;
    let printed = text(&good.stdout);
    assert!(good.status.success(), "{kind}: {}", text(&good.stderr));
    assert!(printed.starts_with(&format!("good: {kind} of ")), "{printed}");
    assert!(printed.contains("image, price, time and refund terms were recomputed"), "{printed}");
    what_differs_is_named(sandbox, answer, components).await;
    what_is_not_the_services_is_refused(sandbox, answer).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn jco_recomputes_the_receipt_of_a_refusal() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    is_recomputed(&sandbox, "refusal", &refusal(&sandbox).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn jco_recomputes_the_receipt_of_a_pod_that_was_lost() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let lost = lost(&sandbox).await;
    is_recomputed(&sandbox, "lost", &lost).await;
    a_refund_of_too_little_is_refused(&sandbox, &lost.0).await;
}
