//! A relay, a mint and a directory for one service.

use crate::{Relay, Result, TestMint, error::during};
use nostr_sdk::{Keys, ToBech32};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The mint's input fee, in thousandths of a sat a proof.
const INPUT_FEE_PPK: u64 = 100;

/// What a service needs around it; all of it ends when this is dropped.
pub struct Services {
    pub mint: TestMint,
    pub relay: Relay,
    /// Holds all that the service stores.
    pub directory: tempfile::TempDir,
}

impl Services {
    pub async fn start() -> Result<Self> {
        Ok(Self {
            mint: TestMint::start(INPUT_FEE_PPK).await?,
            relay: Relay::start().await?,
            directory: tempfile::tempdir().map_err(during("make a directory"))?,
        })
    }

    /// The settings of a service with a new key that uses these parts.
    pub async fn settings(&self) -> Result<BTreeMap<String, String>> {
        let at = |name: &str| self.directory.path().join(name).to_string_lossy().into_owned();
        let key = Keys::generate().secret_key().to_bech32().map_err(during("encode a key"))?;
        let settings = [
            ("NOSTR_PRIVATE_KEY", key),
            ("NOSTR_RELAYS", self.relay.url().await.to_string()),
            ("ALLOW_PRIVATE_RELAYS", "true".to_owned()),
            ("WHITELISTED_MINTS", self.mint.url().to_owned()),
            ("CASHU_DB_PATH", at("wallet.sqlite")),
            ("LEDGER_PATH", at("ledger.sqlite")),
            ("POLICY_CACHE_DIR", at("compiled")),
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
