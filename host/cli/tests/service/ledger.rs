//! What a customer gets back, and what an operator sees of it: stopping, pods that the cluster
//! lost, the ledger, the wallet.

use crate::support::command::{paygress, printed, text};
use crate::support::customer::{Buyer, Running, TIMEOUT};
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::backend::cluster::PodRemover;
use paygress_core::model::ids::PodName;
use paygress_core::model::units::Sat;
use paygress_sandbox::TestMint;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_leaves_what_a_running_pod_may_be_refunded() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let (wallet, ledger) = (Arc::clone(&app.wallet), Arc::clone(&app.ledger));
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(900).await})).await;
    assert!(bought["pod_name"].is_string(), "{bought}");
    let bank = TestMint::start(0).await.unwrap();
    let address = bank.lightning_address().await.unwrap();
    assert_eq!(wallet.pay_out(&*ledger, &address, Sat(100)).await.unwrap(), []);
    let stopped = buyer.ask(json!({"type": "stop", "pod_name": bought["pod_name"]})).await;
    assert!(stopped["refunded_sats"].as_u64().is_some_and(|sat| sat > 880), "{stopped}");
}

/// The refund in the status of a pod, as soon as there is one. (The same text in the same second
/// are the same message, and are answered once.)
async fn refund_of(buyer: &Buyer, pod: &str) -> Value {
    let begun = Instant::now();
    for n in 0.. {
        let status = buyer.ask(json!({"type": "status", "pod_name": pod, "n": n})).await;
        if status["refund_token"].is_string() {
            return status;
        }
        assert!(begun.elapsed() < TIMEOUT, "no refund: {status}");
    }
    unreachable!("numbers have no end")
}

fn listens(bought: &Value) -> bool {
    let port = u16::try_from(bought["ssh_port"].as_u64().unwrap()).unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Has the ledger's file list the states of orders as they are written from now on.
fn list_written_states(sandbox: &Sandbox) -> rusqlite::Connection {
    let ledger = rusqlite::Connection::open(&sandbox.config.ledger).unwrap();
    ledger.busy_timeout(TIMEOUT).unwrap();
    let list = "CREATE TABLE written (state TEXT NOT NULL);
         CREATE TRIGGER written_first AFTER INSERT ON orders
         BEGIN INSERT INTO written VALUES (NEW.state); END;
         CREATE TRIGGER written_again AFTER UPDATE OF state ON orders
         BEGIN INSERT INTO written VALUES (NEW.state); END;";
    ledger.execute_batch(list).unwrap();
    ledger
}

/// Those since the last call.
fn written_states(ledger: &rusqlite::Connection) -> Vec<String> {
    let mut select = ledger.prepare("SELECT state FROM written ORDER BY rowid").unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    let states = rows.map(Result::unwrap).collect();
    ledger.execute("DELETE FROM written", []).unwrap();
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_written_once_before_each_effect() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let ledger = list_written_states(&sandbox);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(5).await})).await;
    let pod = bought["pod_name"].as_str().unwrap_or_else(|| panic!("{bought}"));
    // Before the swap, the launch, the deadline, and the answer.
    let of_spawn = ["received", "decided", "redeeming", "provisioning", "provisioning", "active"];
    assert_eq!(written_states(&ledger), of_spawn);
    let more = buyer.ask(json!({"pod_name": pod, "cashu_token": buyer.token(3).await})).await;
    assert_eq!(more["success"], true, "{more}");
    let of_top_up = ["received", "decided", "redeeming", "provisioning", "active"];
    assert_eq!(written_states(&ledger), of_top_up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_pod_is_refunded_by_the_minute() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(21).await})).await;
    let pod = bought["pod_name"].as_str().unwrap();
    let more = buyer.ask(json!({"pod_name": pod, "cashu_token": buyer.token(11).await})).await;
    assert_eq!(more["success"], true, "{more}");
    let request = json!({"type": "stop", "pod_name": pod});
    let other = Buyer::new(&sandbox).await;
    assert_eq!(other.ask(request.clone()).await["error_type"], "not_owner");
    let before = buyer.wallet.balance().await.unwrap();
    let stopped = buyer.ask(request).await;
    assert_eq!(
        (stopped["type"].as_str(), stopped["success"].as_bool()),
        (Some("stop_response"), Some(true)),
        "{stopped}"
    );
    // 20 and 10 minutes were sold, and not a whole one was used.
    let back =
        stopped["refunded_sats"].as_u64().unwrap() + stopped["refund_fee_sats"].as_u64().unwrap();
    assert!((29..=30).contains(&back), "{stopped}");
    let tokens = stopped["refund_tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 2, "one for each order");
    assert_eq!(
        buyer.ask(json!({"type": "stop", "pod_name": pod, "n": 2})).await,
        stopped,
        "a repeated request gets the same response"
    );
    assert!(!listens(&bought));
    let status = buyer.ask(json!({"type": "status", "pod_name": pod})).await;
    assert_eq!(
        (&status["status"], &status["refund_tokens"]),
        (&json!("ended"), &stopped["refund_tokens"]),
        "{status}"
    );
    for token in tokens {
        buyer.wallet.receive(token.as_str().unwrap()).await.unwrap();
    }
    assert!(
        buyer.wallet.balance().await.unwrap() >= before + back - 4,
        "what is missing are the mint's fees"
    );
    assert!(printed(&sandbox, &["ledger", "audit"]).await.contains("every sat is accounted for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_does_not_grant_it_keeps_the_rest() {
    let sandbox = Sandbox::new(&[("REFUND_ON_STOP", "false")], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(21).await})).await;
    let stopped = buyer.ask(json!({"type": "stop", "pod_name": bought["pod_name"]})).await;
    assert_eq!(
        (&stopped["success"], &stopped["refunded_sats"]),
        (&json!(true), &json!(0)),
        "{stopped}"
    );
    assert_eq!(stopped["message"], "stopped; nothing is paid back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_the_cluster_loses_is_paid_back_without_asking() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let cluster = sandbox.cluster();
    let app = App::build(&sandbox.config, cluster.clone(), |backends| backends).await.unwrap();
    let wallet = Arc::clone(&app.wallet);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(21).await})).await;
    let pod = bought["pod_name"].as_str().unwrap();
    cluster.remove(&PodName::parse(pod).unwrap()).await.unwrap();
    let status = refund_of(&buyer, pod).await;
    assert_eq!(status["status"], "ended");
    let refunded = buyer.wallet.receive(status["refund_token"].as_str().unwrap()).await.unwrap();
    assert!((17..=20).contains(&refunded), "{refunded} of 20 sat for time that was not used");
    assert!(wallet.balances().await.unwrap().iter().all(|balance| balance.available.0 <= 2));
    assert!(printed(&sandbox, &["ledger", "audit"]).await.contains("every sat is accounted for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_reads_the_ledger_beside_the_running_service() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let token = buyer.token(101).await;
    let bought = buyer.ask(json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": "not in the output"})).await;
    let pod = bought["pod_name"].as_str().unwrap();
    buyer.ask(json!({"cashu_token": buyer.token(5).await, "tier": "galactic"})).await;
    let id = ledger_is_read(&sandbox, pod).await;
    income_is_withdrawn(&sandbox, &buyer).await;
    altered_ledger_does_not_add_up(&sandbox, &id).await;
}

/// Of two orders one was refused; gives the id of the one that bought this pod.
async fn ledger_is_read(sandbox: &Sandbox, pod: &str) -> String {
    let list = printed(sandbox, &["ledger", "list"]).await;
    assert!(
        list.lines().count() == 2 && list.contains(pod) && list.contains("invalid_spec"),
        "{list}"
    );
    let id = list
        .lines()
        .find(|line| line.contains(pod))
        .and_then(|line| line.split(' ').next())
        .unwrap();
    let shown = printed(sandbox, &["ledger", "show", id]).await;
    assert!(
        shown.contains("\"state\": \"active\"") && shown.contains("\"username\": \"alice\""),
        "{shown}"
    );
    let exported = printed(sandbox, &["ledger", "export"]).await;
    assert!(
        exported.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
            && exported.lines().count() == 2
    );
    for output in [&list, &shown, &exported] {
        assert!(
            !output.contains("not in the output") && !output.contains("cashu"),
            "a secret is shown: {output}"
        );
    }
    let audit = printed(sandbox, &["ledger", "audit"]).await;
    assert!(audit.contains("sold") && audit.contains("every sat is accounted for"), "{audit}");
    let nothing = paygress(sandbox, &["ledger", "show", "0000"]).await;
    assert!(!nothing.status.success() && text(&nothing.stderr).contains("there is no order 0000"));
    id.to_owned()
}

async fn income_is_withdrawn(sandbox: &Sandbox, buyer: &Buyer) {
    let balance = printed(sandbox, &["wallet", "balance"]).await;
    assert!(
        balance.contains(sandbox.mint.url())
            && balance.contains("100 sat")
            && balance.contains("answers in"),
        "{balance}"
    );
    let sent = printed(sandbox, &["wallet", "send", "30"]).await;
    assert!(buyer.wallet.receive(sent.trim()).await.unwrap() >= 29);
    let shop = TestMint::start(0).await.unwrap();
    let paid = printed(sandbox, &["wallet", "pay", &shop.invoice(20).await.unwrap()]).await;
    assert!(paid.starts_with("paid 20 sat, and "), "{paid}");
    let restored = printed(sandbox, &["wallet", "restore"]).await;
    assert!(restored.contains(": 0 sat restored"), "nothing was lost: {restored}");
    let audit = printed(sandbox, &["ledger", "audit"]).await;
    assert!(
        audit.contains("withdrawn by the operator")
            && audit.contains("50 sat")
            && audit.contains("accounted for"),
        "{audit}"
    );
}

async fn altered_ledger_does_not_add_up(sandbox: &Sandbox, id: &str) {
    let ledger = rusqlite::Connection::open(&sandbox.config.ledger).unwrap();
    let forged = "UPDATE orders SET body = replace(body, '\"redeemed\":100', '\"redeemed\":90') WHERE id = ?1";
    assert_eq!(ledger.execute(forged, [id]).unwrap(), 1);
    let audit = paygress(sandbox, &["ledger", "audit"]).await;
    assert_eq!(audit.status.code(), Some(1));
    assert!(
        text(&audit.stdout)
            .contains(&format!("order {id}: ledger has 90 sat received, and the wallet 100 sat"))
    );
}
