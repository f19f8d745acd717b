//! What a mint answers to a swap, and what it means: done, refused for good, or unknown.

use crate::{TestEnv, assert_balanced, available, received, resolved};
use paygress_cashu::{CashuWallet, OperationState};
use paygress_core::backend::wallet::{Payments, ReceiveError, Resolution, TokenReader};
use paygress_core::model::ids::OrderId;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::token::forged;
use paygress_sandbox::{CodedAnswer, MintAnswer, NetworkFault, TestWallet};

/// Swaps of one token, whatever the mint answers: two attempts, or one that is repeated.
const MAX_SWAPS: usize = 2;

/// `None`: it is unknown.
async fn refusal(
    wallet: &CashuWallet,
    order: &OrderId,
    token: &Secret,
) -> Result<Sat, Option<ErrorType>> {
    let token_info = wallet.decode(token).await.unwrap();
    match wallet.receive(order, token, &token_info).await {
        Ok(net) => Ok(net),
        Err(ReceiveError::Refused(refusal)) => Err(Some(refusal.code)),
        Err(ReceiveError::Unknown(_)) => Err(None),
    }
}

async fn open_operations(wallet: &CashuWallet) -> usize {
    let transactions = wallet.transactions().await.unwrap();
    transactions.iter().filter(|one| one.state == OperationState::Open).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_whatever_its_status_and_code_and_a_lost_answer_is_not() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    for (answer, expected) in [
        (MintAnswer::FORBIDDEN, Some(ErrorType::MintError)),
        (MintAnswer::UNPROCESSABLE, Some(ErrorType::MintError)),
        (MintAnswer::NO_BODY, Some(ErrorType::MintError)),
        (MintAnswer::NO_CODE, Some(ErrorType::MintError)),
        (MintAnswer::UNKNOWN_CODE, Some(ErrorType::MintError)),
        (MintAnswer::WITNESS, Some(ErrorType::MintError)),
        (MintAnswer::CODED_500, Some(ErrorType::MintError)),
        (MintAnswer::FORGED, Some(ErrorType::InvalidToken)),
        (MintAnswer::TRANSACTION, Some(ErrorType::MintError)),
        (MintAnswer::SIGNED, Some(ErrorType::MintError)),
        (MintAnswer::NO_KEYSET, Some(ErrorType::MintError)),
        (MintAnswer::INACTIVE, Some(ErrorType::MintError)),
        (MintAnswer::PENDING, Some(ErrorType::TokenPending)),
        (MintAnswer::OUTPUTS_PENDING, Some(ErrorType::MintError)),
        (MintAnswer::BUSY_500, None),
        (MintAnswer::TOO_MANY, None),
        (MintAnswer::GARBAGE, None),
    ] {
        let (order, token, before) =
            (OrderId::random(), env.token(21).await, available(&wallet).await);
        env.proxy.plan("v1/swap", NetworkFault::Answer(answer), 0, 100);
        let outcome = refusal(&wallet, &order, &token).await;
        let swaps = env.proxy.met();
        env.proxy.clear();
        assert_eq!(outcome, Err(expected), "{answer:?}");
        assert!(swaps <= MAX_SWAPS, "{answer:?}: {swaps} swaps");
        match expected {
            // Nothing is open, and the token is as good as before.
            Some(_) => {
                assert_eq!(open_operations(&wallet).await, 0, "{answer:?}");
                assert_eq!(refusal(&wallet, &OrderId::random(), &token).await, Ok(Sat(20)));
            }
            None => {
                let resolution = resolved(&wallet, &order, &token).await;
                assert_eq!(received(&resolution), Some(Sat(20)), "{answer:?}");
            }
        }
        assert_eq!(available(&wallet).await, before + 20, "{answer:?}");
        assert_balanced(&wallet).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_the_mint_has_done_is_received_whatever_it_answers() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    for answer in MintAnswer::ALL {
        let (order, token, before) =
            (OrderId::random(), env.token(21).await, available(&wallet).await);
        env.proxy.plan("v1/swap", NetworkFault::DoneAndAnswer(answer), 0, 100);
        let outcome = refusal(&wallet, &order, &token).await;
        env.proxy.clear();
        assert_eq!(outcome, Ok(Sat(20)), "{answer:?}");
        assert_eq!(available(&wallet).await, before + 20, "{answer:?}");
        assert_balanced(&wallet).await;
    }
}

/// Whether a swap with this answer is refused for good, once its inputs are unspent and its outputs
/// not signed.
fn is_refusal(CodedAnswer { status, code, .. }: CodedAnswer) -> bool {
    match status {
        408 | 425 | 429 => false,
        400..=499 => true,
        500..=599 => code.is_some_and(|code| (10_000..40_000).contains(&code)),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_status_and_code_is_a_refusal_or_unknown_and_loses_nothing() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let codes =
        [None, Some(1), Some(9_999), Some(11_001), Some(20_008), Some(40_000), Some(u32::MAX)];
    let statuses = (200..600).step_by(17).chain([408, 425, 429, 500, 503]);
    for (status, code) in statuses.zip(codes.into_iter().cycle()) {
        let answer = CodedAnswer { status, code, done: false };
        let (order, token) = (OrderId::random(), env.token(21).await);
        let before = available(&wallet).await;
        env.proxy.plan("v1/swap", NetworkFault::Coded(answer), 0, 100);
        let outcome = refusal(&wallet, &order, &token).await;
        let swaps = env.proxy.met();
        env.proxy.clear();
        assert!(swaps <= MAX_SWAPS, "{answer:?}: {swaps} swaps");
        if is_refusal(answer) {
            assert!(matches!(outcome, Err(Some(_))), "{answer:?}: {outcome:?}");
            assert_eq!(open_operations(&wallet).await, 0, "{answer:?}");
            assert_eq!(refusal(&wallet, &OrderId::random(), &token).await, Ok(Sat(20)));
        } else {
            assert_eq!(outcome, Err(None), "{answer:?}");
            let resolution = resolved(&wallet, &order, &token).await;
            assert_eq!(received(&resolution), Some(Sat(20)), "{answer:?}");
        }
        assert_eq!(available(&wallet).await, before + 20, "{answer:?}");
    }
    assert_balanced(&wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_cannot_be_checked_stays_unknown_until_it_can() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    // A firewall refuses everything from the swap on; then everything but the swap.
    for path in ["v1/", "v1/restore", "v1/checkstate"] {
        let (order, token) = (OrderId::random(), env.token(21).await);
        let token_info = wallet.decode(&token).await.unwrap();
        let promised = wallet.verify(&token, &token_info).await.unwrap().net;
        let bad = Secret::new(forged(token.expose(), path.len()).unwrap());
        let bad_order = OrderId::random();
        env.proxy.plan(path, NetworkFault::Answer(MintAnswer::FORBIDDEN), 0, 100);
        let outcome = refusal(&wallet, &bad_order, &bad).await;
        // The mint itself has refused it with a code, where it has answered the swap.
        let is_known = path == "v1/restore";
        assert_eq!(outcome, Err(is_known.then_some(ErrorType::InvalidToken)), "{path}");
        let outcome = refusal(&wallet, &order, &token).await;
        let is_received = path != "v1/";
        assert_eq!(outcome, if is_received { Ok(promised) } else { Err(None) }, "{path}");
        env.proxy.clear();
        let bad_end = resolved(&wallet, &bad_order, &bad).await;
        assert!(matches!(bad_end, Resolution::NotSpent), "{path}: {bad_end:?}");
        assert_eq!(received(&resolved(&wallet, &order, &token).await), Some(promised), "{path}");
        assert_balanced(&wallet).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_that_somebody_else_has_spent_is_called_spent() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    for answer in [MintAnswer::UNKNOWN_CODE, MintAnswer::FORBIDDEN, MintAnswer::NO_KEYSET] {
        let token = env.token(21).await;
        let thief = TestWallet::new(env.proxy.url()).await.unwrap();
        thief.receive(token.expose()).await.unwrap();
        env.proxy.plan("v1/swap", NetworkFault::Answer(answer), 0, 100);
        let outcome = refusal(&wallet, &OrderId::random(), &token).await;
        env.proxy.clear();
        assert_eq!(outcome, Err(Some(ErrorType::TokenAlreadySpent)), "{answer:?}");
        assert_eq!((available(&wallet).await, open_operations(&wallet).await), (0, 0));
    }
}

/// A wallet from a backup makes outputs that the mint signed long ago, for somebody else's token.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_mint_has_signed_before_pays_for_no_worthless_token() {
    let env = TestEnv::new().await;
    let wallet = env.wallet().await;
    let backup = env.wallet_at("backup.sqlite", env.settings()).await;
    backup.recover().await.unwrap();
    let (paid, next) = (env.token(21).await, env.token(21).await);
    assert_eq!(refusal(&wallet, &OrderId::random(), &paid).await, Ok(Sat(20)));
    let worthless = Secret::new(forged(next.expose(), 0).unwrap());
    let outcome = refusal(&backup, &OrderId::random(), &worthless).await;
    assert_eq!(outcome, Err(Some(ErrorType::InvalidToken)));
    // What was found of the seed's earlier use is the operator's; and the next token is received.
    assert_eq!(available(&backup).await, 20);
    assert_eq!(refusal(&backup, &OrderId::random(), &next).await, Ok(Sat(20)));
    assert_eq!((available(&backup).await, open_operations(&backup).await), (40, 0));
    assert_balanced(&backup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_refused_keyset_the_keysets_are_read_again_and_the_swap_is_tried_again() {
    let env = TestEnv::new().await;
    let (wallet, _) = env.wallet_with(65).await;
    for answer in [MintAnswer::TRANSACTION, MintAnswer::NO_KEYSET, MintAnswer::INACTIVE] {
        let token = env.token(21).await;
        env.proxy.plan("v1/swap", NetworkFault::Answer(answer), 0, 1);
        let outcome = refusal(&wallet, &OrderId::random(), &token).await;
        assert_eq!((outcome, env.proxy.met()), (Ok(Sat(20)), 1), "{answer:?}");
        env.proxy.plan("v1/swap", NetworkFault::Answer(answer), 0, 1);
        let sent = wallet.send(&env.mint_url(), Sat(7)).await.unwrap();
        assert_eq!(wallet.decode(&sent).await.unwrap().gross, Sat(7), "{answer:?}");
        env.proxy.clear();
    }
    assert_balanced(&wallet).await;
}
