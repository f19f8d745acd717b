//! A mint that lists another mint's keyset as its own and passes every request on: its coins stay
//! the other's.

use crate::{TestEnv, assert_balanced, available};
use paygress_cashu::{CashuWallet, KeysetConflict, MintWalletError, OperatorError, Settings};
use paygress_core::backend::wallet::{Payments, ReceiveError, TokenReader};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::FaultProxy;
use paygress_sandbox::token::relabelled;

/// The copy, and its name.
async fn copy_of(env: &TestEnv) -> (FaultProxy, MintUrl) {
    let copy = FaultProxy::to(env.mint.url()).await.unwrap();
    let name = MintUrl::parse(copy.url()).unwrap();
    (copy, name)
}

fn both(env: &TestEnv, copy: &MintUrl) -> Settings {
    let mints = vec![copy.clone(), env.mint_url()];
    Settings { mints, ..env.settings() }
}

fn assert_names(text: &str, mints: [&MintUrl; 2]) {
    assert!(mints.iter().all(|mint| text.contains(mint.as_str())), "{text}");
}

async fn assert_refused(wallet: &CashuWallet, token: &Secret, mints: [&MintUrl; 2]) {
    let refused = |refusal: Refusal| {
        assert_eq!(refusal.code, ErrorType::MintError, "{refusal}");
        assert_names(&refusal.message, mints);
    };
    let token_info = wallet.decode(token).await.unwrap();
    refused(wallet.verify(token, &token_info).await.unwrap_err());
    match wallet.receive(&OrderId::random(), token, &token_info).await {
        Err(ReceiveError::Refused(refusal)) => refused(refusal),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_mint_gets_none_of_its_coins_by_restore_receive_or_send() {
    let env = TestEnv::new().await;
    let (wallet, net) = env.wallet_with(45).await;
    drop(wallet);
    let (_server, copy) = copy_of(&env).await;
    let (mint, settings) = (env.mint_url(), both(&env, &copy));
    let wallet = env.wallet_at("wallet.sqlite", settings).await;
    wallet.recover().await.unwrap();
    let error = wallet.restore(&copy).await.unwrap_err();
    assert!(
        matches!(
            &error,
            OperatorError::PartlyRestored {
                restored: Sat(0),
                conflict: KeysetConflict::Owned { owner, .. }
            } if *owner == mint
        ),
        "{error:?}"
    );
    assert_names(&error.to_string(), [&copy, &mint]);
    let relabelled = relabelled(env.token(21).await.expose(), copy.as_str(), "sat").unwrap();
    assert_refused(&wallet, &Secret::new(relabelled), [&copy, &mint]).await;
    assert!(matches!(
        wallet.send(&copy, Sat(1)).await,
        Err(OperatorError::Wallet(MintWalletError::InsufficientFunds { available: 0 }))
    ));
    // The mint itself goes on.
    assert_eq!(wallet.restore(&mint).await.unwrap(), Sat(0));
    wallet.send(&mint, Sat(5)).await.unwrap();
    let left = available(&wallet).await;
    assert!((net.0 - 6..=net.0 - 5).contains(&left), "{left} of {net}");
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_empty_disk_a_copied_keyset_is_nobodys_until_one_mint_is_removed() {
    let env = TestEnv::new().await;
    let (wallet, net) = env.wallet_with(45).await;
    drop(wallet);
    let (_server, copy) = copy_of(&env).await;
    let mint = env.mint_url();
    let empty = env.wallet_at("empty.sqlite", both(&env, &copy)).await;
    empty.recover().await.unwrap();
    for one in [&mint, &copy] {
        let error = empty.restore(one).await.unwrap_err();
        assert!(
            matches!(
                &error,
                OperatorError::PartlyRestored { conflict: KeysetConflict::Contested { .. }, .. }
            ),
            "{error:?}"
        );
        assert_names(&error.to_string(), [&copy, &mint]);
    }
    assert_refused(&empty, &env.token(21).await, [&copy, &mint]).await;
    assert_eq!(available(&empty).await, 0);
    drop(empty);
    // The operator trusts the first, and the copy that comes back later gets nothing.
    let empty = env.wallet_at("empty.sqlite", env.settings()).await;
    assert_eq!(empty.restore(&mint).await.unwrap(), net);
    drop(empty);
    let empty = env.wallet_at("empty.sqlite", both(&env, &copy)).await;
    empty.recover().await.unwrap();
    assert!(empty.restore(&copy).await.is_err());
    let balances = empty.balances().await.unwrap();
    assert_eq!(balances.iter().map(|one| &one.mint).collect::<Vec<_>>(), [&mint]);
    assert_balanced(&empty).await;
}
