//! Dates of the events that relays replace. A relay takes one only if it is newer than the one that it
//! has, whatever the clock, a restart or another replica has put between them.

use crate::connection::Connection;
use crate::error::sdk_error;
use nostr_sdk::{Filter, Kind, RelayUrl, Timestamp};
use paygress_core::backend::store::InboxStore;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// In the ledger: the date of the newest event that a relay has taken.
const KEY: &str = "nostr-published";
/// Reading what our relays have, and connecting before that.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Relays refuse what is dated further in the future, as a rule.
const FUTURE_SECONDS: u64 = 900;

/// The dates, and what they follow.
pub(crate) struct OfferDates {
    connection: Arc<Connection>,
    ledger: Arc<dyn InboxStore>,
    /// The kinds of events that relays replace.
    kinds: Vec<Kind>,
    /// The newest date that a relay is known to have, by either way.
    taken: Timestamp,
    /// The newest date of events of this replica that a relay has taken.
    recorded: Timestamp,
    /// Relays that were read: what they had before is known.
    read: HashSet<RelayUrl>,
    has_waited: bool,
}

impl OfferDates {
    pub(crate) fn new(
        connection: Arc<Connection>,
        ledger: Arc<dyn InboxStore>,
        kinds: Vec<Kind>,
    ) -> Self {
        let none = Timestamp::from_secs(0);
        Self {
            connection,
            ledger,
            kinds,
            taken: none,
            recorded: none,
            read: HashSet::new(),
            has_waited: false,
        }
    }

    /// The date of events that are made now.
    pub(crate) async fn next(&mut self) -> Timestamp {
        self.read_relays().await;
        let now = Timestamp::now();
        let next = following(now, self.taken().await);
        let ahead = next.as_secs().saturating_sub(now.as_secs());
        if ahead > FUTURE_SECONDS {
            tracing::warn!(
                seconds = ahead,
                "the offers are dated in the future, because relays have some that are; others may refuse them: a clock was wrong, or is"
            );
        }
        next
    }

    /// Whether events of this date, which no relay has taken, are not newer than another replica's.
    /// Events of a date of which some were taken are refused for something else.
    pub(crate) async fn is_outdated(&mut self, date: Timestamp) -> bool {
        date > self.recorded && date <= self.taken().await
    }

    /// The newest date that a relay has taken, of this replica or another one.
    async fn taken(&mut self) -> Timestamp {
        match self.ledger.kv_read(KEY).await {
            Ok(text) => {
                let stored = text.and_then(|text| text.parse().ok()).unwrap_or(0);
                self.taken = self.taken.max(Timestamp::from_secs(stored));
            }
            Err(error) => tracing::warn!(%error, "the date of the last offers could not be read"),
        }
        self.taken
    }

    /// A relay has taken events of this date.
    pub(crate) async fn record(&mut self, date: Timestamp) {
        self.recorded = self.recorded.max(date);
        if date <= self.taken().await {
            return;
        }
        self.taken = date;
        if let Err(error) = self.ledger.kv_write(KEY, &date.as_secs().to_string()).await {
            tracing::warn!(%error, "the date of the offers could not be written");
        }
    }

    /// What our relays have, each of them once, as soon as it is connected: the ledger may be another
    /// one than before.
    async fn read_relays(&mut self) {
        let client = &self.connection.sending;
        if !std::mem::replace(&mut self.has_waited, true) {
            client.wait_for_connection(READ_TIMEOUT).await;
        }
        let relays = client.relays().await.into_iter();
        let connected = relays.filter(|(_, relay)| relay.is_connected()).map(|(url, _)| url);
        let new: Vec<RelayUrl> = connected.filter(|url| !self.read.contains(url)).collect();
        if new.is_empty() {
            return;
        }
        let author = self.connection.settings.keys.public_key();
        let filter = Filter::new().author(author).kinds(self.kinds.iter().copied());
        let fetched = client.fetch_events_from(&new, filter, READ_TIMEOUT).await;
        match fetched {
            Ok(events) => {
                let own = events.iter().filter(|it| it.pubkey == author && it.verify().is_ok());
                let newest = own.map(|event| event.created_at).max();
                self.taken = newest.map_or(self.taken, |newest| newest.max(self.taken));
                self.read.extend(new);
            }
            Err(error) => {
                let error = sdk_error(error);
                tracing::debug!(%error, "the offers at the relays could not be read");
            }
        }
    }
}

/// Newer than what was taken, and not before now.
fn following(now: Timestamp, taken: Timestamp) -> Timestamp {
    now.max(Timestamp::from_secs(taken.as_secs().saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::inbox::FakeStore;
    use nostr_sdk::{Client, EventBuilder, Keys};
    use paygress_core::backend::store::KvStore;
    use paygress_sandbox::Relay;

    fn dates(keys: &Keys, relays: Vec<RelayUrl>, ledger: &Arc<FakeStore>) -> OfferDates {
        let settings = Settings {
            keys: keys.clone(),
            relays,
            private_relays: true,
            name: String::new(),
            about: String::new(),
        };
        let connection = Arc::new(Connection::new(settings, Client::builder().build()));
        OfferDates::new(connection, Arc::<FakeStore>::clone(ledger), vec![Kind::Metadata])
    }

    #[test]
    fn the_next_date_is_newer_than_the_last_whatever_the_clock_is() {
        let at = Timestamp::from_secs;
        for (now, taken, next) in [(5, 0, 5), (5, 4, 5), (5, 5, 6), (5, 900, 901)] {
            assert_eq!(following(at(now), at(taken)), at(next), "{now} {taken}");
        }
    }

    #[tokio::test]
    async fn what_another_replica_or_a_run_before_has_published_is_followed() {
        let (keys, ledger) = (Keys::generate(), Arc::<FakeStore>::default());
        let [mut a, mut b] = [(); 2].map(|()| dates(&keys, Vec::new(), &ledger));
        let first = a.next().await;
        a.record(first).await;
        assert!(b.is_outdated(first).await, "as if it had made events of the same second");
        assert!(!a.is_outdated(first).await, "they are its own");
        assert!(b.next().await > first);
        let future = Timestamp::from_secs(Timestamp::now().as_secs() + 500);
        b.record(future).await;
        a.record(first).await;
        let next = Timestamp::from_secs(future.as_secs() + 1);
        assert_eq!(a.next().await, next, "its clock was set back");
        assert_eq!(dates(&keys, Vec::new(), &ledger).next().await, next, "after a restart");
        ledger.kv_write(KEY, "damaged").await.unwrap();
        assert_eq!(a.next().await, next);
    }

    #[tokio::test]
    async fn what_a_relay_has_is_followed_without_the_ledger() {
        let (relay, keys) = (Relay::start().await.unwrap(), Keys::generate());
        let future = Timestamp::from_secs(Timestamp::now().as_secs() + 500);
        let mut dates = dates(&keys, vec![relay.url().await], &Arc::default());
        dates.connection.connect_sending().await.unwrap();
        dates.connection.sending.wait_for_connection(Duration::from_secs(60)).await;
        for (keys, date) in [(&keys, future), (&Keys::generate(), future + 100)] {
            let event = EventBuilder::new(Kind::Metadata, "{}").custom_created_at(date);
            let event = event.sign_with_keys(keys).unwrap();
            dates.connection.publish(&relay.url().await, &event).await.unwrap();
        }
        assert_eq!(dates.next().await.as_secs(), future.as_secs() + 1, "and nobody else's");
    }
}
