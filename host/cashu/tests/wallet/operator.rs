//! What the operator does with the wallet: restores it, and takes the income out.

use crate::{TestEnv, assert_balanced, available};
use async_trait::async_trait;
use paygress_cashu::{MintWalletError, OperatorError};
use paygress_core::backend::store::{LedgerError, RefundStore};
use paygress_core::backend::wallet::{
    Payments, ReceiveError, RefundAmount, RefundIssuer, TokenReader,
};
use paygress_core::model::ids::{Customer, MintUrl, OrderId};
use paygress_core::model::order::Order;
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

/// A ledger that owes customers so much, or is damaged.
struct FakeLedger(Option<Sat>);

#[async_trait]
impl RefundStore for FakeLedger {
    async fn pending_refunds(&self, _: Option<&Customer>) -> Result<Vec<Order>, LedgerError> {
        Ok(Vec::new())
    }

    async fn close_refund(&self, _: &Order) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn owed(&self, _: &MintUrl, _: Option<&OrderId>) -> Result<Sat, LedgerError> {
        self.0.ok_or_else(|| LedgerError::unreadable("a damaged row"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_leaves_its_threshold_and_what_is_owed_to_customers() {
    let env = TestEnv::new().await;
    let (wallet, net) = env.wallet_with(1_000).await;
    let bank = TestMint::start(0).await.unwrap();
    let address = bank.lightning_address().await.unwrap();
    let damaged = wallet.pay_out(&FakeLedger(None), &address, Sat(100)).await;
    assert!(matches!(damaged, Err(OperatorError::Ledger(_))), "{damaged:?}");
    let (nothing, owed) = (FakeLedger(Some(Sat(0))), FakeLedger(Some(Sat(800))));
    for (ledger, above) in [(&nothing, 5_000), (&owed, 5_000), (&FakeLedger(Some(net)), 100)] {
        assert_eq!(wallet.pay_out(ledger, &address, Sat(above)).await.unwrap(), []);
    }
    assert_eq!(available(&wallet).await, net.0, "nothing has moved");
    for (ledger, above, kept) in [(&owed, 100, 800), (&nothing, 500, 500)] {
        let before = available(&wallet).await;
        let paid = wallet.pay_out(ledger, &address, Sat(above)).await.unwrap();
        assert_eq!(paid.len(), 1);
        let left = available(&wallet).await;
        println!("of {before} sat {} were paid out, and {left} are left", paid[0].amount);
        assert!((kept..kept + 30).contains(&left), "{paid:?}, {left} left");
        assert!(paid[0].amount.0 > before - kept - 30, "{paid:?}");
        // What is left above the threshold is less than a payout's fees are worth.
        assert_eq!(wallet.pay_out(ledger, &address, Sat(above)).await.unwrap(), []);
    }
    let refund =
        wallet.refund(&OrderId::random(), &env.mint_url(), RefundAmount::LessFee(Sat(400))).await;
    assert_eq!(refund.map(|made| made.amount.plus(made.fee)).unwrap(), Sat(400));
    assert_balanced(&wallet).await;
}
