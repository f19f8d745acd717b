//! Tokens that are locked to the service, at the mint of the seeded runs.

use crate::run::runtime;
use crate::{CLOCK, mint};
use paygress_cashu::{CashuWallet, Seed, Settings, WalletStore};
use paygress_core::backend::wallet::{MintDirectory, Payments, TokenReader};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, Seconds, UnixTime};
use paygress_sandbox::{TestWallet, TokenLock};
use std::path::Path;
use std::sync::PoisonError;

/// A wallet with a key for locked tokens.
async fn wallet(mint: &str, directory: &Path) -> CashuWallet {
    let settings = Settings {
        mints: vec![MintUrl::parse(mint).unwrap()],
        max_balance: None,
        p2pk_secret_key: Some(Secret::new("7".repeat(64))),
    };
    let seed = Seed::load_or_create(&directory.join("mnemonic")).await.unwrap();
    let store = WalletStore::sqlite(&directory.join("wallet.sqlite")).await.unwrap();
    CashuWallet::open(store, seed, &settings).await.unwrap()
}

#[test]
fn tokens_that_are_locked_to_the_service_are_received() {
    let _turn = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let now = UnixTime::now();
    let (past, later) = (Some(now.minus(Seconds(60)).0), Some(now.after(Seconds(86_400)).0));
    let lock = TokenLock::default();
    let locks = [
        ("a lock", lock),
        ("a locktime", TokenLock { locktime: later, ..lock }),
        ("a refund key", TokenLock { locktime: later, refundable: true, ..lock }),
        ("a lock that is over", TokenLock { locktime: past, ..lock }),
        ("SIG_ALL", TokenLock { signs_all: true, ..lock }),
        (
            "SIG_ALL and a refund key",
            TokenLock { locktime: later, refundable: true, signs_all: true, ..lock },
        ),
        ("a blinded key", TokenLock { blinded: true, ..lock }),
    ];
    runtime().block_on(async {
        let (mint, directory) = (mint().await, tempfile::tempdir().unwrap());
        let wallet = wallet(mint.url(), directory.path()).await;
        let key = wallet.p2pk_pubkey().unwrap();
        let customer = TestWallet::new(mint.url()).await.unwrap();
        customer.fill(400).await.unwrap();
        for (name, lock) in locks {
            let token =
                Secret::new(customer.token_with_lock(21, key.as_str(), lock).await.unwrap());
            let token_info = wallet.decode(&token).await.unwrap();
            let promised = wallet.verify(&token, &token_info).await.unwrap().net;
            let received = wallet.receive(&OrderId::random(), &token, &token_info).await;
            let received = received.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((promised, received), (Sat(20), Sat(20)), "{name}");
        }
    });
}
