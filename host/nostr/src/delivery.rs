//! The way of one response: first to our relay that brought the request, beside it to the relays
//! that the customer reads (kind 10050).

use crate::connection::{Connection, inbox_relays};
use crate::error::{RelayError, sdk_error};
use crate::visits::Priority;
use nostr_sdk::{Event, PublicKey, RelayUrl};
use std::error::Error;
use std::time::Duration;

/// Looking up a customer's relays, at all of ours at once.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// What the relays of the customer's list did with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inbox {
    /// One of them has it.
    Taken,
    /// There is none, or none that we connect to.
    NoRelay,
    /// None of them has it; it may be sent again.
    NotTaken,
}

impl Connection {
    /// Sends to our relay that brought the request, and to our others if that one does not take it.
    /// The one that has taken it.
    pub(crate) async fn send_to_ours(
        &self,
        receipt: Option<&RelayUrl>,
        wrap: &Event,
    ) -> Option<RelayUrl> {
        let relays = &self.settings.relays;
        let first = relays.iter().filter(|relay| Some(*relay) == receipt);
        let others = relays.iter().filter(|relay| Some(*relay) != receipt);
        for relay in first.chain(others) {
            match self.publish(relay, wrap).await {
                Ok(()) => return Some(relay.clone()),
                Err(error) => log(relay, &error),
            }
        }
        None
    }

    /// Sends to all relays of the customer's list. `ours` has been sent it or is being sent it, and
    /// tells which of our relays has taken it.
    pub(crate) async fn send_to_inbox(
        &self,
        customer: PublicKey,
        wrap: &Event,
        priority: Priority,
        ours: impl Future<Output = Option<RelayUrl>> + Clone,
    ) -> Inbox {
        let listed = inbox_relays(&self.sending, customer, LOOKUP_TIMEOUT).await;
        let listed = listed.unwrap_or_else(|error| {
            let error = sdk_error(error);
            tracing::debug!(%error, "the customer's list of relays could not be read");
            Vec::new()
        });
        let sent = listed.iter().map(|relay| {
            let ours = ours.clone();
            async move {
                let sent = match self.settings.relays.contains(relay) {
                    true if ours.await.as_ref() == Some(relay) => Ok(()),
                    true => self.publish(relay, wrap).await,
                    false => self.external.send(relay, wrap, customer, priority).await,
                };
                match sent {
                    Ok(()) => Inbox::Taken,
                    Err(error) => {
                        log(relay, &error);
                        if error.is_final() { Inbox::NoRelay } else { Inbox::NotTaken }
                    }
                }
            }
        });
        let sent = futures::future::join_all(sent).await;
        let any = |inbox| sent.contains(&inbox);
        if any(Inbox::Taken) {
            Inbox::Taken
        } else if any(Inbox::NotTaken) {
            Inbox::NotTaken
        } else {
            Inbox::NoRelay
        }
    }
}

fn log(relay: &RelayUrl, error: &RelayError) {
    let error: &dyn Error = error;
    tracing::debug!(%relay, error, "a relay did not take a response");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::gift_wrap::gift_wrap;
    use nostr_sdk::{Client, Filter, Keys};
    use paygress_sandbox::Relay;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Of a service whose relays are these.
    async fn connected(relays: [&Relay; 2]) -> Connection {
        let [first, second] = relays;
        let settings = Settings {
            keys: Keys::generate(),
            relays: vec![first.url().await, second.url().await],
            private_relays: true,
            name: String::new(),
            about: String::new(),
        };
        let connection = Connection::new(settings, Client::builder().build());
        connection.connect_sending().await.unwrap();
        connection.sending.wait_for_connection(TIMEOUT).await;
        connection
    }

    fn response(connection: &Connection) -> Event {
        let customer = Keys::generate().public_key();
        gift_wrap(&connection.settings.keys, &customer, "{}", None).unwrap().1
    }

    async fn has(relay: &Relay, event: &Event) -> bool {
        let client = Client::builder().build();
        client.add_relay(relay.url().await).await.unwrap();
        client.connect().await;
        client.wait_for_connection(TIMEOUT).await;
        let found = client.fetch_events(Filter::new().id(event.id), TIMEOUT).await.unwrap();
        !found.is_empty()
    }

    #[tokio::test]
    async fn the_relay_that_brought_the_request_gets_the_response_and_no_other() {
        let (first, second) = (Relay::start().await.unwrap(), Relay::start().await.unwrap());
        let connection = connected([&first, &second]).await;
        let (first_url, second_url) = (first.url().await, second.url().await);
        for (receipt, taken_by) in
            [(Some(&second_url), &second_url), (Some(&first_url), &first_url), (None, &first_url)]
        {
            let response = response(&connection);
            let taken = connection.send_to_ours(receipt, &response).await;
            assert_eq!(taken.as_ref(), Some(taken_by), "{receipt:?}");
            for (relay, url) in [(&first, &first_url), (&second, &second_url)] {
                assert_eq!(has(relay, &response).await, url == taken_by, "{receipt:?}, {url}");
            }
        }
    }

    #[tokio::test]
    async fn another_relay_gets_what_the_one_that_brought_the_request_does_not_take() {
        let first = Relay::start().await.unwrap();
        let second = Relay::start_refusing("blocked: no").await.unwrap();
        let (connection, receipt) = (connected([&first, &second]).await, second.url().await);
        let response = response(&connection);
        let taken = connection.send_to_ours(Some(&receipt), &response).await;
        assert_eq!(taken, Some(first.url().await));
        assert!(has(&first, &response).await && !has(&second, &response).await);
    }
}
