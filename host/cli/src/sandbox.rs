//! A whole town in one process: a relay, a mint and pods without walls, for the demo and for tests.

use crate::app::App;
use crate::config::Config;
use anyhow::{Result, anyhow};
use paygress_cashu::test_mint::TestMint;
use paygress_cluster::Local;
use paygress_nostr::relay::Relay;
use paygress_nostr::{Keys, nsec};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The input fee of the town's mint, in thousandths of a sat a proof.
const INPUT_FEE_PPK: u64 = 100;

/// The town.
pub struct Sandbox {
    /// Its mint.
    pub mint: TestMint,
    /// Its relay.
    pub relay: Relay,
    /// The service's configuration.
    pub config: Config,
    /// The environment that it was read from.
    pub environment: BTreeMap<String, String>,
    /// Removed when the town is dropped, with all that is in it.
    pub directory: tempfile::TempDir,
}

impl Sandbox {
    /// A town with these settings, as in a config file and its environment.
    ///
    /// # Errors
    /// When a part cannot be started, or the settings are wrong.
    pub async fn new(environment: &[(&str, &str)], file: &str) -> Result<Self> {
        Self::build(environment, file, "").await
    }

    /// A town whose service accepts the tokens of another mint too.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub async fn accepting(mint: &str) -> Result<Self> {
        Self::build(&[], "", mint).await
    }

    async fn build(environment: &[(&str, &str)], file: &str, another_mint: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mint = TestMint::start(INPUT_FEE_PPK).await.map_err(|error| anyhow!(error))?;
        let relay = Relay::start(false).await.map_err(|error| anyhow!(error))?;
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let mut all = BTreeMap::from([
            ("NOSTR_PRIVATE_KEY", nsec(&Keys::generate())),
            ("NOSTR_RELAYS", relay.url().await.to_string()),
            ("ALLOW_PRIVATE_RELAYS", "true".to_owned()),
            ("WHITELISTED_MINTS", format!("{},{another_mint}", mint.url())),
            ("CASHU_DB_PATH", at("wallet.sqlite")),
            ("LEDGER_PATH", at("ledger.sqlite")),
            ("POLICY_CACHE_DIR", at("compiled")),
            ("POLICY_STATE_DIR", at("policies")),
            ("ADMIN_SOCKET", at("admin.sock")),
            ("SSH_HOST", Ipv4Addr::LOCALHOST.to_string()),
            ("SERVICE_NAME", "Paygress demo".to_owned()),
            ("RUN_MODE", "both".to_owned()),
            ("BIND_ADDR", "127.0.0.1:0".to_owned()),
        ]);
        all.extend(environment.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let environment: BTreeMap<String, String> =
            all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let config = Config::read(Some(file), environment.clone())?;
        Ok(Self { mint, relay, config, environment, directory })
    }

    /// Pods without walls.
    #[must_use]
    pub fn cluster(&self) -> Arc<Local> {
        Arc::new(Local::new(self.directory.path().join("homes")))
    }

    /// The service, its doors not yet open. After the last one is gone it can be built again, on
    /// what that one left.
    ///
    /// # Errors
    /// What cannot be opened.
    pub async fn app(&self) -> Result<App> {
        App::build(&self.config, self.cluster(), |backends| backends).await
    }
}
