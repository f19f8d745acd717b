//! Stored messages that a subscription left out because the relay caps its answers: read page by
//! page, from the newest back to the cursor.

use super::admit::ReceivedEvent;
use super::cursor;
use super::pages::{PAGE_EVENTS, Page, Pages};
use super::relay_delays::{FirstTime, RelayDelays};
use crate::error::{BoxError, REASON_CHARS, sdk_error};
use crate::gift_wrap::BACKDATED_SECONDS;
use nostr_sdk::message::MachineReadablePrefix;
use nostr_sdk::pool::RelayNotification;
use nostr_sdk::pool::relay::options::ReqExitPolicy;
use nostr_sdk::{
    Client, ClientMessage, Filter, Kind, PublicKey, Relay, RelayMessage, RelayStatus, RelayUrl,
    SubscribeAutoCloseOptions, SubscribeOptions, SubscriptionId, Timestamp,
};
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::keyed_limit::Permit;
use paygress_core::sanitize::plain;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

/// How long a page may take while the relay sends something.
const PAGE_LONGEST: Duration = Duration::from_secs(300);
/// A page with fewer events is not taken for one that its relay has capped.
const FEWEST_CAPPED: usize = 50;
/// Clocks differ: wraps that are dated so far in the future are read. A flood of wraps that are dated
/// further is passed over.
const FUTURE_SECONDS: u64 = 3_600;

/// What one backfill may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Pages that are read in a row.
    pub pages: u32,
    /// How long the relay may send nothing at all.
    pub silence: Duration,
    /// The least pause before what a bound has cut short goes on.
    pub pause: Duration,
}

/// More pages than two days of messages have. A relay may invent as many as there are seconds.
impl Default for Bounds {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { pages: 2_000, silence: seconds(15), pause: seconds(10) }
    }
}

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
    pub pages: Pages,
    /// Where its events are queued.
    pub queue: mpsc::Sender<ReceivedEvent>,
    pub bounds: Bounds,
    /// Where it begins: the newest date.
    pub until: Timestamp,
    pub done: mpsc::Sender<Backfilled>,
    pub permit: Permit<RelayUrl>,
    /// The pause before it begins.
    pub pause: Duration,
}

/// How a backfill ended. The next one of the same relay may begin when `permit` is dropped.
pub(super) struct Backfilled {
    pub relay: RelayUrl,
    pub result: Result<(), BackfillError>,
    /// All that is dated after this was read…
    pub reached: Timestamp,
    /// …but for what the relay has of so many seconds beyond a page of each.
    pub passed_over: u32,
    pub permit: Permit<RelayUrl>,
}

/// Why a relay's stored wraps were not read to their end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackfillError {
    #[error("the cursor cannot be read: {0}")]
    Cursor(#[from] LedgerError),
    #[error("there are more than are read in a row; it goes on after a pause")]
    TooMany,
    #[error("the relay has not sent a page to its end in time; it goes on after a pause")]
    Timeout,
    #[error("the relay has closed a page; it goes on after a pause: {0}")]
    Closed(#[source] BoxError),
    #[error("the connection to the relay was lost")]
    Disconnected,
    #[error("{0}")]
    Relay(#[source] BoxError),
}

impl BackfillError {
    fn relay(error: impl Into<BoxError>) -> Self {
        Self::Relay(sdk_error(error))
    }

    /// Whether the next backfill may go on at once where this one has stopped: the subscription has been
    /// open all the time, so that nothing new is stored behind that. After the others it goes on when
    /// the relay is subscribed again, and one more from the newest follows.
    pub(super) fn goes_on(&self) -> bool {
        match self {
            Self::TooMany | Self::Timeout | Self::Closed(_) => true,
            Self::Cursor(_) | Self::Disconnected | Self::Relay(_) => false,
        }
    }
}

/// The date at which a backfill begins that follows no other.
pub(super) fn newest() -> Timestamp {
    Timestamp::from_secs(Timestamp::now().as_secs().saturating_add(FUTURE_SECONDS))
}

impl Backfill {
    pub(super) async fn run(self) {
        tokio::time::sleep(self.pause).await;
        let (mut reached, mut passed_over) = (self.until, 0);
        let result = self.read(&mut reached, &mut passed_over).await;
        let Self { relay, done, permit, .. } = self;
        let _ = done.send(Backfilled { relay, result, reached, passed_over, permit }).await;
    }

    /// Page by page, until there is no more. The second at a page's edge is read again with the next
    /// page: the relay may have more of it.
    async fn read(
        &self,
        until: &mut Timestamp,
        passed_over: &mut u32,
    ) -> Result<(), BackfillError> {
        let since = cursor::since(&*self.ledger, &self.relay, BACKDATED_SECONDS).await?;
        let relay = self.client.relay(&self.relay).await.map_err(BackfillError::relay)?;
        let (mut pages, mut fullest) = (0..self.bounds.pages, FEWEST_CAPPED);
        while *until >= since {
            if pages.next().is_none() {
                return Err(BackfillError::TooMany);
            }
            let filter = Filter::new()
                .kind(Kind::GiftWrap)
                .pubkey(self.service)
                .since(since)
                .until(*until)
                .limit(PAGE_EVENTS);
            let Page { events, last } = self.page(&relay, filter).await?;
            if events == 0 {
                break;
            }
            if let Some(last) = last.filter(|last| *last < *until) {
                *until = last;
            } else {
                if events >= fullest {
                    *passed_over = passed_over.saturating_add(1);
                }
                *until = Timestamp::from_secs(until.as_secs().saturating_sub(1));
            }
            fullest = fullest.max(events);
        }
        Ok(())
    }

    /// One page. Its events are queued as they come, as those of the inbox's subscription are.
    async fn page(&self, relay: &Relay, filter: Filter) -> Result<Page, BackfillError> {
        let mut notifications = relay.notifications();
        let id = self.pages.open();
        // The library closes it at its end. One of those that it does not close would be sent before
        // it is known, and its first events refused.
        let close = SubscribeAutoCloseOptions::default()
            .exit_policy(ReqExitPolicy::ExitOnEOSE)
            .timeout(Some(PAGE_LONGEST));
        let options = SubscribeOptions::default().close_on(Some(close));
        let opened = relay.subscribe_with_id(id.clone(), vec![filter], options).await;
        let ended = match opened {
            Ok(()) => self.page_end(relay, &id, &mut notifications).await,
            Err(error) => Err(BackfillError::relay(error)),
        };
        if ended.is_err() {
            // An error: the connection is lost, and the subscription with it.
            let _ = relay.send_msg(ClientMessage::close(id.clone()));
        }
        let page = self.pages.close(&id);
        ended.map(|()| page)
    }

    /// Waits until the relay says that it has sent the page. A page without that may lack messages.
    async fn page_end(
        &self,
        relay: &Relay,
        id: &SubscriptionId,
        notifications: &mut broadcast::Receiver<RelayNotification>,
    ) -> Result<(), BackfillError> {
        let (begun, mut received) = (Instant::now(), relay.stats().bytes_received());
        while begun.elapsed() < PAGE_LONGEST {
            match tokio::time::timeout(self.bounds.silence, notifications.recv()).await {
                Ok(Ok(RelayNotification::Message { message })) => {
                    if is_end_of(id, &message)? {
                        return Ok(());
                    }
                }
                Ok(Ok(RelayNotification::RelayStatus { status }))
                    if status != RelayStatus::Connected =>
                {
                    return Err(BackfillError::Disconnected);
                }
                Ok(Ok(RelayNotification::Shutdown) | Err(RecvError::Closed)) => {
                    return Err(BackfillError::Disconnected);
                }
                // The end may be among what was lost.
                Ok(Err(RecvError::Lagged(_))) => return Err(BackfillError::Timeout),
                Ok(Ok(_)) => {}
                // Its events are not notified of; they wait behind those of the subscription, and for
                // room in the queue.
                Err(_)
                    if relay.stats().bytes_received() > received || self.queue.capacity() == 0 =>
                {
                    received = relay.stats().bytes_received();
                }
                Err(_) => return Err(BackfillError::Timeout),
            }
        }
        Err(BackfillError::Timeout)
    }
}

/// Whether this message is the page's end. An error: the relay has closed it before.
fn is_end_of(id: &SubscriptionId, message: &RelayMessage<'_>) -> Result<bool, BackfillError> {
    match message {
        RelayMessage::EndOfStoredEvents(ended) => Ok(**ended == *id),
        RelayMessage::Closed { subscription_id, message } if **subscription_id == *id => {
            let prefix = MachineReadablePrefix::parse(message);
            match prefix == Some(MachineReadablePrefix::AuthRequired) {
                // The library opens it again after the authentication.
                true => Ok(false),
                false => Err(BackfillError::Closed(sdk_error(plain(message, REASON_CHARS)))),
            }
        }
        _ => Ok(false),
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
