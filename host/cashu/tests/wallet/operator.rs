//! What the operator does with the wallet: restores it, and takes the income out.

use crate::{TestEnv, assert_balanced, available};
use paygress_cashu::{MintWalletError, OperatorError};
use paygress_core::backend::wallet::{Payments, ReceiveError, TokenReader};
use paygress_core::model::ids::OrderId;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::units::Sat;
use paygress_sandbox::{NetworkFault, TestMint};

#[tokio::test(flavor = "multi_thread")]
async fn the_mnemonic_alone_brings_everything_back_on_an_empty_disk() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    for sat in [13, 200, 70] {
        let token = env.token(sat).await;
        let token_info = wallet.decode(&token).await.unwrap();
        wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    }
    wallet.send(&env.mint_url(), Sat(50)).await.unwrap();
    let before = available(&wallet).await;
    drop(wallet);
    // While the mint is unavailable, nothing is swapped with a seed whose use is not known…
    let empty = env.wallet_at("empty.sqlite", env.settings()).await;
    env.proxy.plan("v1/restore", NetworkFault::Status(500), 0, 1);
    let token = env.token(10).await;
    let token_info = empty.decode(&token).await.unwrap();
    let refused = empty.receive(&OrderId::random(), &token, &token_info).await;
    assert!(
        matches!(refused, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::MintNetworkError)
    );
    drop(empty);
    // …not even after a restart; and then all of it is restored. (A token that was sent and not
    // redeemed is the seed's too.)
    let empty = env.wallet_at("empty.sqlite", env.settings()).await;
    assert_eq!(empty.receive(&OrderId::random(), &token, &token_info).await.unwrap(), Sat(9));
    assert_eq!(available(&empty).await, before + 50 + 9);
    assert_balanced(&empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sends_and_melts_and_an_invoice_is_paid_once() {
    let env = TestEnv::new().await;
    let (wallet, net) = env.wallet_with(501).await;
    let sent = wallet.send(&env.mint_url(), Sat(77)).await.unwrap();
    assert_eq!(wallet.decode(&sent).await.unwrap().gross, Sat(77));
    assert!(env.customer.receive(sent.expose()).await.unwrap() >= 76);
    let shop = TestMint::start(0).await.unwrap();
    let invoice = shop.invoice(100).await.unwrap();
    let paid = wallet.melt(&env.mint_url(), &invoice, None).await.unwrap();
    assert_eq!(paid.amount, Sat(100));
    let left = available(&wallet).await;
    assert_eq!(
        wallet.melt(&env.mint_url(), &invoice, None).await.unwrap(),
        paid,
        "repeated, it is the same payment"
    );
    assert_eq!(available(&wallet).await, left);
    assert!(left <= net.0 - 77 - 100 && left + 10 >= net.0 - 177, "{left} of {net} are left");
    assert_balanced(&wallet).await;
    // A lost response is recovered.
    let lost = shop.invoice(50).await.unwrap();
    env.proxy.plan("v1/melt/bolt11", NetworkFault::AnswerLost, 0, 1);
    let paid = wallet.melt(&env.mint_url(), &lost, None).await;
    assert!(matches!(&paid, Ok(paid) if paid.amount == Sat(50)), "{paid:?}");
    assert_balanced(&wallet).await;
    let poor = shop.invoice(5_000).await.unwrap();
    assert!(
        matches!(wallet.melt(&env.mint_url(), &poor, None).await, Err(OperatorError::Wallet(error @ MintWalletError::InsufficientFunds { .. }))
                if error.to_string().contains("not enough"))
    );
    assert!(matches!(
        wallet.melt(&env.mint_url(), "lnbcnonsense", None).await,
        Err(OperatorError::Destination(_))
    ));
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_goes_to_the_lightning_address_when_there_is_enough() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let token = env.token(1_000).await;
    let token_info = wallet.decode(&token).await.unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    let bank = TestMint::start(0).await.unwrap();
    let address = bank.lightning_address().await.unwrap();
    assert_eq!(
        wallet.pay_out(&address, Sat(5_000)).await.unwrap(),
        [],
        "below the threshold nothing moves"
    );
    let paid = wallet.pay_out(&address, Sat(500)).await.unwrap();
    assert_eq!(paid.len(), 1);
    assert!(
        paid[0].amount.0 > 950 && available(&wallet).await < 30,
        "{paid:?}, {} left",
        available(&wallet).await
    );
    assert_balanced(&wallet).await;
}
