//! Tokens of customers: verified and received, or refused.

use crate::{TestEnv, assert_balanced, available, received, resolved};
use paygress_cashu::{CashuWallet, HealthCheck, Settings};
use paygress_core::backend::wallet::{
    MintDirectory, Payments, ReceiveError, Resolution, TokenReader,
};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::token::{as_v3, forged, inflated, relabelled, without_dleq};
use paygress_sandbox::{MintAnswer, NetworkFault, TestMint, TestWallet};
use std::time::{Duration, Instant};

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
    for (n, fault) in NetworkFault::ALL.into_iter().chain(NetworkFault::answers()).enumerate() {
        let file = format!("wallet{n}.sqlite");
        // A new seed for each.
        let _ = std::fs::remove_file(env.file("mnemonic"));
        let wallet = env.wallet_at(&file, env.settings()).await;
        let (mut order, token) = (OrderId::random(), env.token(21).await);
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
                // Final for this order: the token is still unspent, and another one may have it.
                env.proxy.clear();
                order = OrderId::random();
                let expected = match fault {
                    NetworkFault::Answer(MintAnswer::PENDING) => ErrorType::TokenPending,
                    _ => ErrorType::MintNetworkError,
                };
                assert_eq!(refusal.code, expected, "{fault:?}");
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
    env.proxy.plan("v1/swap", NetworkFault::Late(Duration::from_millis(700)), 0, 100);
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

async fn rotate_keyset(env: &TestEnv) {
    let unit = cdk::nuts::CurrencyUnit::Sat;
    let amounts = (0..32).map(|n| 1_u64 << n).collect();
    env.mint.mint().rotate_keyset(unit, amounts, 0, true, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyset_that_is_rotated_in_between_costs_nobody_anything() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let (old, order) = (env.token(21).await, OrderId::random());
    let token_info = wallet.decode(&old).await.unwrap();
    assert_eq!(wallet.verify(&old, &token_info).await.unwrap().net, Sat(20));
    rotate_keyset(&env).await;
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
    let forged = Secret::new(inflated(token.expose()).unwrap());
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
    let pubkey = wallet.p2pk_pubkey().unwrap();
    let locked = Secret::new(env.customer.locked_token(21, pubkey.as_str()).await.unwrap());
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
async fn twelve_orders_at_a_time_do_not_exceed_what_one_mint_may_hold() {
    let env = TestEnv::new().await;
    let settings = Settings { max_balance: Some(Sat(50)), ..env.settings() };
    let wallet = env.wallet_at("exposed.sqlite", settings).await;
    let mut tokens = Vec::new();
    for _ in 0..12 {
        tokens.push(env.token(40).await);
    }
    // All are verified before the first is received.
    let mut verified = Vec::new();
    for token in tokens {
        let token_info = wallet.decode(&token).await.unwrap();
        wallet.verify(&token, &token_info).await.unwrap();
        verified.push((token, token_info));
    }
    let payee = &wallet;
    let receive = verified.into_iter().map(|(token, token_info)| async move {
        (payee.receive(&OrderId::random(), &token, &token_info).await, token)
    });
    let outcomes = futures::future::join_all(receive).await;
    let (received, refused): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|(outcome, _)| outcome.is_ok());
    assert_eq!((received.len(), refused.len()), (1, 11));
    assert_eq!(available(&wallet).await, 39);
    for (outcome, token) in refused {
        assert!(
            matches!(&outcome, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::ResourceUnavailable),
            "{outcome:?}"
        );
        env.customer.receive(token.expose()).await.unwrap();
    }
    assert_balanced(&wallet).await;
}

/// Forged tokens count for what they say until the mint has refused them.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_token_uses_up_no_limit_of_what_a_mint_may_hold() {
    let env = TestEnv::new().await;
    let settings = Settings { max_balance: Some(Sat(100)), ..env.settings() };
    let wallet = env.wallet_at("exposed.sqlite", settings).await;
    let worthless = Secret::new(forged(env.token(60).await.expose(), 0).unwrap());
    let (forger, forged_info) = (OrderId::random(), wallet.decode(&worthless).await.unwrap());
    env.proxy.plan("v1/swap", NetworkFault::Hang(false), 0, 1);
    tokio::select! {
        outcome = wallet.receive(&forger, &worthless, &forged_info) => panic!("{outcome:?}"),
        () = env.proxy.hung() => {}
    }
    // It is not known yet that it is forged. A token that cannot be is received beside it.
    let proven = env.token(45).await;
    let token_info = wallet.decode(&proven).await.unwrap();
    let received = wallet.receive(&OrderId::random(), &proven, &token_info).await;
    assert_eq!(received.unwrap(), Sat(44));
    // One that could be waits for its end, for a while…
    let unproven = Secret::new(without_dleq(env.token(30).await.expose()).unwrap());
    let token_info = wallet.decode(&unproven).await.unwrap();
    let refused = wallet.receive(&OrderId::random(), &unproven, &token_info).await;
    assert!(
        matches!(&refused, Err(ReceiveError::Refused(refusal)) if refusal.code == ErrorType::ResourceUnavailable
            && refusal.message.contains("try again in a moment")),
        "{refused:?}"
    );
    // …and is received then.
    let order = OrderId::random();
    let (received, forged_end) = tokio::join!(
        wallet.receive(&order, &unproven, &token_info),
        resolved(&wallet, &forger, &worthless)
    );
    assert!(matches!(forged_end, Resolution::NotSpent), "{forged_end:?}");
    assert_eq!(received.unwrap(), Sat(29));
    // What would really exceed it is refused at once.
    let much = env.token(30).await;
    let token_info = wallet.decode(&much).await.unwrap();
    let refused = wallet.receive(&OrderId::random(), &much, &token_info).await;
    assert!(
        matches!(&refused, Err(ReceiveError::Refused(refusal)) if refusal.message.contains("as much of this mint as it may")),
        "{refused:?}"
    );
    assert_eq!(available(&wallet).await, 44 + 29);
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn denominations_that_are_too_small_are_refused_before_the_decision() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let token = env.token(64).await;
    let unit = cdk::nuts::CurrencyUnit::Sat;
    env.mint.mint().rotate_keyset(unit, vec![1], 0, true, None).await.unwrap();
    let token_info = wallet.decode(&token).await.unwrap();
    let refused = wallet.verify(&token, &token_info).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::MintError);
    assert!(refused.message.contains("denominations are too small"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_hangs_holds_up_its_own_callers_only_for_a_while() {
    let env = TestEnv::new().await;
    let stopped = TestMint::start(0).await.unwrap();
    let url = stopped.url().to_owned();
    drop(stopped);
    let mints = vec![env.mint_url(), MintUrl::parse(&url).unwrap()];
    let both = Settings { mints, ..env.settings() };
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

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_token_is_proven_no_more_and_costs_the_mint_no_second_request() {
    const ORDERS: usize = 512;
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let (token, other) = (env.token(21).await, env.token(7).await);
    let token_info = wallet.decode(&token).await.unwrap();
    wallet.verify(&token, &token_info).await.unwrap();
    let thief = TestWallet::new(env.proxy.url()).await.unwrap();
    thief.receive(token.expose()).await.unwrap();
    assert!(wallet.is_proven(&token, &token_info).await, "nobody has seen that it is spent");
    let spent = wallet.verify(&token, &token_info).await.unwrap_err();
    assert_eq!(spent.code, ErrorType::TokenAlreadySpent);
    env.proxy.plan("v1/", NetworkFault::Status(500), 0, usize::MAX);
    for _ in 0..ORDERS {
        assert!(!wallet.is_proven(&token, &token_info).await);
        assert_eq!(wallet.verify(&token, &token_info).await.unwrap_err(), spent);
    }
    let requests = env.proxy.met();
    env.proxy.clear();
    println!("{ORDERS} orders with a spent token: {requests} requests");
    assert_eq!(requests, 0);
    // An order that was paid with it is found again.
    assert_eq!(wallet.decode(&token).await.unwrap(), token_info);
    let token_info = wallet.decode(&other).await.unwrap();
    assert!(wallet.is_proven(&other, &token_info).await);
    wallet.receive(&OrderId::random(), &other, &token_info).await.unwrap();
    assert_balanced(&wallet).await;
}

/// A token of the mint's keyset of now.
async fn fresh_token(env: &TestEnv) -> Secret {
    let customer = TestWallet::new(env.proxy.url()).await.unwrap();
    customer.fill(64).await.unwrap();
    Secret::new(customer.token(21).await.unwrap())
}

async fn until_proven(wallet: &CashuWallet, token: &Secret) {
    let token_info = wallet.decode(token).await.unwrap();
    let begun = Instant::now();
    while !wallet.is_proven(token, &token_info).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "its keys are not loaded");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_older_keysets_are_proven_before_an_order_of_them_has_had_its_turn() {
    let env = TestEnv::new().await;
    let oldest = fresh_token(&env).await;
    rotate_keyset(&env).await;
    let wallet = env.wallet().await;
    let token_info = wallet.decode(&oldest).await.unwrap();
    assert!(!wallet.is_proven(&oldest, &token_info).await, "the mint has listed nothing yet");
    wallet.recover().await.unwrap();
    until_proven(&wallet, &oldest).await;
    // Two rotations later, with an order of the newest keyset.
    rotate_keyset(&env).await;
    let older = fresh_token(&env).await;
    rotate_keyset(&env).await;
    let newest = fresh_token(&env).await;
    let token_info = wallet.decode(&newest).await.unwrap();
    wallet.verify(&newest, &token_info).await.unwrap();
    until_proven(&wallet, &older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_loaded_do_not_suspend_the_mint() {
    let env = TestEnv::new().await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(fresh_token(&env).await);
        rotate_keyset(&env).await;
    }
    let wallet = env.wallet().await;
    env.proxy.plan("v1/keys/", NetworkFault::Status(500), 0, usize::MAX);
    wallet.recover().await.unwrap();
    let begun = Instant::now();
    while env.proxy.met() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no keys are loaded");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..5 {
        let overview = wallet.overview(HealthCheck::Probe).await.unwrap();
        assert!(overview.iter().all(|mint| mint.health.suspended_until.is_none()), "{overview:?}");
    }
    println!("5 keysets, {} requests of keys that failed", env.proxy.met());
    assert_eq!(env.proxy.met(), 1);
    env.proxy.clear();
    // The first order of each loads them.
    for token in &tokens {
        let token_info = wallet.decode(token).await.unwrap();
        wallet.verify(token, &token_info).await.unwrap();
        assert!(wallet.is_proven(token, &token_info).await);
    }
}
