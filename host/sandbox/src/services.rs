//! A relay, a mint and a directory for one service.

use crate::{Relay, Result, TestMint, error::during};
use nostr_sdk::{Keys, ToBech32};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tempfile::TempDir;

/// The mint's input fee, in thousandths of a sat a proof.
const INPUT_FEE_PPK: u64 = 100;

/// What a service needs around it; all of it ends when this is dropped.
pub struct Services {
    pub mint: TestMint,
    pub relay: Relay,
    /// Holds all that the service stores.
    pub directory: TempDir,
    /// Holds the policies as they are compiled, for all services of this process: a debug build
    /// compiles them in seconds.
    pub compiled: Arc<TempDir>,
}

/// That of the services that there are, or a new one.
fn compiled() -> Result<Arc<TempDir>> {
    static COMPILED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(directory) = compiled.upgrade() {
        return Ok(directory);
    }
    let directory = Arc::new(tempfile::tempdir().map_err(during("make a directory"))?);
    *compiled = Arc::downgrade(&directory);
    Ok(directory)
}

impl Services {
    pub async fn start() -> Result<Self> {
        Ok(Self {
            mint: TestMint::start(INPUT_FEE_PPK).await?,
            relay: Relay::start().await?,
            directory: tempfile::tempdir().map_err(during("make a directory"))?,
            compiled: compiled()?,
        })
    }

    /// The settings of a service with a new key that uses these parts.
    pub async fn settings(&self) -> Result<BTreeMap<String, String>> {
        let at = |name: &str| self.directory.path().join(name).to_string_lossy().into_owned();
        let compiled = self.compiled.path().join("compiled").to_string_lossy().into_owned();
        let key = Keys::generate().secret_key().to_bech32().map_err(during("encode a key"))?;
        let settings = [
            ("NOSTR_PRIVATE_KEY", key),
            ("NOSTR_RELAYS", self.relay.url().await.to_string()),
            ("ALLOW_PRIVATE_RELAYS", "true".to_owned()),
            ("WHITELISTED_MINTS", self.mint.url().to_owned()),
            ("CASHU_DB_PATH", at("wallet.sqlite")),
            ("LEDGER_PATH", at("ledger.sqlite")),
            ("POLICY_CACHE_DIR", compiled),
            ("POLICY_STATE_DIR", at("policies")),
            ("ADMIN_SOCKET", at("admin.sock")),
            ("SSH_HOST", Ipv4Addr::LOCALHOST.to_string()),
            ("SERVICE_NAME", "Paygress demo".to_owned()),
            ("RUN_MODE", "both".to_owned()),
            ("BIND_ADDR", "127.0.0.1:0".to_owned()),
        ];
        Ok(settings.map(|(key, value)| (key.to_owned(), value)).into())
    }
}
