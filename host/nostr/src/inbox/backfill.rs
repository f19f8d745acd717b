//! Stored messages that a subscription left out because the relay caps its answers.

use super::admit::{OldestWraps, ReceivedEvent};
use super::cursor;
use super::relay_delays::{FirstTime, RelayDelays};
use crate::error::{BoxError, sdk_error};
use crate::gift_wrap::BACKDATED_SECONDS;
use nostr_sdk::pool::relay::options::ReqExitPolicy;
use nostr_sdk::{Client, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::keyed_limit::Permit;
use std::collections::HashMap;
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
/// The pause before a backfill that follows another one of the same relay; doubled each time…
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// …up to this one, jitter included.
const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// A backfill so long after the last one follows no other: it begins without a pause. Longer than
/// the longest pause.
const PAUSE_FORGIVEN: Duration = Duration::from_secs(120);

/// The pauses before backfills. A relay may send EOSE again and again, and each backfill costs
/// requests to it.
pub(super) fn backfill_pauses() -> RelayDelays {
    RelayDelays {
        first: PAUSE_FIRST,
        longest: PAUSE_LONGEST,
        forgiven: PAUSE_FORGIVEN,
        first_time: FirstTime::AtOnce,
        latest: HashMap::new(),
    }
}

/// The reading of one relay's stored wraps to their end.
pub(super) struct Backfill {
    pub client: Client,
    pub service: PublicKey,
    pub relay: RelayUrl,
    pub ledger: Arc<dyn InboxStore>,
    pub oldest: OldestWraps,
    pub queue: mpsc::Sender<ReceivedEvent>,
    pub done: mpsc::Sender<Backfilled>,
    pub permit: Permit<RelayUrl>,
    /// The pause before it begins.
    pub pause: Duration,
}

/// How a backfill ended. The next one of the same relay may begin when `permit` is dropped.
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
        tokio::time::sleep(self.pause).await;
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
                let received = ReceivedEvent { relay: self.relay.clone(), event };
                if self.queue.send(received).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// The pauses within a day of a relay that has sent all again so long after each reading began.
    fn pauses_of_a_day(after: Duration) -> Vec<Duration> {
        let relay = RelayUrl::parse("wss://a.example").unwrap();
        let (mut pauses, start) = (backfill_pauses(), Instant::now());
        let (mut elapsed, mut found) = (Duration::ZERO, Vec::new());
        while elapsed < Duration::from_secs(86_400) {
            let pause = pauses.delay(&relay, start.checked_add(elapsed).unwrap());
            elapsed = elapsed.saturating_add(pause).saturating_add(after);
            found.push(pause);
        }
        found
    }

    #[test]
    fn a_relay_that_has_sent_all_again_and_again_is_read_at_longer_and_longer_intervals() {
        let pauses = pauses_of_a_day(Duration::from_millis(1));
        println!("sent all again at once for a day: read {} times", pauses.len());
        assert_eq!(pauses[0], Duration::ZERO, "the first time it is read at once");
        for (pause, seconds) in pauses[1..].iter().zip([1, 2, 4, 8, 16, 30, 30]) {
            let least = Duration::from_secs(seconds);
            assert!((least..=least * 2).contains(pause), "{pause:?} is not from {least:?}");
        }
        assert!(pauses.len() <= 2_900, "{}", pauses.len());
        let seldom = pauses_of_a_day(PAUSE_FORGIVEN);
        assert!(seldom.iter().all(Duration::is_zero), "{seldom:?}");
    }

    #[test]
    fn the_log_has_a_relays_text_as_plain_text() {
        let error = BackfillError::relay(format!("no: \u{1b}[2J\n{}", "x".repeat(10_000)));
        let shown = error.to_string();
        assert!(shown.contains("no: \\u{1b}[2J\\u{a}xxx"), "{shown}");
        assert!(shown.chars().count() < 400, "{}", shown.chars().count());
    }
}
