//! Stored messages that a subscription left out because the relay caps its answers.

use super::admit::{OldestWraps, Receipt};
use super::{BACKDATED_SECONDS, Inbox, MARGIN_SECONDS, cursor};
use crate::error::{BoxError, sdk_error};
use nostr_sdk::pool::relay::options::ReqExitPolicy;
use nostr_sdk::{Client, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::keyed_limit::Permit;
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    done: mpsc::Sender<Backfilled>,
    permit: Permit<RelayUrl>,
}

/// What has become of a backfill. Its relay has another one when this is dropped.
pub(super) struct Backfilled {
    relay: RelayUrl,
    result: Result<(), BackfillError>,
    permit: Permit<RelayUrl>,
}

/// Why a relay's stored wraps were not read to their end.
#[derive(Debug, thiserror::Error)]
enum BackfillError {
    #[error("the cursor cannot be read: {0}")]
    Cursor(#[from] LedgerError),
    #[error("there are more than are read in a row")]
    TooMany,
    #[error("{0}")]
    Relay(#[source] BoxError),
}

impl BackfillError {
    fn relay(error: impl Into<BoxError>) -> Self {
        Self::Relay(sdk_error(error))
    }
}

impl Inbox {
    /// Fetches what is stored before the oldest wrap that was sent. While that is being done, it is
    /// done once more afterwards, however often the relay says that it has sent all.
    pub(super) fn start_backfill(&mut self, relay: &RelayUrl) {
        let Some(permit) = self.backfilling.try_acquire(relay.clone(), 1) else {
            self.backfill_again.insert(relay.clone());
            return;
        };
        let backfill = Backfill {
            client: self.connection.ours.clone(),
            service: self.connection.settings.keys.public_key(),
            relay: relay.clone(),
            ledger: Arc::clone(&self.ledger),
            oldest: self.oldest.clone(),
            queue: self.backfill.clone(),
            done: self.backfilled.0.clone(),
            permit,
        };
        tokio::spawn(backfill.run());
    }

    pub(super) fn on_backfilled(&mut self, backfilled: Backfilled) {
        let Backfilled { relay, result, permit } = backfilled;
        drop(permit);
        let is_due_again = self.backfill_again.remove(&relay);
        match result {
            Ok(()) if is_due_again => self.start_backfill(&relay),
            Ok(()) => drop(self.sent_all.insert(relay)),
            Err(error) => {
                // It is read when it is subscribed again.
                self.synced.remove(&relay);
                if let Some(left_out) = self.notices.admit(&relay, Instant::now()) {
                    tracing::warn!(%relay, %error, left_out, "the stored messages were not read to their end");
                }
            }
        }
    }
}

impl Backfill {
    async fn run(self) {
        let result = self.read().await;
        let Self { relay, done, permit, .. } = self;
        let _ = done.send(Backfilled { relay, result, permit }).await;
    }

    /// Page by page, until there is no more.
    async fn read(&self) -> Result<(), BackfillError> {
        let back = BACKDATED_SECONDS.saturating_add(MARGIN_SECONDS);
        let since = cursor::since(&*self.ledger, &self.relay, back).await?;
        let mut before = self.oldest.remove(&self.relay);
        let mut pages = 0..PAGES;
        while let Some(until) = before.filter(|until| *until > since) {
            if pages.next().is_none() {
                return Err(BackfillError::TooMany);
            }
            let filter = Filter::new()
                .kind(Kind::GiftWrap)
                .pubkey(self.service)
                .since(since)
                .until(until)
                .limit(PAGE_EVENTS);
            let relay = self.client.relay(&self.relay).await.map_err(BackfillError::relay)?;
            let fetched = relay.fetch_events(filter, PAGE_TIMEOUT, ReqExitPolicy::ExitOnEOSE).await;
            let page = fetched.map_err(BackfillError::relay)?;
            let first = page.iter().map(|event| event.created_at).min();
            for event in page {
                let receipt = Receipt { relay: self.relay.clone(), event };
                if self.queue.send(receipt).await.is_err() {
                    // The inbox is gone, and nobody reads the result.
                    return Ok(());
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
        Ok(())
    }
}
