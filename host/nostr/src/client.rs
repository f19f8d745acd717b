//! A customer: finds offers, sends a request, waits for its answer.

use crate::connection::{client_error, options};
use crate::gift_wrap;
use crate::offers::{OFFER, identifier};
use crate::{Error, Keys, PublicKey, RelayUrl};
use nostr_sdk::nips::nip17;
use nostr_sdk::{
    Client, EventBuilder, Filter, Kind, RelayPoolNotification, SubscriptionId, Tag, Timestamp,
};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::broadcast;

/// Connecting to the relays.
const CONNECT: Duration = Duration::from_secs(10);
/// Asking them for events.
const FETCH: Duration = Duration::from_secs(5);

/// An offer that was found.
#[derive(Clone, Debug)]
pub struct DiscoveredOffer {
    /// The service.
    pub service: PublicKey,
    /// When it was published.
    pub published_at: u64,
    /// The offer, see `paygress_core::protocol::offer`.
    pub content: Value,
}

/// One customer on some relays.
pub struct Customer {
    keys: Keys,
    relays: Vec<RelayUrl>,
    client: Client,
}

impl Customer {
    /// Connects, and says where this customer reads private messages.
    ///
    /// # Errors
    /// When no relay can be reached.
    pub async fn connect(keys: Keys, relays: Vec<RelayUrl>) -> Result<Self, Error> {
        let client = Client::builder().signer(keys.clone()).opts(options()).build();
        for relay in &relays {
            client.add_relay(relay).await.map_err(client_error)?;
        }
        let connected = client.try_connect(CONNECT).await;
        if connected.success.is_empty() {
            let reasons: Vec<String> =
                connected.failed.iter().map(|(relay, why)| format!("{relay}: {why}")).collect();
            return Err(Error::Client(format!("no relay can be reached ({})", reasons.join("; "))));
        }
        let list = EventBuilder::new(Kind::InboxRelays, "")
            .tags(relays.iter().take(3).cloned().map(Tag::relay));
        let list = list.sign_with_keys(&keys).map_err(client_error)?;
        client.send_event(&list).await.map_err(client_error)?;
        Ok(Self { keys, relays, client })
    }

    /// The customer's keys: pods belong to them.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The offers on these relays, of one service or of all.
    ///
    /// # Errors
    /// When the relays cannot be asked.
    pub async fn offers(&self, service: Option<PublicKey>) -> Result<Vec<DiscoveredOffer>, Error> {
        let mut filter = Filter::new().kind(Kind::Custom(OFFER)).hashtag("paygress");
        if let Some(service) = service {
            filter = filter.author(service);
        }
        let events = self.client.fetch_events(filter, FETCH).await.map_err(client_error)?;
        // The kind is NIP-69's too: only what says that it is ours, and is signed by whom it says.
        let ours = |event: &nostr_sdk::Event| {
            event.tags.identifier() == Some(identifier(&event.pubkey).as_str())
                && event.verify().is_ok()
        };
        let found = events.into_iter().filter(ours).filter_map(|event| {
            let content = serde_json::from_str(&event.content).ok()?;
            Some(DiscoveredOffer {
                service: event.pubkey,
                published_at: event.created_at.as_secs(),
                content,
            })
        });
        Ok(found.collect())
    }

    /// Sends a request and waits for its answer. `progress` is told what is being done.
    ///
    /// # Errors
    /// When nothing could be sent, or no answer came in time.
    pub async fn ask(
        &self,
        service: PublicKey,
        request: &Value,
        patience: Duration,
        progress: impl Fn(&str),
    ) -> Result<Value, Error> {
        progress("looking up the service's relays");
        let filter = Filter::new().kind(Kind::InboxRelays).author(service).limit(1);
        let lists = self.client.fetch_events(filter, FETCH).await.map_err(client_error)?;
        let list =
            lists.into_iter().find(|event| event.pubkey == service && event.verify().is_ok());
        let mut targets: Vec<RelayUrl> = list
            .map(|event| nip17::extract_relay_list(&event).take(3).cloned().collect())
            .unwrap_or_default();
        if targets.is_empty() {
            targets.clone_from(&self.relays);
        }
        for target in &targets {
            if self.client.add_relay(target).await.map_err(client_error)? {
                self.client.connect_relay(target).await.map_err(client_error)?;
            }
        }
        // Listening before sending: the answer may be quick.
        let mut notifications = self.client.notifications();
        let me = self.keys.public_key();
        let since =
            Timestamp::from_secs(Timestamp::now().as_secs().saturating_sub(2 * 86_400 + 3_600));
        let inbox = Filter::new().kind(Kind::GiftWrap).pubkey(me).since(since);
        let id = SubscriptionId::generate();
        self.client
            .subscribe_with_id(id.clone(), inbox.clone(), None)
            .await
            .map_err(client_error)?;
        progress("sending the request");
        let (request_id, wrap) = gift_wrap::gift_wrap(&self.keys, &service, &request.to_string(), None)
            .map_err(Error::Client)?;
        let sent = self.client.send_event_to(&targets, &wrap).await.map_err(client_error)?;
        if sent.success.is_empty() {
            let reasons: Vec<String> =
                sent.failed.iter().map(|(relay, why)| format!("{relay}: {why}")).collect();
            return Err(Error::Client(format!(
                "no relay took the request ({})",
                reasons.join("; ")
            )));
        }
        progress("sent; waiting for the answer");
        let read = |event: &nostr_sdk::Event| {
            let message = gift_wrap::unwrap(&self.keys, event).ok()?;
            (message.sender == service && message.answers == Some(request_id))
                .then(|| serde_json::from_str(&message.text).ok())?
        };
        let wait = async {
            loop {
                match notifications.recv().await {
                    Ok(RelayPoolNotification::Event { event, .. }) => {
                        if let Some(answer) = read(&event) {
                            return Ok(answer);
                        }
                    }
                    Ok(RelayPoolNotification::Message { .. }) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let missed = self
                            .client
                            .fetch_events(inbox.clone(), FETCH)
                            .await
                            .map_err(client_error)?;
                        if let Some(answer) = missed.iter().find_map(&read) {
                            return Ok(answer);
                        }
                    }
                    Ok(RelayPoolNotification::Shutdown)
                    | Err(broadcast::error::RecvError::Closed) => {
                        return Err(Error::Client("the connection was closed".to_owned()));
                    }
                }
            }
        };
        let answer = tokio::time::timeout(patience, wait).await;
        self.client.unsubscribe(&id).await;
        answer.unwrap_or_else(|_| {
            Err(Error::Client(format!(
                "no answer within {} s; the service may be away, and answers when it is back",
                patience.as_secs()
            )))
        })
    }
}
