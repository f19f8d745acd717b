//! Up to when each relay was read, in the ledger.

use nostr_sdk::{RelayUrl, Timestamp};
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::model::units::UnixTime;

fn key(relay: &RelayUrl) -> String {
    format!("nostr-read:{relay}")
}

/// So many seconds before the relay's cursor; before now if it has none.
pub(super) async fn since(
    ledger: &dyn InboxStore,
    relay: &RelayUrl,
    seconds: u64,
) -> Result<Timestamp, LedgerError> {
    let now = UnixTime::now().0;
    let cursor = ledger
        .kv_read(&key(relay))
        .await?
        .and_then(|text| text.parse().ok())
        .unwrap_or(now)
        .min(now);
    Ok(Timestamp::from_secs(cursor.saturating_sub(seconds)))
}

/// Everything up to now was read from this relay.
pub(super) async fn write(ledger: &dyn InboxStore, relay: &RelayUrl) {
    let now = UnixTime::now().0.to_string();
    if let Err(error) = ledger.kv_write(&key(relay), &now).await {
        tracing::warn!(%error, "the cursor could not be written");
    }
}
