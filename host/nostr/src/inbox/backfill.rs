//! Stored messages that a subscription left out because the relay caps its answers.

use super::admit::{OldestWraps, Receipt};
use super::{BACKDATED_SECONDS, Inbox, MARGIN_SECONDS, cursor};
use nostr_sdk::pool::relay::options::ReqExitPolicy;
use nostr_sdk::{Client, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use paygress_core::backend::store::InboxStore;
use paygress_core::keyed_limit::Permit;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Fetching one page of stored wraps.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// Relays that cap their answers lower just have more pages.
const PAGE_EVENTS: usize = 500;
/// Pages that are read in a row: more than two days of messages have. A relay may invent as many as
/// there are seconds.
const PAGES: u32 = 2_000;

/// The reading of one relay's stored wraps to their end.
struct Backfill {
    client: Client,
    service: PublicKey,
    relay: RelayUrl,
    ledger: Arc<dyn InboxStore>,
    oldest: OldestWraps,
    queue: mpsc::Sender<Receipt>,
    done: mpsc::Sender<RelayUrl>,
    _permit: Permit<RelayUrl>,
}

impl Inbox {
    /// Fetches what is stored before the oldest wrap that was sent, unless that is being done.
    pub(super) fn start_backfill(&self, relay: &RelayUrl) {
        let Some(permit) = self.backfilling.try_acquire(relay.clone(), 1) else { return };
        let backfill = Backfill {
            client: self.connection.ours.clone(),
            service: self.connection.settings.keys.public_key(),
            relay: relay.clone(),
            ledger: Arc::clone(&self.ledger),
            oldest: self.oldest.clone(),
            queue: self.backfill.clone(),
            done: self.backfilled.0.clone(),
            _permit: permit,
        };
        tokio::spawn(backfill.run());
    }
}

impl Backfill {
    /// Page by page, until there is no more.
    async fn run(self) {
        let back = BACKDATED_SECONDS.saturating_add(MARGIN_SECONDS);
        let since = match cursor::since(&*self.ledger, &self.relay, back).await {
            Ok(since) => since,
            Err(error) => return tracing::warn!(%error, "the cursor could not be read"),
        };
        let mut before = self.oldest.remove(&self.relay);
        let mut pages = 0..PAGES;
        while let Some(until) = before.filter(|until| *until > since) {
            if pages.next().is_none() {
                return tracing::warn!(relay = %self.relay, "the relay has more stored messages than are read in a row");
            }
            let filter = Filter::new()
                .kind(Kind::GiftWrap)
                .pubkey(self.service)
                .since(since)
                .until(until)
                .limit(PAGE_EVENTS);
            let Ok(relay) = self.client.relay(&self.relay).await else { return };
            let fetched = relay.fetch_events(filter, PAGE_TIMEOUT, ReqExitPolicy::ExitOnEOSE).await;
            let page = match fetched {
                Ok(page) => page,
                // It is read when it has reconnected.
                Err(error) => {
                    return tracing::warn!(relay = %self.relay, %error, "the stored messages could not be read to their end");
                }
            };
            let first = page.iter().map(|event| event.created_at).min();
            for event in page {
                let receipt = Receipt { relay: self.relay.clone(), event };
                if self.queue.send(receipt).await.is_err() {
                    return;
                }
            }
            // A page of one second only is passed over: all of it was sent.
            before = first.map(|first| {
                if first < until {
                    first
                } else {
                    Timestamp::from_secs(until.as_secs().saturating_sub(1))
                }
            });
        }
        let _ = self.done.send(self.relay).await;
    }
}
