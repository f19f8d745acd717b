//! Stored messages that a subscription left out because the relay caps its answers.

use super::admit::{OldestWraps, Receipt};
use super::cursor;
use crate::error::{BoxError, sdk_error};
use crate::gift_wrap::BACKDATED_SECONDS;
use nostr_sdk::pool::relay::options::ReqExitPolicy;
use nostr_sdk::{Client, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use paygress_core::backend::store::{InboxStore, LedgerError};
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
pub(super) struct Backfill {
    pub client: Client,
    pub service: PublicKey,
    pub relay: RelayUrl,
    pub ledger: Arc<dyn InboxStore>,
    pub oldest: OldestWraps,
    pub queue: mpsc::Sender<Receipt>,
    pub done: mpsc::Sender<Backfilled>,
    pub permit: Permit<RelayUrl>,
}

/// What has become of a backfill. Its relay has another one when this is dropped.
pub(super) struct Backfilled {
    pub relay: RelayUrl,
    pub result: Result<(), BackfillError>,
    pub permit: Permit<RelayUrl>,
}

/// Why a relay's stored wraps were not read to their end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackfillError {
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

impl Backfill {
    pub(super) async fn run(self) {
        let result = self.read().await;
        let Self { relay, done, permit, .. } = self;
        let _ = done.send(Backfilled { relay, result, permit }).await;
    }

    /// Page by page, until there is no more.
    async fn read(&self) -> Result<(), BackfillError> {
        let since = cursor::since(&*self.ledger, &self.relay, BACKDATED_SECONDS).await?;
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
