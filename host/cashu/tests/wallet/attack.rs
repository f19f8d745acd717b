//! Worthless tokens in large numbers: they move nothing that a restore from the mnemonic needs.

use crate::{TestEnv, assert_balanced, available};
use futures::stream::{self, StreamExt};
use paygress_cashu::{CashuWallet, Seed, WalletStore};
use paygress_core::backend::wallet::{
    Payments, ReceiveError, Resolution, ResolveMode, TokenInfo, TokenReader,
};
use paygress_core::model::ids::OrderId;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::token::forged;
use paygress_sandbox::{MintAnswer, NetworkFault};
use paygress_store::db::{Database, Schema, Transaction};
use std::ops::Range;
use std::time::Instant;

/// Orders of one mint at the same time, as the order service has them.
const AT_ONCE: usize = 16;

/// A token of nineteen proofs.
async fn large_token(env: &TestEnv) -> Secret {
    env.customer.fill(600_000).await.unwrap();
    env.token((1 << 19) - 1).await
}

/// Sends worthless tokens like this one; gives the orders of those that were not refused for good.
async fn attack(
    wallet: &CashuWallet,
    genuine: &Secret,
    tokens: Range<usize>,
) -> Vec<(OrderId, TokenInfo)> {
    let unknown = stream::iter(tokens)
        .map(|n| {
            let token = Secret::new(forged(genuine.expose(), n).unwrap());
            async move {
                let (order, token_info) = (OrderId::random(), wallet.decode(&token).await.unwrap());
                match wallet.receive(&order, &token, &token_info).await {
                    Err(ReceiveError::Refused(_)) => None,
                    Err(ReceiveError::Unknown(_)) => Some((order, token_info)),
                    Ok(net) => panic!("{net} for nothing"),
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    unknown.into_iter().flatten().collect()
}

async fn pay(env: &TestEnv, wallet: &CashuWallet, sat: u64) {
    let token = env.token(sat).await;
    let token_info = wallet.decode(&token).await.unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
}

/// The mnemonic alone finds on an empty disk what the wallet holds, in so many requests at most.
async fn assert_restorable(env: &TestEnv, wallet: &CashuWallet, requests: usize) {
    let empty = env.wallet_at("empty.sqlite", env.settings()).await;
    env.proxy.plan("v1/restore", NetworkFault::Status(500), requests, 1);
    let begun = Instant::now();
    let found = empty.restore(&env.mint_url()).await.unwrap();
    println!("restored {found} in {:.1?}, less than {requests} requests", begun.elapsed());
    env.proxy.clear();
    assert_eq!(found, Sat(available(wallet).await));
    assert_balanced(&empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_worthless_tokens_hide_no_coin_from_a_restore() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let genuine = large_token(&env).await;
    pay(&env, &wallet, 45).await;
    for round in 0..3 {
        let tokens = round * 100..(round + 1) * 100;
        let (unknown, ()) = tokio::join!(attack(&wallet, &genuine, tokens), pay(&env, &wallet, 13));
        assert_eq!(unknown.len(), 0);
    }
    pay(&env, &wallet, 32).await;
    assert_balanced(&wallet).await;
    assert_restorable(&env, &wallet, 45).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_that_stay_unknown_hide_no_coin_and_take_no_place_of_a_refund() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let genuine = large_token(&env).await;
    pay(&env, &wallet, 100).await;
    // More than fit: those that do not are refused before anything is sent.
    env.proxy.plan("v1/swap", NetworkFault::Answer(MintAnswer::GARBAGE), 0, 10_000);
    let unknown = attack(&wallet, &genuine, 0..130).await;
    let refused = 130 - unknown.len();
    assert!((1..=40).contains(&refused), "{refused}");
    env.proxy.clear();
    let token_info = wallet.decode(&genuine).await.unwrap();
    let waits = wallet.receive(&OrderId::random(), &genuine, &token_info).await;
    assert!(
        matches!(&waits, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::MintNetworkError),
        "{waits:?}"
    );
    // The operator's own is made above them, and found there.
    wallet.send(&env.mint_url(), Sat(50)).await.unwrap();
    let sent = wallet.sent().await.unwrap();
    env.customer.receive(sent[0].expose()).await.unwrap();
    assert_restorable(&env, &wallet, 60).await;
    // Once the mint answers, all is as before.
    let payee = &wallet;
    let ends = stream::iter(unknown).map(|(order, token_info)| async move {
        payee.resolve(&order, &token_info, ResolveMode::Repeat).await
    });
    let ends = ends.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    assert!(ends.iter().all(|end| matches!(end, Resolution::NotSpent)), "{ends:?}");
    wallet.recover().await.unwrap();
    assert!(wallet.receive(&OrderId::random(), &genuine, &token_info).await.is_ok());
    assert_balanced(&wallet).await;
}

/// A wallet on tables as they were before the counter was brought back.
async fn older_wallet(env: &TestEnv) -> (CashuWallet, Database) {
    let before = Schema { steps: &WalletStore::SCHEMA.steps[..2], ..WalletStore::SCHEMA };
    let file = env.file("wallet.sqlite");
    let database = Database::sqlite_shared(&file, before).await.unwrap();
    let seed = Seed::load_or_create(&env.file("mnemonic")).await.unwrap();
    let store = WalletStore::new(database.clone());
    (CashuWallet::open(store, seed, &env.settings()).await.unwrap(), database)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_was_attacked_before_an_upgrade_is_in_reach_of_a_restore_after_it() {
    let env = TestEnv::new().await;
    let (wallet, database) = older_wallet(&env).await;
    for sat in [45, 100] {
        pay(&env, &wallet, sat).await;
    }
    // Version 0.1.0 has moved it by the tokens that were refused.
    let write = |transaction: &mut dyn Transaction| {
        transaction.execute("UPDATE purse_counters SET next = 6000", &[])
    };
    assert_eq!(database.transact(write).await.unwrap(), 1);
    drop((wallet, database));
    let wallet = env.wallet().await;
    pay(&env, &wallet, 13).await;
    assert_restorable(&env, &wallet, 27).await;
}
