//! Refunds: made once, redeemed or reclaimed.

use crate::{TestEnv, assert_balanced, available};
use paygress_core::backend::wallet::{
    Payments, RefundAmount, RefundIssuer, RefundState, TokenReader,
};
use paygress_core::model::ids::OrderId;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::{NetworkFault, TestWallet};

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_made_once_whatever_happens_and_can_be_redeemed() {
    let env = TestEnv::new().await;
    for (n, fault) in NetworkFault::ALL.into_iter().chain(NetworkFault::answers()).enumerate() {
        let _ = std::fs::remove_file(env.file("mnemonic"));
        let wallet = env.wallet_at(&format!("refund{n}.sqlite"), env.settings()).await;
        // One proof of 64: a refund of 21 needs a swap. A new customer has it in few proofs, so that
        // the fee is the same for each.
        let customer = TestWallet::new(env.proxy.url()).await.unwrap();
        customer.fill(100).await.unwrap();
        let token = Secret::new(customer.token(65).await.unwrap());
        let token_info = wallet.decode(&token).await.unwrap();
        assert_eq!(wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap(), Sat(64));
        let order = OrderId::random();
        env.proxy.plan("v1/", fault, 0, 3);
        let mut tries = 0;
        let refund = loop {
            match wallet.refund(&order, &env.mint_url(), RefundAmount::LessFee(Sat(21))).await {
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
            wallet.refund(&order, &env.mint_url(), RefundAmount::LessFee(Sat(21))).await.unwrap(),
            refund,
            "{fault:?}"
        );
        assert_eq!(available(&wallet).await, 64 - 21, "{fault:?}");
        assert_balanced(&wallet).await;
        assert_eq!(
            wallet.refund_state(&order, &env.mint_url()).await.unwrap(),
            RefundState::Waiting
        );
        customer.receive(refund.token.expose()).await.unwrap();
        assert_eq!(
            wallet.refund_state(&order, &env.mint_url()).await.unwrap(),
            RefundState::Redeemed
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_leaves_to_an_open_operation_what_is_its_own() {
    let env = TestEnv::new().await;
    let (wallet, _) = env.wallet_with(65).await;
    // The process is killed while the mint makes a refund: it is signed, and that is not stored.
    let order = OrderId::random();
    env.proxy.plan("v1/swap", NetworkFault::Hang(true), 0, 1);
    let name = env.mint_url();
    tokio::select! {
        made = wallet.refund(&order, &name, RefundAmount::LessFee(Sat(21))) => panic!("{made:?}"),
        () = env.proxy.hung() => {}
    }
    drop(wallet);
    env.proxy.clear();
    let wallet = env.wallet().await;
    assert_eq!(wallet.restore(&env.mint_url()).await.unwrap(), Sat(0), "nothing of it is free");
    let refund =
        wallet.refund(&order, &env.mint_url(), RefundAmount::LessFee(Sat(21))).await.unwrap();
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
async fn a_restore_removes_what_was_spent_since_a_copy_was_made() {
    let env = TestEnv::new().await;
    let (wallet, _) = env.wallet_with(65).await;
    // Another store of the same seed, as a copy that was put back.
    let copy = env.wallet_at("copy.sqlite", env.settings()).await;
    assert_eq!(copy.restore(&env.mint_url()).await.unwrap(), Sat(64));
    let amount = RefundAmount::LessFee(Sat(21));
    let refund = wallet.refund(&OrderId::random(), &env.mint_url(), amount).await.unwrap();
    env.customer.receive(refund.token.expose()).await.unwrap();
    assert_eq!(available(&copy).await, 64);
    copy.restore(&env.mint_url()).await.unwrap();
    assert_eq!(available(&copy).await, available(&wallet).await);
    assert_balanced(&copy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_the_fee_would_take_is_made_whole() {
    let env = TestEnv::new().await;
    let (wallet, net) = env.wallet_with(5).await;
    assert_eq!(net, Sat(4));
    let refund = wallet
        .refund(&OrderId::random(), &env.mint_url(), RefundAmount::LessFee(Sat(1)))
        .await
        .unwrap();
    assert_eq!(
        (refund.amount, refund.fee, available(&wallet).await),
        (Sat(1), Sat(1), 2),
        "one for the customer, one for the mint"
    );
    assert_balanced(&wallet).await;
    let much =
        wallet.refund(&OrderId::random(), &env.mint_url(), RefundAmount::LessFee(Sat(3))).await;
    assert!(much.is_err(), "a refund over more than the balance waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_not_redeemed_is_reclaimed_once() {
    let env = TestEnv::new().await;
    let (wallet, _) = env.wallet_with(33).await;
    let order = OrderId::random();
    let refund =
        wallet.refund(&order, &env.mint_url(), RefundAmount::LessFee(Sat(32))).await.unwrap();
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

/// What was sent for 21 sat.
fn whole(reserve: u64) -> RefundAmount {
    RefundAmount::Whole { whole: Sat(22), due: Sat(21), reserve: Sat(reserve) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_what_was_sent_as_far_as_the_wallet_holds_it() {
    for (held, reserve, made, left) in [
        (64, 0, (22, 1), 41),
        (64, 41, (22, 1), 41),
        // Others are owed more: the refund is what is due, less the fee.
        (64, 42, (20, 1), 43),
        (64, u64::MAX, (20, 1), 43),
        // As it is: 16, 4 and 1.
        (21, 0, (21, 0), 0),
        (22, 0, (22, 0), 0),
    ] {
        let env = TestEnv::new().await;
        let (wallet, net) = env.wallet_with(held + 1).await;
        assert_eq!(net, Sat(held));
        let order = OrderId::random();
        let refund = wallet.refund(&order, &env.mint_url(), whole(reserve)).await.unwrap();
        assert_eq!((refund.amount.0, refund.fee.0), made, "of {held}, {reserve} for others");
        assert_eq!(available(&wallet).await, left);
        assert_balanced(&wallet).await;
        let received = env.customer.receive(refund.token.expose()).await.unwrap();
        assert_eq!(received, made.0 - 1, "their own wallet's fee");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_was_begun_is_finished_as_it_was_begun() {
    let less = RefundAmount::LessFee(Sat(21));
    for (begun, later, made, left) in [(whole(0), less, (22, 1), 41), (less, whole(0), (20, 1), 43)]
    {
        let env = TestEnv::new().await;
        let (wallet, _) = env.wallet_with(65).await;
        let (order, mint) = (OrderId::random(), env.mint_url());
        env.proxy.plan("v1/swap", NetworkFault::Hang(true), 0, 1);
        tokio::select! {
            made = wallet.refund(&order, &mint, begun) => panic!("{made:?}"),
            () = env.proxy.hung() => {}
        }
        drop(wallet);
        env.proxy.clear();
        let wallet = env.wallet().await;
        // The setting, or what others are owed, has changed meanwhile.
        for amount in [later, begun] {
            let refund = wallet.refund(&order, &mint, amount).await.unwrap();
            assert_eq!((refund.amount.0, refund.fee.0), made, "{begun:?}, then {amount:?}");
        }
        assert_eq!(available(&wallet).await, left);
        assert_balanced(&wallet).await;
    }
}

/// Whoever redeems a token pays the mint for each proof in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_many_small_proofs_is_swapped_if_that_leaves_its_customer_more() {
    const SMALL: u64 = 21;
    let less = RefundAmount::LessFee(Sat(SMALL));
    let whole =
        |reserve| RefundAmount::Whole { whole: Sat(SMALL), due: Sat(SMALL), reserve: Sat(reserve) };
    for (name, large, amount, made, redeemed) in [
        ("from a large one, at the customer's expense", 64, less, (20, 1), 19),
        ("from a large one, at the operator's", 64, whole(63), (21, 1), 20),
        ("what the swap costs is owed to others", 64, whole(64), (21, 0), 18),
        ("the swap would cost as much", 0, less, (21, 0), 18),
    ] {
        let env = TestEnv::new().await;
        let wallet = env.wallet().await;
        let large = (large > 0).then_some(large + 1);
        for sat in large.into_iter().chain((0..SMALL).map(|_| 2)) {
            let token = env.token(sat).await;
            let token_info = wallet.decode(&token).await.unwrap();
            let net = wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
            assert_eq!(net, Sat(sat - 1));
        }
        let refund = wallet.refund(&OrderId::random(), &env.mint_url(), amount).await.unwrap();
        assert_eq!((refund.amount.0, refund.fee.0), made, "{name}");
        assert_balanced(&wallet).await;
        let received = env.customer.receive(refund.token.expose()).await.unwrap();
        assert_eq!(received, redeemed, "{name}");
    }
}

/// Whoever can make orders fail has the operator pay fees: no more than others leave them.
#[tokio::test(flavor = "multi_thread")]
async fn orders_that_fail_at_will_take_no_more_than_can_be_spared() {
    const OWED: Sat = Sat(50);
    const ORDERS: u32 = 20;
    let env = TestEnv::new().await;
    let (wallet, _) = env.wallet_with(65).await;
    let before = available(&wallet).await;
    for _ in 0..ORDERS {
        let (order, token) = (OrderId::random(), env.token(22).await);
        let token_info = wallet.decode(&token).await.unwrap();
        let due = wallet.receive(&order, &token, &token_info).await.unwrap();
        let amount = RefundAmount::Whole { whole: token_info.gross, due, reserve: OWED };
        // None of them waits.
        let refund = wallet.refund(&order, &env.mint_url(), amount).await.unwrap();
        assert!(refund.amount <= token_info.gross, "more than was sent: {refund:?}");
        assert!(refund.amount.plus(refund.fee) >= due, "less than was due: {refund:?}");
        assert!(available(&wallet).await >= OWED.0, "others are to get it back");
        env.customer.receive(refund.token.expose()).await.unwrap();
    }
    assert_balanced(&wallet).await;
    let cost = before - available(&wallet).await;
    println!("{ORDERS} orders that failed cost the operator {cost} sat of {before}");
    assert!((1..=before - OWED.0).contains(&cost));
}
