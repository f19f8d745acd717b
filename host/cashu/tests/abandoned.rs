//! Payments that stay without an answer until nobody wants them any more. In a program of its own:
//! its clock jumps.
#![cfg(test)]

use paygress_cashu::{CashuWallet, OperationState, Seed, Settings, WalletStore};
use paygress_core::backend::wallet::{
    Payments, ReceiveError, RecoveryFailure, Resolution, ResolveMode, TokenInfo, TokenReader,
};
use paygress_core::limits;
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, set_clock_wrong};
use paygress_sandbox::token::forged_with;
use paygress_sandbox::{FaultProxy, MintAnswer, NetworkFault, TestMint, TestWallet};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Longer than any request can be on its way.
const LONG: i64 = 901;
/// The clock is one for all tests of this program.
static CLOCK: Mutex<()> = Mutex::const_new(());

struct TestEnv {
    proxy: FaultProxy,
    customer: TestWallet,
    directory: TempDir,
    _mint: TestMint,
}

impl TestEnv {
    async fn new() -> Self {
        let mint = TestMint::start(100).await.unwrap();
        let proxy = FaultProxy::to(mint.url()).await.unwrap();
        let customer = TestWallet::new(proxy.url()).await.unwrap();
        customer.fill(500).await.unwrap();
        Self { proxy, customer, directory: tempfile::tempdir().unwrap(), _mint: mint }
    }

    async fn wallet(&self) -> CashuWallet {
        let at = |name: &str| self.directory.path().join(name);
        let seed = Seed::load_or_create(&at("mnemonic")).await.unwrap();
        let store = WalletStore::sqlite(&at("wallet.sqlite")).await.unwrap();
        let mints = vec![MintUrl::parse(self.proxy.url()).unwrap()];
        let settings = Settings { mints, max_balance: None, p2pk_secret_key: None };
        CashuWallet::open(store, seed, &settings).await.unwrap()
    }

    async fn token(&self, sat: u64) -> Secret {
        Secret::new(self.customer.token(sat).await.unwrap())
    }
}

/// Pays with this token; the outcome is unknown.
async fn pay(wallet: &CashuWallet, token: &Secret) -> (OrderId, TokenInfo) {
    let (order, token_info) = (OrderId::random(), wallet.decode(token).await.unwrap());
    let outcome = wallet.receive(&order, token, &token_info).await;
    assert!(matches!(outcome, Err(ReceiveError::Unknown(_))), "{outcome:?}");
    (order, token_info)
}

async fn open_operations(wallet: &CashuWallet) -> usize {
    let transactions = wallet.transactions().await.unwrap();
    transactions.iter().filter(|one| one.state == OperationState::Open).count()
}

/// How the payments of this wallet end, once nothing was requested for long.
async fn ends_later(
    wallet: &CashuWallet,
    payments: &[(OrderId, TokenInfo)],
    seconds: i64,
) -> Vec<Resolution> {
    set_clock_wrong(seconds);
    let mut ends = Vec::new();
    for (order, token_info) in payments {
        ends.push(wallet.resolve(order, token_info, ResolveMode::CheckOnly).await);
    }
    set_clock_wrong(0);
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_that_a_tokens_content_keeps_unknown_end_once_they_are_abandoned() {
    let _alone = CLOCK.lock().await;
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    // A firewall before the mint.
    let garbage = NetworkFault::Answer(MintAnswer::GARBAGE);
    env.proxy.plan_for_content("v1/swap", "<script>", garbage);
    let genuine = env.token(8).await;
    let mut payments = Vec::new();
    for n in 0..limits::UNKNOWN_UNPROVEN {
        let token = forged_with(genuine.expose(), n, "<script>").unwrap();
        payments.push(pay(&wallet, &Secret::new(token)).await);
    }
    // As long as they are wanted, each repetition is one more request.
    let (order, token_info) = &payments[0];
    let repeated = wallet.resolve(order, token_info, ResolveMode::Repeat).await;
    assert!(matches!(repeated, Resolution::Unknown(_)), "{repeated:?}");
    let requests = env.proxy.met();
    assert_eq!(requests, payments.len() + 1);
    // Afterwards nothing is sent, neither by their orders nor by the recovery that runs beside them.
    let begun = Instant::now();
    for seconds in [0, LONG - 60] {
        let ends = ends_later(&wallet, &payments, seconds).await;
        let is_unknown = |end: &Resolution| matches!(end, Resolution::Unknown(_));
        assert!(ends.iter().all(is_unknown), "{seconds} s: {ends:?}");
    }
    let open = wallet.recover().await.unwrap_err();
    assert!(
        matches!(&open.mints[0].failure, RecoveryFailure::Open { operations } if *operations == payments.len()),
        "{open:?}"
    );
    let ends = ends_later(&wallet, &payments, LONG).await;
    assert!(ends.iter().all(|end| matches!(end, Resolution::NotSpent)), "{ends:?}");
    assert_eq!((env.proxy.met(), open_operations(&wallet).await), (requests, 0));
    println!("{} unknown payments ended in {:.1?}", payments.len(), begun.elapsed());
    let token_info = wallet.decode(&genuine).await.unwrap();
    let received = wallet.receive(&OrderId::random(), &genuine, &token_info).await;
    assert_eq!(received.unwrap(), Sat(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_an_earlier_process_may_be_on_its_way_however_the_clock_jumps() {
    let _alone = CLOCK.lock().await;
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    env.proxy.plan("v1/swap", NetworkFault::LostOnTheWay, 0, 1);
    let payment = [pay(&wallet, &env.token(21).await).await];
    drop(wallet);
    set_clock_wrong(86_400);
    let wallet = env.wallet().await;
    let ends = ends_later(&wallet, &payment, 86_400).await;
    assert!(matches!(ends.as_slice(), [Resolution::Unknown(_)]), "{ends:?}");
    let ends = ends_later(&wallet, &payment, 86_400 + LONG).await;
    assert!(matches!(ends.as_slice(), [Resolution::NotSpent]), "{ends:?}");
    // One that was requested by a clock that was wrong counts from when that is seen.
    set_clock_wrong(86_400);
    env.proxy.plan("v1/swap", NetworkFault::LostOnTheWay, 0, 1);
    let payment = [pay(&wallet, &env.token(21).await).await];
    drop(wallet);
    set_clock_wrong(0);
    let wallet = env.wallet().await;
    for (seconds, is_over) in [(0, false), (LONG, true)] {
        let ends = ends_later(&wallet, &payment, seconds).await;
        assert_eq!(matches!(ends.as_slice(), [Resolution::NotSpent]), is_over, "{ends:?}");
    }
    assert_eq!(env.proxy.met(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_payment_that_the_mint_does_after_all_is_received() {
    let _alone = CLOCK.lock().await;
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let on_its_way = NetworkFault::Late(Duration::from_millis(300));
    env.proxy.plan("v1/swap", on_its_way, 0, 1);
    let (order, token_info) = pay(&wallet, &env.token(21).await).await;
    let begun = Instant::now();
    let net = loop {
        match wallet.resolve(&order, &token_info, ResolveMode::CheckOnly).await {
            Resolution::Unknown(_) => assert!(begun.elapsed() < Duration::from_secs(60)),
            Resolution::Received(net) => break net,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((net, env.proxy.met(), open_operations(&wallet).await), (Sat(20), 1, 0));
}
