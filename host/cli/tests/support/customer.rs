//! A customer of a sandbox in this process.

use super::fake::FakeCluster;
use super::secrets;
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::orders::Backends;
use paygress_core::protocol::RequestBody;
use paygress_nostr::client::Client;
use paygress_nostr::{Keys, PublicKey};
use paygress_sandbox::TestWallet;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long a response may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// Waits until this gives something.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begun.elapsed() < TIMEOUT, "{what}");
        tokio::time::sleep(POLL).await;
    }
}

pub struct Buyer {
    pub client: Client,
    pub wallet: TestWallet,
    pub service: PublicKey,
}

impl Buyer {
    pub async fn new(sandbox: &Sandbox) -> Self {
        Self::with_keys(sandbox, Keys::generate()).await
    }

    pub async fn with_keys(sandbox: &Sandbox, keys: Keys) -> Self {
        let client = Client::connect(keys, sandbox.config.relays.clone()).await.unwrap();
        let wallet = TestWallet::new(sandbox.mint.url()).await.unwrap();
        wallet.fill(1_000).await.unwrap();
        Self { client, wallet, service: sandbox.config.keys.public_key() }
    }

    /// Sends a request, and gives the response as JSON.
    pub async fn ask(&self, request: Value) -> Value {
        secrets::add_fields(&request);
        let request: RequestBody = serde_json::from_value(request).unwrap();
        let answer = self.client.ask(self.service, &request, TIMEOUT, |_| ()).await.unwrap();
        let answer: Value = serde_json::from_str(answer.text.expose()).unwrap();
        secrets::add_fields(&answer);
        answer
    }

    pub async fn token(&self, sat: u64) -> String {
        self.wallet.token(sat).await.unwrap()
    }
}

/// A sandbox's service, whose pods are those of this cluster.
pub async fn app_on(sandbox: &Sandbox, cluster: FakeCluster) -> App {
    let cluster = Arc::new(cluster).into();
    let on_cluster = |backends| Backends { cluster, ..backends };
    App::build(&sandbox.config, sandbox.cluster(), on_cluster).await.unwrap()
}

/// A service that runs until it is dropped: as suddenly as a process that is killed.
pub struct Running(JoinHandle<()>);

impl Running {
    pub fn start(app: App) -> Self {
        Self(tokio::spawn(async move {
            let ended = app.run().await;
            panic!("the service ended: {ended:?}");
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
