//! The till at a real mint, and what becomes of money when the way there is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use paygress_cashu::faulty::{FaultyWay, Mishap};
use paygress_cashu::mint::{TestMint, TestWallet, as_v3, relabelled};
use paygress_cashu::{CashuTill, Purse, Seed, Settings, WalletError};
use paygress_core::refusal::ErrorType;
use paygress_core::secret::Secret;
use paygress_core::till::{NotRedeemed, RefundState, Settlement, Till};
use paygress_core::units::{MintUrl, OrderId, Sat};
use std::path::PathBuf;
use tempfile::TempDir;

const FEE_PPK: u64 = 100;

/// A mint, a faulty way to it, a customer's wallet that knows the mint by that way, and a till on a disk.
struct Street {
    mint: TestMint,
    way: FaultyWay,
    wallet: TestWallet,
    directory: TempDir,
}

impl Street {
    async fn new() -> Self {
        let mint = TestMint::start(FEE_PPK).await.unwrap();
        let way = FaultyWay::to(mint.url()).await.unwrap();
        let wallet = TestWallet::new(way.url()).await.unwrap();
        wallet.fill(2_000).await.unwrap();
        Self { mint, way, wallet, directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn till_at(&self, purse: &str, settings: Settings) -> CashuTill {
        let seed = Seed::at(&self.file("mnemonic")).unwrap();
        CashuTill::open(Purse::sqlite(&self.file(purse)).unwrap(), seed, &settings).await.unwrap()
    }

    fn settings(&self) -> Settings {
        Settings { mints: vec![self.way.url().to_owned()], exposure: None, lock: None }
    }

    async fn till(&self) -> CashuTill {
        self.till_at("purse.sqlite", self.settings()).await
    }

    async fn token(&self, sat: u64) -> Secret {
        Secret::new(self.wallet.token(sat).await.unwrap())
    }

    fn name(&self) -> MintUrl {
        MintUrl(self.way.url().to_owned())
    }
}

async fn held(till: &CashuTill) -> u64 {
    till.holdings().await.unwrap().iter().map(|(_, free, _)| free.0).sum()
}

/// The purse's operations make what it holds.
async fn books_balance(till: &CashuTill) {
    let booked: i64 = till.entries().await.unwrap().iter().filter(|entry| !entry.open).map(|entry| entry.delta).sum();
    let all: u64 = till.holdings().await.unwrap().iter().map(|(_, free, held)| free.0 + held.0).sum();
    assert_eq!(i64::try_from(all).unwrap(), booked);
}

async fn settled(till: &CashuTill, order: &OrderId, token: &Secret) -> Settlement {
    let facts = till.decode(token).unwrap();
    for _ in 0..200 {
        match till.settle(order, &facts).await {
            Settlement::Unknown(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            known => return known,
        }
    }
    panic!("it stays unknown")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_worth_its_net_amount_once_whatever_its_form() {
    let street = Street::new().await;
    let till = street.till().await;
    for (sat, form) in [(13, "v4"), (64, "v3"), (1_000, "uri")] {
        let token = street.token(sat).await;
        let text = match form {
            "v3" => as_v3(token.expose()).unwrap(),
            "uri" => format!("cashu:{}", token.expose()),
            _ => token.expose().to_owned(),
        };
        let token = Secret::new(text);
        let facts = till.decode(&token).unwrap();
        let payment = till.appraise(&token, &facts).await.unwrap();
        assert_eq!((payment.gross, payment.net), (Sat(sat), Sat(sat - payment.fee.0)), "{form}");
        let before = held(&till).await;
        assert_eq!(till.redeem(&OrderId::random(), &token, &facts).await, Ok(payment.net));
        assert_eq!(held(&till).await, before + payment.net.0);
        assert_eq!(till.appraise(&token, &facts).await.unwrap_err().code, ErrorType::TokenAlreadySpent);
        let again = till.redeem(&OrderId::random(), &token, &facts).await;
        assert!(matches!(again, Err(NotRedeemed::Refused(refusal)) if refusal.code == ErrorType::TokenAlreadySpent));
    }
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_swap_the_money_is_found() {
    let street = Street::new().await;
    for (n, mishap) in Mishap::ALL.into_iter().enumerate() {
        let purse = format!("purse{n}.sqlite");
        // A new seed each, as in a house of its own.
        let _ = std::fs::remove_file(street.file("mnemonic"));
        let till = street.till_at(&purse, street.settings()).await;
        let (order, token) = (OrderId::random(), street.token(21).await);
        let facts = till.decode(&token).unwrap();
        let promised = till.appraise(&token, &facts).await.unwrap().net;
        // Until the third try the way is bad for swaps and for finding out.
        street.way.plan("v1/", mishap, 0, 3);
        let redeemed = till.redeem(&order, &token, &facts).await;
        let net = match redeemed {
            Ok(net) => net,
            Err(NotRedeemed::Unknown(_)) => match settled(&till, &order, &token).await {
                Settlement::Received(net) => net,
                other => panic!("{mishap:?}: {other:?}"),
            },
            Err(NotRedeemed::Refused(refusal)) => {
                // Then it is for certain: the token is good.
                street.way.clear();
                assert_eq!(refusal.code, ErrorType::MintNetworkError, "{mishap:?}");
                till.redeem(&order, &token, &facts).await.unwrap_or_else(|error| panic!("{mishap:?}: {error}"))
            }
        };
        street.way.clear();
        assert_eq!((net, held(&till).await), (promised, promised.0), "{mishap:?}");
        books_balance(&till).await;
        // Asked once more it is the same money.
        assert_eq!(settled(&till, &order, &token).await, Settlement::Received(promised), "{mishap:?}");
        assert_eq!(held(&till).await, promised.0, "{mishap:?}");
        assert!(street.wallet.redeem(token.expose()).await.is_err(), "{mishap:?}: the token is ours");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_is_done_after_everybody_gave_up_is_still_found() {
    let street = Street::new().await;
    let till = street.till().await;
    let (order, token) = (OrderId::random(), street.token(21).await);
    let facts = till.decode(&token).unwrap();
    street.way.plan("v1/swap", Mishap::Late(std::time::Duration::from_millis(700)), 0, 100);
    assert!(matches!(till.redeem(&order, &token, &facts).await, Err(NotRedeemed::Unknown(_))), "it may still be on its way");
    assert_eq!(settled(&till, &order, &token).await, Settlement::Received(Sat(20)));
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_somebody_else_spends_meanwhile_is_not_called_ours() {
    let street = Street::new().await;
    let till = street.till().await;
    let (order, token) = (OrderId::random(), street.token(21).await);
    let facts = till.decode(&token).unwrap();
    street.way.plan("v1/swap", Mishap::LostOnTheWay, 0, 100);
    assert!(matches!(till.redeem(&order, &token, &facts).await, Err(NotRedeemed::Unknown(_))));
    street.way.clear();
    let thief = TestWallet::new(street.way.url()).await.unwrap();
    thief.redeem(token.expose()).await.unwrap();
    assert_eq!(settled(&till, &order, &token).await, Settlement::SpentElsewhere);
    assert_eq!(held(&till).await, 0);
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_made_once_whatever_happens_and_can_be_redeemed() {
    let street = Street::new().await;
    for (n, mishap) in Mishap::ALL.into_iter().enumerate() {
        let _ = std::fs::remove_file(street.file("mnemonic"));
        let till = street.till_at(&format!("refund{n}.sqlite"), street.settings()).await;
        // 64 in one coin: 21 of it can only be paid back through a swap.
        let token = street.token(65).await;
        let facts = till.decode(&token).unwrap();
        assert_eq!(till.redeem(&OrderId::random(), &token, &facts).await, Ok(Sat(64)));
        let order = OrderId::random();
        street.way.plan("v1/", mishap, 0, 3);
        let mut tries = 0;
        let refund = loop {
            match till.refund(&order, &street.name(), Sat(21)).await {
                Ok(refund) => break refund,
                Err(why) if tries > 100 => panic!("{mishap:?}: {why}"),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        street.way.clear();
        assert_eq!((refund.amount, refund.fee), (Sat(20), Sat(1)), "{mishap:?}: the mint's fee is told");
        // After a restart it is the same one.
        drop(till);
        let till = street.till_at(&format!("refund{n}.sqlite"), street.settings()).await;
        assert_eq!(till.refund(&order, &street.name(), Sat(21)).await.unwrap(), refund, "{mishap:?}");
        assert_eq!(held(&till).await, 64 - 21, "{mishap:?}");
        books_balance(&till).await;
        assert_eq!(till.refund_state(&order, &street.name()).await, Ok(RefundState::Waiting));
        street.wallet.redeem(refund.token.expose()).await.unwrap();
        assert_eq!(till.refund_state(&order, &street.name()).await, Ok(RefundState::Redeemed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_leaves_to_an_open_operation_what_is_its_own() {
    let street = Street::new().await;
    let till = street.till().await;
    let token = street.token(65).await;
    let facts = till.decode(&token).unwrap();
    till.redeem(&OrderId::random(), &token, &facts).await.unwrap();
    // The process is killed while the mint makes a refund: it is signed, and nobody has written that down.
    let order = OrderId::random();
    street.way.plan("v1/swap", Mishap::Hang(true), 0, 1);
    let name = street.name();
    tokio::select! {
        made = till.refund(&order, &name, Sat(21)) => panic!("{made:?}"),
        () = street.way.hung() => {}
    }
    drop(till);
    street.way.clear();
    let till = street.till().await;
    assert_eq!(till.restore(&street.name()).await.unwrap(), Sat(0), "nothing of it is free");
    let refund = till.refund(&order, &street.name(), Sat(21)).await.unwrap();
    assert_eq!((refund.amount, held(&till).await), (Sat(20), 64 - 21));
    books_balance(&till).await;
    street.wallet.redeem(refund.token.expose()).await.unwrap();
    assert_eq!(till.restore(&street.name()).await.unwrap(), Sat(0), "nor is anything found twice");
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_the_fee_would_take_is_made_whole() {
    let street = Street::new().await;
    let till = street.till().await;
    let token = street.token(5).await;
    let facts = till.decode(&token).unwrap();
    assert_eq!(till.redeem(&OrderId::random(), &token, &facts).await, Ok(Sat(4)));
    let refund = till.refund(&OrderId::random(), &street.name(), Sat(1)).await.unwrap();
    assert_eq!((refund.amount, refund.fee, held(&till).await), (Sat(1), Sat(0), 2), "one for the customer, one for the mint");
    books_balance(&till).await;
    let much = till.refund(&OrderId::random(), &street.name(), Sat(3)).await;
    assert!(much.is_err(), "what the purse does not hold waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_nobody_redeems_is_taken_back_once() {
    let street = Street::new().await;
    let till = street.till().await;
    let token = street.token(33).await;
    let facts = till.decode(&token).unwrap();
    till.redeem(&OrderId::random(), &token, &facts).await.unwrap();
    let order = OrderId::random();
    let refund = till.refund(&order, &street.name(), Sat(32)).await.unwrap();
    assert_eq!((refund.amount, refund.fee, held(&till).await), (Sat(32), Sat(0), 0), "the coin that came in goes back as it is");
    let back = till.appraise(&refund.token, &till.decode(&refund.token).unwrap()).await.unwrap_err();
    assert_eq!(back.code, ErrorType::InvalidToken, "our own refund is not a payment");
    assert_eq!(till.take_back(&order, &street.name()).await, Ok(Some(Sat(31))));
    assert_eq!(till.take_back(&order, &street.name()).await, Ok(Some(Sat(31))), "twice is once");
    assert_eq!(held(&till).await, 31);
    assert!(street.wallet.redeem(refund.token.expose()).await.is_err());
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mnemonic_alone_brings_everything_back_on_an_empty_disk() {
    let street = Street::new().await;
    let till = street.till().await;
    for sat in [13, 200, 70] {
        let token = street.token(sat).await;
        let facts = till.decode(&token).unwrap();
        till.redeem(&OrderId::random(), &token, &facts).await.unwrap();
    }
    till.send(&street.name(), Sat(50)).await.unwrap();
    let before = held(&till).await;
    drop(till);
    // While the mint is away nothing is swapped with a seed whose use is not known…
    let empty = street.till_at("empty.sqlite", street.settings()).await;
    street.way.plan("v1/restore", Mishap::Status(500), 0, 1);
    let token = street.token(10).await;
    let facts = empty.decode(&token).unwrap();
    let refused = empty.redeem(&OrderId::random(), &token, &facts).await;
    assert!(matches!(refused, Err(NotRedeemed::Refused(refusal)) if refusal.code == ErrorType::MintNetworkError));
    drop(empty);
    // …not even after a restart; and then it is all there. (A token that was sent and not redeemed is the seed's too.)
    let empty = street.till_at("empty.sqlite", street.settings()).await;
    assert_eq!(empty.redeem(&OrderId::random(), &token, &facts).await, Ok(Sat(9)));
    assert_eq!(held(&empty).await, before + 50 + 9);
    books_balance(&empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyset_that_is_rotated_in_between_costs_nobody_anything() {
    let street = Street::new().await;
    let till = street.till().await;
    let (old, order) = (street.token(21).await, OrderId::random());
    let facts = till.decode(&old).unwrap();
    assert_eq!(till.appraise(&old, &facts).await.unwrap().net, Sat(20));
    let unit = cdk::nuts::CurrencyUnit::Sat;
    let amounts = (0..32).map(|n| 1_u64 << n).collect();
    let rotated = street.mint.mint().rotate_keyset(unit, amounts, 0, true, None).await;
    rotated.unwrap();
    // The till still believes in the old keyset; the mint does not sign with it any more.
    assert_eq!(till.redeem(&order, &old, &facts).await, Ok(Sat(20)), "old tokens stay good");
    let fresh = street.token(21).await;
    let facts = till.decode(&fresh).unwrap();
    assert!(till.redeem(&OrderId::random(), &fresh, &facts).await.is_ok());
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_proofs_are_refused_before_the_swap_where_they_show_it_and_by_the_mint_where_not() {
    let street = Street::new().await;
    let till = street.till().await;
    let token = street.token(8).await;
    // The same proof, said to be worth more.
    let forged = Secret::new(paygress_cashu::mint::inflated(token.expose()).unwrap());
    let facts = till.decode(&forged).unwrap();
    assert_eq!(facts.gross, Sat(16));
    let refused = match till.appraise(&forged, &facts).await {
        Err(refusal) => refusal,
        Ok(_) => match till.redeem(&OrderId::random(), &forged, &facts).await {
            Err(NotRedeemed::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(refused.code, ErrorType::InvalidToken, "{refused}");
    assert!(till.redeem(&OrderId::random(), &token, &till.decode(&token).unwrap()).await.is_ok(), "the true one is still good");
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_locked_to_the_service_is_opened_by_it_alone() {
    let street = Street::new().await;
    let key = "7".repeat(64);
    let till = street.till_at("locked.sqlite", Settings { lock: Some(Secret::new(key)), ..street.settings() }).await;
    let locked = Secret::new(street.wallet.locked_token(21, &till.lock().unwrap()).await.unwrap());
    assert!(street.wallet.redeem(locked.expose()).await.is_err(), "who has the token has not the key");
    let facts = till.decode(&locked).unwrap();
    let promised = till.appraise(&locked, &facts).await.unwrap().net;
    assert_eq!(till.redeem(&OrderId::random(), &locked, &facts).await, Ok(promised));
    let other = "02".to_owned() + &"8".repeat(64);
    let theirs = Secret::new(street.wallet.locked_token(21, &other).await.unwrap());
    assert_eq!(till.decode(&theirs).unwrap_err().code, ErrorType::InvalidToken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_holds_enough_is_refused_by_name() {
    let street = Street::new().await;
    let till = street.till_at("exposed.sqlite", Settings { exposure: Some(Sat(100)), ..street.settings() }).await;
    let token = street.token(80).await;
    let facts = till.decode(&token).unwrap();
    till.appraise(&token, &facts).await.unwrap();
    till.redeem(&OrderId::random(), &token, &facts).await.unwrap();
    let more = street.token(30).await;
    let refused = till.appraise(&more, &till.decode(&more).unwrap()).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::ResourceUnavailable);
    assert!(refused.message.contains("as much of this mint as it may"), "{refused}");
    let little = street.token(10).await;
    assert!(till.appraise(&little, &till.decode(&little).unwrap()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sends_and_pays_and_an_invoice_is_paid_once() {
    let street = Street::new().await;
    let till = street.till().await;
    let token = street.token(501).await;
    let facts = till.decode(&token).unwrap();
    let net = till.redeem(&OrderId::random(), &token, &facts).await.unwrap();
    let sent = till.send(&street.name(), Sat(77)).await.unwrap();
    assert_eq!(till.decode(&sent).unwrap().gross, Sat(77));
    assert!(street.wallet.redeem(sent.expose()).await.unwrap() >= 76);
    let shop = TestMint::start(0).await.unwrap();
    let invoice = shop.invoice(100).await.unwrap();
    let paid = till.pay(&street.name(), &invoice, None).await.unwrap();
    assert_eq!(paid.amount, Sat(100));
    let left = held(&till).await;
    assert_eq!(till.pay(&street.name(), &invoice, None).await.unwrap(), paid, "asked again it is the same payment");
    assert_eq!(held(&till).await, left);
    assert!(left <= net.0 - 77 - 100 && left + 10 >= net.0 - 177, "{left} of {net} are left");
    books_balance(&till).await;
    // An answer that is lost is found.
    let lost = shop.invoice(50).await.unwrap();
    street.way.plan("v1/melt/bolt11", Mishap::AnswerLost, 0, 1);
    let paid = till.pay(&street.name(), &lost, None).await;
    assert!(matches!(&paid, Ok(paid) if paid.amount == Sat(50)), "{paid:?}");
    books_balance(&till).await;
    let poor = shop.invoice(5_000).await.unwrap();
    assert!(matches!(till.pay(&street.name(), &poor, None).await, Err(WalletError::Failed(why)) if why.contains("not enough")));
    assert!(matches!(till.pay(&street.name(), "lnbcnonsense", None).await, Err(WalletError::Destination(_))));
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_goes_to_the_lightning_address_when_there_is_enough() {
    let street = Street::new().await;
    let till = street.till().await;
    let token = street.token(1_000).await;
    let facts = till.decode(&token).unwrap();
    till.redeem(&OrderId::random(), &token, &facts).await.unwrap();
    let bank = TestMint::start(0).await.unwrap();
    let address = bank.lightning_address().await.unwrap();
    assert_eq!(till.pay_out(&address, Sat(5_000)).await.unwrap(), [], "below the threshold nothing moves");
    let paid = till.pay_out(&address, Sat(500)).await.unwrap();
    assert_eq!(paid.len(), 1);
    assert!(paid[0].amount.0 > 950 && held(&till).await < 30, "{paid:?}, {} left", held(&till).await);
    books_balance(&till).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_hangs_holds_up_its_own_callers_only_for_a_while() {
    let street = Street::new().await;
    let away = TestMint::start(0).await.unwrap();
    let url = away.url().to_owned();
    drop(away);
    let both = Settings { mints: vec![street.way.url().to_owned(), url.clone()], ..street.settings() };
    let till = street.till_at("both.sqlite", both).await;
    let token = street.token(20).await;
    let elsewhere = Secret::new(relabelled(token.expose(), &url, "sat").unwrap());
    let facts = till.decode(&elsewhere).unwrap();
    for _ in 0..5 {
        assert_eq!(till.appraise(&elsewhere, &facts).await.unwrap_err().code, ErrorType::MintNetworkError);
    }
    let told = till.overview(false).await.unwrap();
    let dead = told.iter().find(|holding| holding.mint.0 == url).unwrap();
    assert!(dead.health.failures >= 3 && dead.health.until.is_some(), "{dead:?}");
    assert!(till.appraise(&token, &till.decode(&token).unwrap()).await.is_ok(), "the other mint's customers are served");
}
