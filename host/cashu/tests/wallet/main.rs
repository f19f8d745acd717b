//! The wallet at a real mint, over a network with faults.
#![cfg(test)]

mod answers;
mod attack;
mod copies;
mod locks;
mod operator;
mod proxied;
mod receive;
mod refunds;

use paygress_cashu::{CashuWallet, OperationState, Seed, Settings, WalletStore};
use paygress_core::backend::wallet::{Payments, Resolution, ResolveMode, TokenReader};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_sandbox::{FaultProxy, TestMint, TestWallet};
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
        Settings { mints: vec![self.mint_url()], max_balance: None, p2pk_secret_key: None }
    }

    async fn wallet(&self) -> CashuWallet {
        self.wallet_at("wallet.sqlite", self.settings()).await
    }

    async fn token(&self, sat: u64) -> Secret {
        Secret::new(self.customer.token(sat).await.unwrap())
    }

    /// The wallet, after it has received so much; and what was left of it.
    async fn wallet_with(&self, sat: u64) -> (CashuWallet, Sat) {
        let wallet = self.wallet().await;
        let token = self.token(sat).await;
        let token_info = wallet.decode(&token).await.unwrap();
        let net = wallet.receive(&OrderId::random(), &token, &token_info).await.unwrap();
        (wallet, net)
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
    let held: u64 = balances.iter().map(|balance| balance.available.plus(balance.reserved).0).sum();
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
        match wallet.resolve(order, &token_info, ResolveMode::Repeat).await {
            Resolution::Unknown(_) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await
            }
            known => return known,
        }
    }
    panic!("it stays unresolved")
}
