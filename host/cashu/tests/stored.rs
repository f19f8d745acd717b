//! A wallet that version 0.1.0 wrote, with operations in every state, opens unchanged. No mint is
//! needed.
#![cfg(test)]

use paygress_cashu::{
    CashuWallet, HealthCheck, MintBalance, OperationState, Purpose, Seed, Settings, WalletStore,
};
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::Sat;
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
