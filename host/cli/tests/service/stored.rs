//! What version 0.1.0 stored is read, continued and accounted for by this version.

use crate::policy::bought;
use crate::support::command::{printed, text};
use crate::support::customer::{Buyer, Running, TIMEOUT};
use paygress::sandbox::Sandbox;
use paygress_core::backend::store::Reporting;
use paygress_core::model::order::{Order, State};
use paygress_store::SqlStore;
use paygress_store::db::testing::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v0.1.0")
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(fixtures().join(name)).unwrap()
}

fn lines(name: &str) -> Vec<Value> {
    fixture(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Opening a database writes beside it: a test works on a copy.
fn copy_into(directory: &Path) {
    for name in ["ledger.sqlite", "wallet.sqlite", "wallet.mnemonic"] {
        std::fs::copy(fixtures().join(name), directory.join(name)).unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The program, with the configuration that the fixtures were recorded with.
fn paygress(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_paygress"))
        .args(arguments)
        .env_clear()
        .env("NOSTR_PRIVATE_KEY", "07".repeat(32))
        .env("NOSTR_RELAYS", "wss://relay.example.com")
        .env("WHITELISTED_MINTS", "http://127.0.0.1:9")
        .env("SSH_HOST", "node.example.com")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn succeeds(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = paygress(arguments, environment);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The commands print what they printed: every order reads, and the sums are the same.
fn prints_what_it_printed(environment: &[(&str, &str)]) {
    assert_eq!(succeeds(&["ledger", "list"], environment), fixture("ledger-list.txt"));
    assert_eq!(succeeds(&["ledger", "export"], environment), fixture("ledger-export.jsonl"));
    let audit = succeeds(&["ledger", "audit"], environment);
    assert!(audit.contains("every sat is accounted for"), "{audit}");
    let amounts = |text: &str| -> Vec<u64> {
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    assert_eq!(amounts(&audit), amounts(&fixture("ledger-audit.txt")), "{audit}");
}

#[test]
fn sqlite_databases_of_0_1_0_read_as_they_were_written() {
    let directory = tempfile::tempdir().unwrap();
    copy_into(directory.path());
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (ledger, wallet) = (path("ledger.sqlite"), path("wallet.sqlite"));
    prints_what_it_printed(&[("LEDGER_PATH", &ledger), ("CASHU_DB_PATH", &wallet)]);
}

#[test]
fn postgres_databases_of_0_1_0_read_as_they_were_written() {
    let server = Server::start().unwrap();
    let url = server.new_database().unwrap();
    let loaded = Command::new("psql")
        .args(["--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-f"])
        .arg(fixtures().join("ledger.postgres.sql"))
        .arg(url.expose())
        .output()
        .unwrap();
    assert!(loaded.status.success(), "{}", text(&loaded.stderr));
    let mnemonic = fixture("wallet.mnemonic");
    prints_what_it_printed(&[("DATABASE_URL", url.expose()), ("WALLET_MNEMONIC", mnemonic.trim())]);
}

async fn orders(store: &SqlStore) -> Vec<Order> {
    store.page(None, u32::MAX).await.unwrap()
}

#[tokio::test]
async fn every_order_serialises_to_the_bytes_that_were_stored() {
    let directory = tempfile::tempdir().unwrap();
    copy_into(directory.path());
    let store = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await.unwrap();
    let stored = orders(&store).await;
    let exported = fixture("ledger-export.jsonl");
    assert_eq!(stored.len(), exported.lines().count());
    let in_fixtures: BTreeSet<_> = lines("orders.jsonl")
        .iter()
        .map(|line| line["state"].as_str().unwrap().to_owned())
        .collect();
    let all: BTreeSet<_> = State::ALL.iter().map(|state| state.as_str().to_owned()).collect();
    assert_eq!(in_fixtures, all, "the fixtures hold orders in every state");
    for order in stored {
        let json = serde_json::to_string(&order).unwrap();
        assert!(exported.lines().any(|line| line == json), "{json}");
    }
}

/// The mints of the fixtures are gone and their pods too: what is paid is provisioned, the rest is
/// refused or waits for the mints, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_continues_what_0_1_0_left() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    for (variable, name) in [("LEDGER_PATH", "ledger.sqlite"), ("CASHU_DB_PATH", "wallet.sqlite")] {
        let path = PathBuf::from(&sandbox.environment[variable]);
        std::fs::copy(fixtures().join(name), &path).unwrap();
        if name == "wallet.sqlite" {
            std::fs::copy(fixtures().join("wallet.mnemonic"), path.with_extension("mnemonic"))
                .unwrap();
        }
    }
    let state = PathBuf::from(&sandbox.environment["POLICY_STATE_DIR"]);
    copy_tree(&fixtures().join("policy"), &state);
    // Version control does not keep the mode.
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let open = ["received", "decided", "redeeming", "paid", "provisioning"];
    let begun = Instant::now();
    loop {
        let listed = printed(&sandbox, &["ledger", "list"]).await;
        let waiting =
            listed.lines().filter(|line| line.split_whitespace().any(|word| open.contains(&word)));
        let waiting: Vec<&str> = waiting.collect();
        if waiting.is_empty() {
            assert_eq!(listed.lines().count(), fixture("ledger-list.txt").lines().count());
            break;
        }
        assert!(begun.elapsed() < TIMEOUT, "still open: {waiting:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let listed = printed(&sandbox, &["ledger", "list"]).await;
    for line in lines("orders.jsonl") {
        let (id, example) = (line["order"].as_str().unwrap(), line["example"].as_str().unwrap());
        let is_paid = ["paid", "provisioning"].contains(&line["state"].as_str().unwrap());
        if is_paid && example.starts_with("spawn") {
            let row = listed.lines().find(|row| row.starts_with(id)).unwrap();
            assert!(row.contains(" active "), "{example}: {row}");
        }
    }
    let audit = printed(&sandbox, &["ledger", "audit"]).await;
    assert!(audit.contains("every sat is accounted for"), "{audit}");
    // The history of the policies is kept, and what it names can be published again.
    let history = printed(&sandbox, &["policy", "history"]).await;
    for number in 1..=9 {
        let starts = |line: &str| line.split_whitespace().next() == Some(&number.to_string());
        assert!(history.lines().any(starts), "{number} is missing:\n{history}");
    }
    printed(&sandbox, &["policy", "rollback", "4"]).await;
    let buyer = Buyer::new(&sandbox).await;
    assert_eq!(bought(&buyer, 11).await, 5, "ten sat, at the price of that revision");
}

/// A pod is bought, extended and stopped by the components of version 0.1.0 alone.
#[tokio::test(flavor = "multi_thread")]
async fn components_of_0_1_0_decide_orders() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let old = |name: &str| {
        fixtures().join(format!("components/{name}.wasm")).to_string_lossy().into_owned()
    };
    let [images, pricing, duration, pod_template] =
        ["images", "pricing", "duration", "pod-template"].map(old);
    let swap = ["policy", "swap", "images", &images, "pricing", &pricing];
    let rest = ["duration", &duration, "pod-template", &pod_template];
    printed(&sandbox, &[&swap[..], &rest[..]].concat()).await;
    let pod = buyer.ask(json!({"cashu_token": buyer.token(11).await})).await;
    assert_eq!(pod["type"], "access_details", "{pod}");
    let name = &pod["pod_name"];
    let more = buyer.ask(json!({"cashu_token": buyer.token(6).await, "pod_name": name})).await;
    assert_eq!(more["extended_duration_seconds"], 300, "{more}");
    let stopped = buyer.ask(json!({"type": "stop", "pod_name": name})).await;
    let paid_back = |field: &str| stopped[field].as_u64().unwrap();
    // Of 15 sat, less what was used, and the mint's fees for two refunds.
    let sum = paid_back("refunded_sats").saturating_add(paid_back("refund_fee_sats"));
    assert!((12..=14).contains(&sum), "{stopped}");
    assert_eq!(bought(&buyer, 11).await, 10);

    // Of contract 1.0: a second for a sat, and no refund.
    printed(&sandbox, &["policy", "swap", "duration", &old("old-duration")]).await;
    assert_eq!(bought(&buyer, 121).await, 2);
}
