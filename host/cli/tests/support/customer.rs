//! A customer of a town in this process.

use paygress::house::House;
use paygress::town::Town;
use paygress_cashu::mint::TestWallet;
use paygress_nostr::{Keys, PublicKey, customer::Customer};
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Buyer {
    pub customer: Customer,
    pub wallet: TestWallet,
    pub service: PublicKey,
}

impl Buyer {
    pub async fn new(town: &Town) -> Self {
        Self::with_keys(town, Keys::generate()).await
    }

    pub async fn with_keys(town: &Town, keys: Keys) -> Self {
        let customer = Customer::connect(keys, town.config.relays.clone()).await.unwrap();
        let wallet = TestWallet::new(town.mint.url()).await.unwrap();
        wallet.fill(1_000).await.unwrap();
        Self { customer, wallet, service: town.config.keys.public_key() }
    }

    pub async fn ask(&self, request: Value) -> Value {
        self.customer.ask(self.service, &request, PATIENCE, |_| ()).await.unwrap()
    }

    pub async fn token(&self, sat: u64) -> String {
        self.wallet.token(sat).await.unwrap()
    }
}

/// A service that runs until it is dropped: as suddenly as a process that is killed.
pub struct Running(JoinHandle<()>);

impl Running {
    pub fn start(house: House) -> Self {
        Self(tokio::spawn(async move {
            let ended = house.run().await;
            panic!("the service ended: {ended:?}");
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
