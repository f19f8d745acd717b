//! A wallet that version 0.1.0 wrote, with operations in every state, opens unchanged. No mint is
//! needed.
#![cfg(test)]

use paygress_cashu::{
    CashuWallet, HealthCheck, MintBalance, OperationState, Purpose, Seed, Settings, WalletStore,
};
use paygress_core::backend::wallet::MintDirectory;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::Sat;
use paygress_store::db::{Database, Schema, Transaction};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

#[tokio::test]
async fn a_wallet_of_version_0_1_0_is_read_and_its_transactions_make_its_balances() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/tests/fixtures/v0.1.0");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wallet.sqlite");
    std::fs::copy(fixtures.join("wallet.sqlite"), &file).unwrap();
    let store = WalletStore::sqlite(&file).await.unwrap();
    let seed = Seed::load_or_create(&fixtures.join("wallet.mnemonic")).await.unwrap();
    let settings = Settings { mints: Vec::new(), max_balance: None, p2pk_secret_key: None };
    let wallet = CashuWallet::open(store, seed, &settings).await.unwrap();

    let transactions = wallet.transactions().await.unwrap();
    let count = |state| transactions.iter().filter(|one| one.state == state).count();
    assert_eq!((transactions.len(), count(OperationState::Open)), (77, 8));
    let mut kinds = BTreeMap::new();
    for transaction in &transactions {
        let text = transaction.purpose.to_string();
        assert_eq!(text.parse::<Purpose>().unwrap(), transaction.purpose);
        *kinds.entry(text.split(' ').next().unwrap().to_owned()).or_insert(0) += 1;
    }
    let all = ["pay", "receive", "refund", "restore", "send", "sweep", "written"];
    assert_eq!(kinds.keys().map(String::as_str).collect::<Vec<_>>(), all);

    let balance = |mint: &str, available, reserved| MintBalance {
        mint: MintUrl::parse(mint).unwrap(),
        available: Sat(available),
        reserved: Sat(reserved),
    };
    let balances = wallet.balances().await.unwrap();
    assert_eq!(
        balances,
        [balance("http://127.0.0.1:13", 40, 0), balance("http://127.0.0.1:9", 724, 96)]
    );
    for status in wallet.overview(HealthCheck::Cached).await.unwrap() {
        let ended = transactions.iter().filter(|one| one.state != OperationState::Open);
        let booked: i64 =
            ended.filter(|one| one.mint == status.balance.mint).map(|one| one.delta).sum();
        let held = status.balance.available.plus(status.balance.reserved);
        assert_eq!(i64::try_from(held.0).unwrap(), booked, "{}", status.balance.mint);
    }
}

/// Rows of one mint under two URLs: versions before wrote a default port as it was configured.
const OTHER_FORMS: [&str; 5] = [
    "UPDATE purse_proofs SET mint = 'http://127.0.0.1:80' WHERE mint = 'http://127.0.0.1:9'",
    "UPDATE purse_proofs SET mint = 'http://127.0.0.1'
         WHERE mint = 'http://127.0.0.1:80' AND amount > 8",
    "UPDATE purse_operations SET mint = 'http://127.0.0.1:80' WHERE mint = 'http://127.0.0.1:9'",
    "UPDATE purse_mints SET url = 'http://127.0.0.1:80' WHERE url = 'http://127.0.0.1:9'",
    "INSERT INTO purse_mints (url, restored) VALUES ('http://127.0.0.1', 0), ('http://x:99999', 0)",
];

#[tokio::test]
async fn a_mint_that_was_stored_under_other_forms_of_its_url_is_one_mint() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/tests/fixtures/v0.1.0");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wallet.sqlite");
    std::fs::copy(fixtures.join("wallet.sqlite"), &file).unwrap();
    let database = Database::sqlite_shared(&file, WalletStore::SCHEMA).await.unwrap();
    let rewrite = |transaction: &mut dyn Transaction| {
        OTHER_FORMS.iter().try_for_each(|statement| transaction.execute(statement, &[]).map(drop))
    };
    database.transact(rewrite).await.unwrap();
    drop(database);
    for mint in ["http://127.0.0.1/", "HTTP://127.0.0.1:80", "http://127.0.0.1"] {
        let store = WalletStore::sqlite(&file).await.unwrap();
        let seed = Seed::load_or_create(&fixtures.join("wallet.mnemonic")).await.unwrap();
        let mints = [mint, "http://127.0.0.1:80"].map(|url| MintUrl::parse(url).unwrap()).into();
        let settings = Settings { mints, max_balance: None, p2pk_secret_key: None };
        let wallet = CashuWallet::open(store, seed, &settings).await.unwrap();
        assert_eq!(wallet.mints().len(), 1, "{mint}");
        let overview = wallet.overview(HealthCheck::Cached).await.unwrap();
        let balances: Vec<_> = overview
            .iter()
            .map(|status| {
                let balance = &status.balance;
                let (available, reserved) = (balance.available.0, balance.reserved.0);
                (balance.mint.as_str(), available, reserved, status.accepted)
            })
            .collect();
        let expected = [("http://127.0.0.1", 724, 96, true), ("http://127.0.0.1:13", 40, 0, false)];
        assert_eq!(balances, expected, "{mint}");
        let transactions = wallet.transactions().await.unwrap();
        assert_eq!(transactions.len(), 77);
        let booked: i64 = transactions
            .iter()
            .filter(|one| one.mint.as_str() == "http://127.0.0.1")
            .filter(|one| one.state != OperationState::Open)
            .map(|one| one.delta)
            .sum();
        assert_eq!(booked, 820, "{mint}");
    }
}

/// An operation on the keyset `k`: its purpose and state, the first of its outputs' counters and
/// how many there are, when it was begun, and at which mint.
type StoredOperation = (&'static str, &'static str, u64, usize, u64, &'static str);

/// The counter of `k` after the migration from the wallet of version 0.1.0, or of one after it.
async fn migrated_counter(next: u64, operations: &[StoredOperation]) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wallet.sqlite");
    let before = Schema { steps: &WalletStore::SCHEMA.steps[..2], ..WalletStore::SCHEMA };
    let mut statements = vec![
        "INSERT INTO purse_keysets (keyset, mint) VALUES ('k', 'a')".to_owned(),
        format!("INSERT INTO purse_counters VALUES ('k', {next})"),
    ];
    for (n, (purpose, state, start, outputs, at, mint)) in operations.iter().enumerate() {
        let keyset = (*purpose != "restore").then_some("k");
        let body = json!({"keyset": keyset, "start": start, "amounts": vec![1; *outputs]});
        statements.push(format!(
            "INSERT INTO purse_operations VALUES ('{n}', '{purpose}', '{mint}', '{state}', {at}, 0, '{body}')"
        ));
    }
    let database = Database::sqlite_shared(&file, before).await.unwrap();
    let write = move |transaction: &mut dyn Transaction| {
        statements.iter().try_for_each(|statement| transaction.execute(statement, &[]).map(drop))
    };
    database.transact(write).await.unwrap();
    drop(database);
    let database = Database::sqlite_shared(&file, WalletStore::SCHEMA).await.unwrap();
    let read = |transaction: &mut dyn Transaction| {
        let row = transaction.first("SELECT next FROM purse_counters", &[])?;
        row.unwrap().amount()
    };
    database.transact(read).await.unwrap()
}

#[tokio::test]
async fn the_next_outputs_of_an_older_wallet_are_made_where_a_restore_reaches() {
    let done = |first, outputs, at| ("receive x", "done", first, outputs, at, "a");
    let restored = |at| ("restore", "done", 0, 0, at, "a");
    for (next, operations, expected) in [
        // Forged tokens have moved it, with orders after them or without.
        (6_000, vec![done(0, 40, 1)], 40),
        (6_010, vec![done(0, 40, 1), done(6_000, 10, 2)], 40),
        (6_010, vec![("receive y", "open", 40, 5_960, 1, "a"), done(6_000, 10, 2)], 0),
        (6_000, vec![("receive y", "failed", 0, 5_000, 1, "a")], 0),
        (6_000, vec![], 0),
        // A restore passes such a gap.
        (2_510, vec![done(0, 10, 1), done(2_510, 10, 2), done(5_020, 7, 3)], 2_510),
        (5_030, vec![done(0, 10, 1), done(2_510, 10, 2), done(5_020, 7, 3)], 5_027),
        (30, vec![done(0, 30, 1)], 30),
        // What a restore has booked is signed.
        (6_000, vec![restored(5)], 6_000),
        (6_000, vec![done(0, 40, 1), restored(5)], 6_000),
        (9_000, vec![restored(5), done(5_000, 10, 6)], 5_010),
        (9_010, vec![restored(5), done(5_000, 10, 6), done(9_000, 10, 7)], 5_010),
        (6_000, vec![("restore", "done", 0, 0, 5, "b"), done(0, 40, 1)], 40),
    ] {
        assert_eq!(migrated_counter(next, &operations).await, expected, "{next} {operations:?}");
    }
}
