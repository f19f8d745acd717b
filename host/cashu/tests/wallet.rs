//! The till at a real mint, and what becomes of money when the way there is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use paygress_cashu::fault_proxy::{FaultProxy, NetworkFault};
use paygress_cashu::test_mint::{TestMint, TestWallet, as_v3, relabelled};
use paygress_cashu::{CashuWallet, Seed, Settings, WalletError, WalletStore};
use paygress_core::backend::wallet::{ReceiveError, RefundState, Resolution, Wallet};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{MintUrl, OrderId, Sat};
use std::path::PathBuf;
use tempfile::TempDir;

const FEE_PPK: u64 = 100;

/// A mint, a faulty way to it, a customer's wallet that knows the mint by that way, and a till on a
/// disk.
struct TestEnv {
    mint: TestMint,
    way: FaultProxy,
    wallet: TestWallet,
    directory: TempDir,
}

impl TestEnv {
    async fn new() -> Self {
        let mint = TestMint::start(FEE_PPK).await.unwrap();
        let way = FaultProxy::to(mint.url()).await.unwrap();
        let wallet = TestWallet::new(way.url()).await.unwrap();
        wallet.fill(2_000).await.unwrap();
        Self { mint, way, wallet, directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn till_at(&self, wallet_store: &str, settings: Settings) -> CashuWallet {
        let seed = Seed::at(&self.file("mnemonic")).unwrap();
        CashuWallet::open(WalletStore::sqlite(&self.file(wallet_store)).unwrap(), seed, &settings)
            .await
            .unwrap()
    }

    fn settings(&self) -> Settings {
        Settings { mints: vec![self.way.url().to_owned()], max_balance: None, lock: None }
    }

    async fn wallet(&self) -> CashuWallet {
        self.till_at("purse.sqlite", self.settings()).await
    }

    async fn token(&self, sat: u64) -> Secret {
        Secret::new(self.wallet.token(sat).await.unwrap())
    }

    fn name(&self) -> MintUrl {
        MintUrl(self.way.url().to_owned())
    }
}

async fn held(wallet: &CashuWallet) -> u64 {
    wallet.balances().await.unwrap().iter().map(|(_, free, _)| free.0).sum()
}

/// The purse's operations make what it holds.
async fn books_balance(wallet: &CashuWallet) {
    let booked: i64 = wallet
        .entries()
        .await
        .unwrap()
        .iter()
        .filter(|entry| !entry.open)
        .map(|entry| entry.delta)
        .sum();
    let all: u64 =
        wallet.balances().await.unwrap().iter().map(|(_, free, held)| free.0 + held.0).sum();
    assert_eq!(i64::try_from(all).unwrap(), booked);
}

async fn settled(wallet: &CashuWallet, order: &OrderId, token: &Secret) -> Resolution {
    let token_info = wallet.decode(token).unwrap();
    for _ in 0..200 {
        match wallet.resolve(order, &token_info).await {
            Resolution::Unknown(_) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await
            }
            known => return known,
        }
    }
    panic!("it stays unknown")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_worth_its_net_amount_once_whatever_its_form() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    for (sat, form) in [(13, "v4"), (64, "v3"), (1_000, "uri")] {
        let token = street.token(sat).await;
        let text = match form {
            "v3" => as_v3(token.expose()).unwrap(),
            "uri" => format!("cashu:{}", token.expose()),
            _ => token.expose().to_owned(),
        };
        let token = Secret::new(text);
        let token_info = wallet.decode(&token).unwrap();
        let payment = wallet.verify(&token, &token_info).await.unwrap();
        assert_eq!((payment.gross, payment.net), (Sat(sat), Sat(sat - payment.fee.0)), "{form}");
        let before = held(&wallet).await;
        assert_eq!(wallet.receive(&OrderId::random(), &token, &token_info).await, Ok(payment.net));
        assert_eq!(held(&wallet).await, before + payment.net.0);
        assert_eq!(
            wallet.verify(&token, &token_info).await.unwrap_err().code,
            ErrorType::TokenAlreadySpent
        );
        let again = wallet.receive(&OrderId::random(), &token, &token_info).await;
        assert!(
            matches!(again, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::TokenAlreadySpent)
        );
    }
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_swap_the_money_is_found() {
    let street = TestEnv::new().await;
    for (n, mishap) in NetworkFault::ALL.into_iter().enumerate() {
        let wallet_store = format!("purse{n}.sqlite");
        // A new seed each, as in a house of its own.
        let _ = std::fs::remove_file(street.file("mnemonic"));
        let wallet = street.till_at(&wallet_store, street.settings()).await;
        let (order, token) = (OrderId::random(), street.token(21).await);
        let token_info = wallet.decode(&token).unwrap();
        let promised = wallet.verify(&token, &token_info).await.unwrap().net;
        // Until the third try the way is bad for swaps and for finding out.
        street.way.plan("v1/", mishap, 0, 3);
        let redeemed = wallet.receive(&order, &token, &token_info).await;
        let net = match redeemed {
            Ok(net) => net,
            Err(ReceiveError::Unknown(_)) => match settled(&wallet, &order, &token).await {
                Resolution::Received(net) => net,
                other => panic!("{mishap:?}: {other:?}"),
            },
            Err(ReceiveError::Refused(refusal)) => {
                // Then it is for certain: the token is good.
                street.way.clear();
                assert_eq!(refusal.code, ErrorType::MintNetworkError, "{mishap:?}");
                wallet
                    .receive(&order, &token, &token_info)
                    .await
                    .unwrap_or_else(|error| panic!("{mishap:?}: {error}"))
            }
        };
        street.way.clear();
        assert_eq!((net, held(&wallet).await), (promised, promised.0), "{mishap:?}");
        books_balance(&wallet).await;
        // Asked once more it is the same money.
        assert_eq!(
            settled(&wallet, &order, &token).await,
            Resolution::Received(promised),
            "{mishap:?}"
        );
        assert_eq!(held(&wallet).await, promised.0, "{mishap:?}");
        assert!(
            street.wallet.redeem(token.expose()).await.is_err(),
            "{mishap:?}: the token is ours"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_is_done_after_everybody_gave_up_is_still_found() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let (order, token) = (OrderId::random(), street.token(21).await);
    let token_info = wallet.decode(&token).unwrap();
    street.way.plan("v1/swap", NetworkFault::Late(std::time::Duration::from_millis(700)), 0, 100);
    assert!(
        matches!(wallet.receive(&order, &token, &token_info).await, Err(ReceiveError::Unknown(_))),
        "it may still be on its way"
    );
    assert_eq!(settled(&wallet, &order, &token).await, Resolution::Received(Sat(20)));
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_somebody_else_spends_meanwhile_is_not_called_ours() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let (order, token) = (OrderId::random(), street.token(21).await);
    let token_info = wallet.decode(&token).unwrap();
    street.way.plan("v1/swap", NetworkFault::LostOnTheWay, 0, 100);
    assert!(matches!(
        wallet.receive(&order, &token, &token_info).await,
        Err(ReceiveError::Unknown(_))
    ));
    street.way.clear();
    let thief = TestWallet::new(street.way.url()).await.unwrap();
    thief.redeem(token.expose()).await.unwrap();
    assert_eq!(settled(&wallet, &order, &token).await, Resolution::SpentElsewhere);
    assert_eq!(held(&wallet).await, 0);
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_made_once_whatever_happens_and_can_be_redeemed() {
    let street = TestEnv::new().await;
    for (n, mishap) in NetworkFault::ALL.into_iter().enumerate() {
        let _ = std::fs::remove_file(street.file("mnemonic"));
        let wallet = street.till_at(&format!("refund{n}.sqlite"), street.settings()).await;
        // 64 in one coin: 21 of it can only be paid back through a swap.
        let token = street.token(65).await;
        let token_info = wallet.decode(&token).unwrap();
        assert_eq!(wallet.receive(&OrderId::random(), &token, &token_info).await, Ok(Sat(64)));
        let order = OrderId::random();
        street.way.plan("v1/", mishap, 0, 3);
        let mut tries = 0;
        let refund = loop {
            match wallet.refund(&order, &street.name(), Sat(21)).await {
                Ok(refund) => break refund,
                Err(why) if tries > 100 => panic!("{mishap:?}: {why}"),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        street.way.clear();
        assert_eq!(
            (refund.amount, refund.fee),
            (Sat(20), Sat(1)),
            "{mishap:?}: the mint's fee is told"
        );
        // After a restart it is the same one.
        drop(wallet);
        let wallet = street.till_at(&format!("refund{n}.sqlite"), street.settings()).await;
        assert_eq!(
            wallet.refund(&order, &street.name(), Sat(21)).await.unwrap(),
            refund,
            "{mishap:?}"
        );
        assert_eq!(held(&wallet).await, 64 - 21, "{mishap:?}");
        books_balance(&wallet).await;
        assert_eq!(wallet.refund_state(&order, &street.name()).await, Ok(RefundState::Waiting));
        street.wallet.redeem(refund.token.expose()).await.unwrap();
        assert_eq!(wallet.refund_state(&order, &street.name()).await, Ok(RefundState::Redeemed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_leaves_to_an_open_operation_what_is_its_own() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let token = street.token(65).await;
    let token_info = wallet.decode(&token).unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    // The process is killed while the mint makes a refund: it is signed, and nobody has written
    // that down.
    let order = OrderId::random();
    street.way.plan("v1/swap", NetworkFault::Hang(true), 0, 1);
    let name = street.name();
    tokio::select! {
        made = wallet.refund(&order, &name, Sat(21)) => panic!("{made:?}"),
        () = street.way.hung() => {}
    }
    drop(wallet);
    street.way.clear();
    let wallet = street.wallet().await;
    assert_eq!(wallet.restore(&street.name()).await.unwrap(), Sat(0), "nothing of it is free");
    let refund = wallet.refund(&order, &street.name(), Sat(21)).await.unwrap();
    assert_eq!((refund.amount, held(&wallet).await), (Sat(20), 64 - 21));
    books_balance(&wallet).await;
    street.wallet.redeem(refund.token.expose()).await.unwrap();
    assert_eq!(
        wallet.restore(&street.name()).await.unwrap(),
        Sat(0),
        "nor is anything found twice"
    );
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_the_fee_would_take_is_made_whole() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let token = street.token(5).await;
    let token_info = wallet.decode(&token).unwrap();
    assert_eq!(wallet.receive(&OrderId::random(), &token, &token_info).await, Ok(Sat(4)));
    let refund = wallet.refund(&OrderId::random(), &street.name(), Sat(1)).await.unwrap();
    assert_eq!(
        (refund.amount, refund.fee, held(&wallet).await),
        (Sat(1), Sat(0), 2),
        "one for the customer, one for the mint"
    );
    books_balance(&wallet).await;
    let much = wallet.refund(&OrderId::random(), &street.name(), Sat(3)).await;
    assert!(much.is_err(), "what the purse does not hold waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_nobody_redeems_is_taken_back_once() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let token = street.token(33).await;
    let token_info = wallet.decode(&token).unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    let order = OrderId::random();
    let refund = wallet.refund(&order, &street.name(), Sat(32)).await.unwrap();
    assert_eq!(
        (refund.amount, refund.fee, held(&wallet).await),
        (Sat(32), Sat(0), 0),
        "the coin that came in goes back as it is"
    );
    let back =
        wallet.verify(&refund.token, &wallet.decode(&refund.token).unwrap()).await.unwrap_err();
    assert_eq!(back.code, ErrorType::InvalidToken, "our own refund is not a payment");
    assert_eq!(wallet.reclaim(&order, &street.name()).await, Ok(Some(Sat(31))));
    assert_eq!(wallet.reclaim(&order, &street.name()).await, Ok(Some(Sat(31))), "twice is once");
    assert_eq!(held(&wallet).await, 31);
    assert!(street.wallet.redeem(refund.token.expose()).await.is_err());
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mnemonic_alone_brings_everything_back_on_an_empty_disk() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    for sat in [13, 200, 70] {
        let token = street.token(sat).await;
        let token_info = wallet.decode(&token).unwrap();
        wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    }
    wallet.send(&street.name(), Sat(50)).await.unwrap();
    let before = held(&wallet).await;
    drop(wallet);
    // While the mint is away nothing is swapped with a seed whose use is not known…
    let empty = street.till_at("empty.sqlite", street.settings()).await;
    street.way.plan("v1/restore", NetworkFault::Status(500), 0, 1);
    let token = street.token(10).await;
    let token_info = empty.decode(&token).unwrap();
    let refused = empty.redeem(&OrderId::random(), &token, &token_info).await;
    assert!(
        matches!(refused, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::MintNetworkError)
    );
    drop(empty);
    // …not even after a restart; and then it is all there. (A token that was sent and not redeemed
    // is the seed's too.)
    let empty = street.till_at("empty.sqlite", street.settings()).await;
    assert_eq!(empty.redeem(&OrderId::random(), &token, &token_info).await, Ok(Sat(9)));
    assert_eq!(held(&empty).await, before + 50 + 9);
    books_balance(&empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyset_that_is_rotated_in_between_costs_nobody_anything() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let (old, order) = (street.token(21).await, OrderId::random());
    let token_info = wallet.decode(&old).unwrap();
    assert_eq!(wallet.verify(&old, &token_info).await.unwrap().net, Sat(20));
    let unit = cdk::nuts::CurrencyUnit::Sat;
    let amounts = (0..32).map(|n| 1_u64 << n).collect();
    let rotated = street.mint.mint().rotate_keyset(unit, amounts, 0, true, None).await;
    rotated.unwrap();
    // The till still believes in the old keyset; the mint does not sign with it any more.
    assert_eq!(
        wallet.receive(&order, &old, &token_info).await,
        Ok(Sat(20)),
        "old tokens stay good"
    );
    let fresh = street.token(21).await;
    let token_info = wallet.decode(&fresh).unwrap();
    assert!(wallet.receive(&OrderId::random(), &fresh, &token_info).await.is_ok());
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_proofs_are_refused_before_the_swap_where_they_show_it_and_by_the_mint_where_not() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let token = street.token(8).await;
    // The same proof, said to be worth more.
    let forged = Secret::new(paygress_cashu::test_mint::inflated(token.expose()).unwrap());
    let token_info = wallet.decode(&forged).unwrap();
    assert_eq!(token_info.gross, Sat(16));
    let refused = match wallet.verify(&forged, &token_info).await {
        Err(refusal) => refusal,
        Ok(_) => match wallet.receive(&OrderId::random(), &forged, &token_info).await {
            Err(ReceiveError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(refused.code, ErrorType::InvalidToken, "{refused}");
    assert!(
        wallet.receive(&OrderId::random(), &token, &wallet.decode(&token).unwrap()).await.is_ok(),
        "the true one is still good"
    );
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_locked_to_the_service_is_opened_by_it_alone() {
    let street = TestEnv::new().await;
    let key = "7".repeat(64);
    let wallet = street
        .till_at("locked.sqlite", Settings { lock: Some(Secret::new(key)), ..street.settings() })
        .await;
    let locked =
        Secret::new(street.wallet.locked_token(21, &wallet.p2pk_pubkey().unwrap()).await.unwrap());
    assert!(
        street.wallet.redeem(locked.expose()).await.is_err(),
        "who has the token has not the key"
    );
    let token_info = wallet.decode(&locked).unwrap();
    let promised = wallet.verify(&locked, &token_info).await.unwrap().net;
    assert_eq!(wallet.receive(&OrderId::random(), &locked, &token_info).await, Ok(promised));
    let other = "02".to_owned() + &"8".repeat(64);
    let theirs = Secret::new(street.wallet.locked_token(21, &other).await.unwrap());
    assert_eq!(wallet.decode(&theirs).unwrap_err().code, ErrorType::InvalidToken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_holds_enough_is_refused_by_name() {
    let street = TestEnv::new().await;
    let wallet = street
        .till_at("exposed.sqlite", Settings { max_balance: Some(Sat(100)), ..street.settings() })
        .await;
    let token = street.token(80).await;
    let token_info = wallet.decode(&token).unwrap();
    wallet.verify(&token, &token_info).await.unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    let more = street.token(30).await;
    let refused = wallet.verify(&more, &wallet.decode(&more).unwrap()).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::ResourceUnavailable);
    assert!(refused.message.contains("as much of this mint as it may"), "{refused}");
    let little = street.token(10).await;
    assert!(wallet.verify(&little, &wallet.decode(&little).unwrap()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sends_and_pays_and_an_invoice_is_paid_once() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let token = street.token(501).await;
    let token_info = wallet.decode(&token).unwrap();
    let net = wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    let sent = wallet.send(&street.name(), Sat(77)).await.unwrap();
    assert_eq!(wallet.decode(&sent).unwrap().gross, Sat(77));
    assert!(street.wallet.redeem(sent.expose()).await.unwrap() >= 76);
    let shop = TestMint::start(0).await.unwrap();
    let invoice = shop.invoice(100).await.unwrap();
    let paid = wallet.pay(&street.name(), &invoice, None).await.unwrap();
    assert_eq!(paid.amount, Sat(100));
    let left = held(&wallet).await;
    assert_eq!(
        wallet.pay(&street.name(), &invoice, None).await.unwrap(),
        paid,
        "asked again it is the same payment"
    );
    assert_eq!(held(&wallet).await, left);
    assert!(left <= net.0 - 77 - 100 && left + 10 >= net.0 - 177, "{left} of {net} are left");
    books_balance(&wallet).await;
    // An answer that is lost is found.
    let lost = shop.invoice(50).await.unwrap();
    street.way.plan("v1/melt/bolt11", NetworkFault::AnswerLost, 0, 1);
    let paid = wallet.pay(&street.name(), &lost, None).await;
    assert!(matches!(&paid, Ok(paid) if paid.amount == Sat(50)), "{paid:?}");
    books_balance(&wallet).await;
    let poor = shop.invoice(5_000).await.unwrap();
    assert!(
        matches!(wallet.pay(&street.name(), &poor, None).await, Err(WalletError::Failed(why)) if why.contains("not enough"))
    );
    assert!(matches!(
        wallet.pay(&street.name(), "lnbcnonsense", None).await,
        Err(WalletError::Destination(_))
    ));
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_goes_to_the_lightning_address_when_there_is_enough() {
    let street = TestEnv::new().await;
    let wallet = street.wallet().await;
    let token = street.token(1_000).await;
    let token_info = wallet.decode(&token).unwrap();
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
        paid[0].amount.0 > 950 && held(&wallet).await < 30,
        "{paid:?}, {} left",
        held(&wallet).await
    );
    books_balance(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_hangs_holds_up_its_own_callers_only_for_a_while() {
    let street = TestEnv::new().await;
    let away = TestMint::start(0).await.unwrap();
    let url = away.url().to_owned();
    drop(away);
    let both =
        Settings { mints: vec![street.way.url().to_owned(), url.clone()], ..street.settings() };
    let wallet = street.till_at("both.sqlite", both).await;
    let token = street.token(20).await;
    let elsewhere = Secret::new(relabelled(token.expose(), &url, "sat").unwrap());
    let token_info = wallet.decode(&elsewhere).unwrap();
    for _ in 0..5 {
        assert_eq!(
            wallet.verify(&elsewhere, &token_info).await.unwrap_err().code,
            ErrorType::MintNetworkError
        );
    }
    let told = wallet.overview(false).await.unwrap();
    let dead = told.iter().find(|holding| holding.mint.0 == url).unwrap();
    assert!(dead.health.failures >= 3 && dead.health.until.is_some(), "{dead:?}");
    assert!(
        wallet.verify(&token, &wallet.decode(&token).unwrap()).await.is_ok(),
        "the other mint's customers are served"
    );
}
