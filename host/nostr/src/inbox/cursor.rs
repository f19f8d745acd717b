//! Up to when each relay was read, in the ledger.

use super::serve::OLDEST_SECONDS;
use nostr_sdk::{RelayUrl, Timestamp};
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::model::units::UnixTime;

fn key(relay: &RelayUrl) -> String {
    format!("nostr-read:{relay}")
}

/// So many seconds before the relay's own cursor; before now if it has none. It is not after now,
/// wherever a clock has stood that wrote it, and not so old that nothing from before is served.
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
        .min(now)
        .max(now.saturating_sub(OLDEST_SECONDS));
    Ok(Timestamp::from_secs(cursor.saturating_sub(seconds)))
}

/// Everything up to then was read from this relay. By this clock, and by no event's date: those are
/// anybody's. What is on its way at this time is dated less than an hour beyond the two days by which
/// wraps are dated back, and is read again.
pub(super) async fn write(ledger: &dyn InboxStore, relay: &RelayUrl, at: UnixTime) {
    if let Err(error) = ledger.kv_write(&key(relay), &at.0.to_string()).await {
        tracing::warn!(%error, "the cursor could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::super::FakeStore;
    use super::*;
    use paygress_core::backend::store::KvStore;

    #[tokio::test]
    async fn each_relay_has_its_own_cursor_and_none_is_in_the_future_or_too_old() {
        let store = FakeStore::default();
        let relay = |name: &str| RelayUrl::parse(&format!("wss://{name}.example")).unwrap();
        let now = UnixTime::now().0;
        let values =
            [("away", now - 86_400), ("future", now + 86_400), ("years", now - 400 * 86_400)];
        for (name, cursor) in values {
            store.kv_write(&key(&relay(name)), &cursor.to_string()).await.unwrap();
        }
        write(&store, &relay("read"), UnixTime::now()).await;
        let since = async |name| since(&store, &relay(name), 60).await.unwrap().as_secs();
        assert_eq!(since("away").await, now - 86_460, "another relay was read meanwhile");
        for (name, ago) in [("future", 60), ("new", 60), ("read", 60), ("years", 14 * 86_400 + 60)]
        {
            let (since, least) = (since(name).await, now - ago);
            assert!((least..least + 30).contains(&since), "{name}: {since}, {least}");
        }
    }
}
