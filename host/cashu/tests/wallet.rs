//! The wallet at a real mint, over a network with faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use paygress_cashu::{
    CashuWallet, HealthCheck, MintWalletError, OperationState, OperatorError, Seed, Settings,
    WalletStore,
};
use paygress_core::backend::wallet::{
    MintDirectory, Payments, ReceiveError, RefundIssuer, RefundState, Resolution, TokenReader,
};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::token::{as_v3, relabelled};
use paygress_sandbox::{FaultProxy, NetworkFault, TestMint, TestWallet};
use std::path::PathBuf;
use tempfile::TempDir;

const FEE_PPK: u64 = 100;

/// A mint behind a fault proxy, a customer's wallet that knows the mint by the proxy's URL, and a
/// directory for the service's wallets.
struct TestEnv {
    mint: TestMint,
    proxy: FaultProxy,
    customer: TestWallet,
    directory: TempDir,
}

impl TestEnv {
    async fn new() -> Self {
        let mint = TestMint::start(FEE_PPK).await.unwrap();
        let proxy = FaultProxy::to(mint.url()).await.unwrap();
        let customer = TestWallet::new(proxy.url()).await.unwrap();
        customer.fill(2_000).await.unwrap();
        Self { mint, proxy, customer, directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn wallet_at(&self, file: &str, settings: Settings) -> CashuWallet {
        let seed = Seed::load_or_create(&self.file("mnemonic")).await.unwrap();
        let store = WalletStore::sqlite(&self.file(file)).await.unwrap();
        CashuWallet::open(store, seed, &settings).await.unwrap()
    }

    fn settings(&self) -> Settings {
        Settings {
            mints: vec![self.proxy.url().to_owned()],
            max_balance: None,
            p2pk_secret_key: None,
        }
    }

    async fn wallet(&self) -> CashuWallet {
        self.wallet_at("wallet.sqlite", self.settings()).await
    }

    async fn token(&self, sat: u64) -> Secret {
        Secret::new(self.customer.token(sat).await.unwrap())
    }

    fn mint_url(&self) -> MintUrl {
        MintUrl::parse(self.proxy.url()).unwrap()
    }
}

async fn available(wallet: &CashuWallet) -> u64 {
    wallet.balances().await.unwrap().iter().map(|balance| balance.available.0).sum()
}

/// The wallet's operations add up to its balance.
async fn assert_balanced(wallet: &CashuWallet) {
    let booked: i64 = wallet
        .transactions()
        .await
        .unwrap()
        .iter()
        .filter(|transaction| transaction.state != OperationState::Open)
        .map(|transaction| transaction.delta)
        .sum();
    let balances = wallet.balances().await.unwrap();
    let held: u64 = balances.iter().map(|balance| balance.available.0 + balance.reserved.0).sum();
    assert_eq!(i64::try_from(held).unwrap(), booked);
}

/// The net amount, if the token was received.
fn received(resolution: &Resolution) -> Option<Sat> {
    match resolution {
        Resolution::Received(net) => Some(*net),
        _ => None,
    }
}

async fn resolved(wallet: &CashuWallet, order: &OrderId, token: &Secret) -> Resolution {
    let token_info = wallet.decode(token).await.unwrap();
    for _ in 0..200 {
        match wallet.resolve(order, &token_info).await {
            Resolution::Unknown(_) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await
            }
            known => return known,
        }
    }
    panic!("it stays unresolved")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_worth_its_net_amount_once_whatever_its_form() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    for (sat, form) in [(13, "v4"), (64, "v3"), (1_000, "uri")] {
        let token = env.token(sat).await;
        let text = match form {
            "v3" => as_v3(token.expose()).unwrap(),
            "uri" => format!("cashu:{}", token.expose()),
            _ => token.expose().to_owned(),
        };
        let token = Secret::new(text);
        let token_info = wallet.decode(&token).await.unwrap();
        let payment = wallet.verify(&token, &token_info).await.unwrap();
        assert_eq!((payment.gross, payment.net), (Sat(sat), Sat(sat - payment.fee.0)), "{form}");
        let before = available(&wallet).await;
        assert_eq!(
            wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap(),
            payment.net
        );
        assert_eq!(available(&wallet).await, before + payment.net.0);
        assert_eq!(
            wallet.verify(&token, &token_info).await.unwrap_err().code,
            ErrorType::TokenAlreadySpent
        );
        let again = wallet.receive(&OrderId::random(), &token, &token_info).await;
        assert!(
            matches!(again, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::TokenAlreadySpent)
        );
    }
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_swap_the_money_is_found() {
    let env = TestEnv::new().await;
    for (n, fault) in NetworkFault::ALL.into_iter().enumerate() {
        let file = format!("wallet{n}.sqlite");
        // A new seed for each.
        let _ = std::fs::remove_file(env.file("mnemonic"));
        let wallet = env.wallet_at(&file, env.settings()).await;
        let (order, token) = (OrderId::random(), env.token(21).await);
        let token_info = wallet.decode(&token).await.unwrap();
        let promised = wallet.verify(&token, &token_info).await.unwrap().net;
        // The first three requests fail, of swaps and of state checks.
        env.proxy.plan("v1/", fault, 0, 3);
        let redeemed = wallet.receive(&order, &token, &token_info).await;
        let net = match redeemed {
            Ok(net) => net,
            Err(ReceiveError::Unknown(_)) => match resolved(&wallet, &order, &token).await {
                Resolution::Received(net) => net,
                other => panic!("{fault:?}: {other:?}"),
            },
            Err(ReceiveError::Refused(refusal)) => {
                // Final: the token is still unspent.
                env.proxy.clear();
                assert_eq!(refusal.code, ErrorType::MintNetworkError, "{fault:?}");
                wallet
                    .receive(&order, &token, &token_info)
                    .await
                    .unwrap_or_else(|error| panic!("{fault:?}: {error}"))
            }
        };
        env.proxy.clear();
        assert_eq!((net, available(&wallet).await), (promised, promised.0), "{fault:?}");
        assert_balanced(&wallet).await;
        // Resolved again, it is the same money.
        assert_eq!(received(&resolved(&wallet, &order, &token).await), Some(promised), "{fault:?}");
        assert_eq!(available(&wallet).await, promised.0, "{fault:?}");
        assert!(
            env.customer.receive(token.expose()).await.is_err(),
            "{fault:?}: the token is ours"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_is_done_after_its_timeout_is_still_found() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let (order, token) = (OrderId::random(), env.token(21).await);
    let token_info = wallet.decode(&token).await.unwrap();
    env.proxy.plan("v1/swap", NetworkFault::Late(std::time::Duration::from_millis(700)), 0, 100);
    assert!(
        matches!(wallet.receive(&order, &token, &token_info).await, Err(ReceiveError::Unknown(_))),
        "it may still be on its way"
    );
    assert_eq!(received(&resolved(&wallet, &order, &token).await), Some(Sat(20)));
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_somebody_else_spends_meanwhile_is_not_called_ours() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let (order, token) = (OrderId::random(), env.token(21).await);
    let token_info = wallet.decode(&token).await.unwrap();
    env.proxy.plan("v1/swap", NetworkFault::LostOnTheWay, 0, 100);
    assert!(matches!(
        wallet.receive(&order, &token, &token_info).await,
        Err(ReceiveError::Unknown(_))
    ));
    env.proxy.clear();
    let thief = TestWallet::new(env.proxy.url()).await.unwrap();
    thief.receive(token.expose()).await.unwrap();
    assert!(matches!(resolved(&wallet, &order, &token).await, Resolution::SpentElsewhere));
    assert_eq!(available(&wallet).await, 0);
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_made_once_whatever_happens_and_can_be_redeemed() {
    let env = TestEnv::new().await;
    for (n, fault) in NetworkFault::ALL.into_iter().enumerate() {
        let _ = std::fs::remove_file(env.file("mnemonic"));
        let wallet = env.wallet_at(&format!("refund{n}.sqlite"), env.settings()).await;
        // One proof of 64: a refund of 21 needs a swap.
        let token = env.token(65).await;
        let token_info = wallet.decode(&token).await.unwrap();
        assert_eq!(wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap(), Sat(64));
        let order = OrderId::random();
        env.proxy.plan("v1/", fault, 0, 3);
        let mut tries = 0;
        let refund = loop {
            match wallet.refund(&order, &env.mint_url(), Sat(21)).await {
                Ok(refund) => break refund,
                Err(error) if tries > 100 => panic!("{fault:?}: {error}"),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        env.proxy.clear();
        assert_eq!(
            (refund.amount, refund.fee),
            (Sat(20), Sat(1)),
            "{fault:?}: the mint's fee is reported"
        );
        // It is the same token after a restart.
        drop(wallet);
        let wallet = env.wallet_at(&format!("refund{n}.sqlite"), env.settings()).await;
        assert_eq!(
            wallet.refund(&order, &env.mint_url(), Sat(21)).await.unwrap(),
            refund,
            "{fault:?}"
        );
        assert_eq!(available(&wallet).await, 64 - 21, "{fault:?}");
        assert_balanced(&wallet).await;
        assert_eq!(
            wallet.refund_state(&order, &env.mint_url()).await.unwrap(),
            RefundState::Waiting
        );
        env.customer.receive(refund.token.expose()).await.unwrap();
        assert_eq!(
            wallet.refund_state(&order, &env.mint_url()).await.unwrap(),
            RefundState::Redeemed
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_leaves_to_an_open_operation_what_is_its_own() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let token = env.token(65).await;
    let token_info = wallet.decode(&token).await.unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    // The process is killed while the mint makes a refund: it is signed, and that is not stored.
    let order = OrderId::random();
    env.proxy.plan("v1/swap", NetworkFault::Hang(true), 0, 1);
    let name = env.mint_url();
    tokio::select! {
        made = wallet.refund(&order, &name, Sat(21)) => panic!("{made:?}"),
        () = env.proxy.hung() => {}
    }
    drop(wallet);
    env.proxy.clear();
    let wallet = env.wallet().await;
    assert_eq!(wallet.restore(&env.mint_url()).await.unwrap(), Sat(0), "nothing of it is free");
    let refund = wallet.refund(&order, &env.mint_url(), Sat(21)).await.unwrap();
    assert_eq!((refund.amount, available(&wallet).await), (Sat(20), 64 - 21));
    assert_balanced(&wallet).await;
    env.customer.receive(refund.token.expose()).await.unwrap();
    assert_eq!(
        wallet.restore(&env.mint_url()).await.unwrap(),
        Sat(0),
        "nor is anything found twice"
    );
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_the_fee_would_take_is_made_whole() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let token = env.token(5).await;
    let token_info = wallet.decode(&token).await.unwrap();
    assert_eq!(wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap(), Sat(4));
    let refund = wallet.refund(&OrderId::random(), &env.mint_url(), Sat(1)).await.unwrap();
    assert_eq!(
        (refund.amount, refund.fee, available(&wallet).await),
        (Sat(1), Sat(0), 2),
        "one for the customer, one for the mint"
    );
    assert_balanced(&wallet).await;
    let much = wallet.refund(&OrderId::random(), &env.mint_url(), Sat(3)).await;
    assert!(much.is_err(), "a refund over more than the balance waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_not_redeemed_is_reclaimed_once() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let token = env.token(33).await;
    let token_info = wallet.decode(&token).await.unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    let order = OrderId::random();
    let refund = wallet.refund(&order, &env.mint_url(), Sat(32)).await.unwrap();
    assert_eq!(
        (refund.amount, refund.fee, available(&wallet).await),
        (Sat(32), Sat(0), 0),
        "the coin that came in goes back as it is"
    );
    let back = wallet
        .verify(&refund.token, &wallet.decode(&refund.token).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(back.code, ErrorType::InvalidToken, "our own refund is not a payment");
    assert_eq!(wallet.reclaim(&order, &env.mint_url()).await.unwrap(), Some(Sat(31)));
    assert_eq!(
        wallet.reclaim(&order, &env.mint_url()).await.unwrap(),
        Some(Sat(31)),
        "reclaiming is idempotent"
    );
    assert_eq!(available(&wallet).await, 31);
    assert!(env.customer.receive(refund.token.expose()).await.is_err());
    assert_balanced(&wallet).await;
}

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
async fn a_keyset_that_is_rotated_in_between_costs_nobody_anything() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let (old, order) = (env.token(21).await, OrderId::random());
    let token_info = wallet.decode(&old).await.unwrap();
    assert_eq!(wallet.verify(&old, &token_info).await.unwrap().net, Sat(20));
    let unit = cdk::nuts::CurrencyUnit::Sat;
    let amounts = (0..32).map(|n| 1_u64 << n).collect();
    let rotated = env.mint.mint().rotate_keyset(unit, amounts, 0, true, None).await;
    rotated.unwrap();
    // The wallet still has the old keyset cached; the mint no longer signs with it.
    assert_eq!(
        wallet.receive(&order, &old, &token_info).await.unwrap(),
        Sat(20),
        "old tokens stay good"
    );
    let fresh = env.token(21).await;
    let token_info = wallet.decode(&fresh).await.unwrap();
    assert!(wallet.receive(&OrderId::random(), &fresh, &token_info).await.is_ok());
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_proofs_are_refused_before_the_swap_where_they_show_it_and_by_the_mint_where_not() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let token = env.token(8).await;
    // The same proof, claimed to be worth more.
    let forged = Secret::new(paygress_sandbox::token::inflated(token.expose()).unwrap());
    let token_info = wallet.decode(&forged).await.unwrap();
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
        wallet
            .receive(&OrderId::random(), &token, &wallet.decode(&token).await.unwrap())
            .await
            .is_ok(),
        "the genuine token is still good"
    );
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_locked_to_the_service_is_opened_by_it_alone() {
    let env = TestEnv::new().await;
    let key = "7".repeat(64);
    let wallet = env
        .wallet_at(
            "locked.sqlite",
            Settings { p2pk_secret_key: Some(Secret::new(key)), ..env.settings() },
        )
        .await;
    let locked =
        Secret::new(env.customer.locked_token(21, &wallet.p2pk_pubkey().unwrap()).await.unwrap());
    assert!(env.customer.receive(locked.expose()).await.is_err(), "the token alone is not enough");
    let token_info = wallet.decode(&locked).await.unwrap();
    let promised = wallet.verify(&locked, &token_info).await.unwrap().net;
    assert_eq!(wallet.receive(&OrderId::random(), &locked, &token_info).await.unwrap(), promised);
    let other = "02".to_owned() + &"8".repeat(64);
    let theirs = Secret::new(env.customer.locked_token(21, &other).await.unwrap());
    assert_eq!(wallet.decode(&theirs).await.unwrap_err().code, ErrorType::InvalidToken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_holds_enough_is_refused_by_name() {
    let env = TestEnv::new().await;
    let wallet = env
        .wallet_at("exposed.sqlite", Settings { max_balance: Some(Sat(100)), ..env.settings() })
        .await;
    let token = env.token(80).await;
    let token_info = wallet.decode(&token).await.unwrap();
    wallet.verify(&token, &token_info).await.unwrap();
    wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
    let more = env.token(30).await;
    let refused = wallet.verify(&more, &wallet.decode(&more).await.unwrap()).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::ResourceUnavailable);
    assert!(refused.message.contains("as much of this mint as it may"), "{refused}");
    let little = env.token(10).await;
    assert!(wallet.verify(&little, &wallet.decode(&little).await.unwrap()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sends_and_melts_and_an_invoice_is_paid_once() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let token = env.token(501).await;
    let token_info = wallet.decode(&token).await.unwrap();
    let net = wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_hangs_holds_up_its_own_callers_only_for_a_while() {
    let env = TestEnv::new().await;
    let stopped = TestMint::start(0).await.unwrap();
    let url = stopped.url().to_owned();
    drop(stopped);
    let both = Settings { mints: vec![env.proxy.url().to_owned(), url.clone()], ..env.settings() };
    let wallet = env.wallet_at("both.sqlite", both).await;
    let token = env.token(20).await;
    let elsewhere = Secret::new(relabelled(token.expose(), &url, "sat").unwrap());
    let token_info = wallet.decode(&elsewhere).await.unwrap();
    for _ in 0..5 {
        assert_eq!(
            wallet.verify(&elsewhere, &token_info).await.unwrap_err().code,
            ErrorType::MintNetworkError
        );
    }
    let overview = wallet.overview(HealthCheck::Cached).await.unwrap();
    let dead = overview.iter().find(|status| status.balance.mint.as_str() == url).unwrap();
    assert!(dead.health.failures >= 3 && dead.health.suspended_until.is_some(), "{dead:?}");
    assert!(
        wallet.verify(&token, &wallet.decode(&token).await.unwrap()).await.is_ok(),
        "the other mint's customers are served"
    );
}
