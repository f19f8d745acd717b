//! The relays: a client for ours, and visits to those that customers name.

use crate::error::{Error, RelayError};
use crate::relay_auth::RelayAuthSigner;
use crate::visits::Visits;
use nostr_sdk::nips::nip17;
use nostr_sdk::pool::RelayLimits;
use nostr_sdk::pool::relay::limits::{RelayEventLimits, RelayMessageLimits};
use nostr_sdk::{
    Client, ClientOptions, Event, Filter, Keys, Kind, PublicKey, RelayOptions, RelayUrl, client,
};
use paygress_http_client::Reach;
use std::time::Duration;

/// A relay's message: a wrap of the largest direct message, with room to spare.
const MESSAGE_BYTES: u32 = 256 << 10;
/// An event in it.
const EVENT_BYTES: u32 = 200 << 10;
/// Relays of one key that are used: NIP-17 says that a list has one to three.
const INBOX_RELAYS: usize = 3;

/// What the operator decides.
#[derive(Clone)]
pub struct Settings {
    /// The service's keys.
    pub keys: Keys,
    /// Our relays.
    pub relays: Vec<RelayUrl>,
    /// Whether customers may have us connect to private addresses: for tests and closed networks.
    pub private_relays: bool,
    /// The service's name, for its profile and offers.
    pub name: String,
    /// The service's description, for its profile and offers.
    pub about: String,
}

/// Our relays and everybody else's.
pub struct Connection {
    pub(crate) settings: Settings,
    /// Reads the inbox from our relays: what they send waits until there is room for it.
    pub(crate) ours: Client,
    /// Sends to our relays, and looks up what customers have there. Its connections are its own: a
    /// flood of messages to the inbox holds up no answer, and no relay's OK of one.
    pub(crate) sending: Client,
    pub(crate) external: Visits,
}

fn limits() -> RelayLimits {
    RelayLimits {
        messages: RelayMessageLimits { max_size: Some(MESSAGE_BYTES) },
        events: RelayEventLimits { max_size: Some(EVENT_BYTES), ..RelayEventLimits::default() },
    }
}

pub(crate) fn client_options() -> ClientOptions {
    ClientOptions::new()
        .automatic_authentication(true)
        .verify_subscriptions(true)
        .relay_limits(limits())
}

/// The pool does not apply the client's options to relays that are added to it: the same limits
/// again.
pub(crate) fn relay_options() -> RelayOptions {
    RelayOptions::new().verify_subscriptions(true).limits(limits())
}

/// The relays where this key reads private messages (kind 10050); none if there is no list.
pub(crate) async fn inbox_relays(
    client: &Client,
    owner: PublicKey,
    timeout: Duration,
) -> Result<Vec<RelayUrl>, client::Error> {
    let filter = Filter::new().kind(Kind::InboxRelays).author(owner).limit(1);
    let lists = client.fetch_events(filter, timeout).await?;
    let newest = lists.into_iter().find(|event| {
        event.kind == Kind::InboxRelays && event.pubkey == owner && event.verify().is_ok()
    });
    Ok(newest
        .map(|event| nip17::extract_relay_list(&event).take(INBOX_RELAYS).cloned().collect())
        .unwrap_or_default())
}

impl Connection {
    pub(crate) fn new(settings: Settings, ours: Client) -> Self {
        let reach = if settings.private_relays { Reach::Any } else { Reach::Public };
        let sending = Client::builder()
            .signer(RelayAuthSigner::new(settings.keys.clone()))
            .opts(client_options())
            .build();
        Self { settings, ours, sending, external: Visits::new(reach) }
    }

    /// Connects what sends, in the background.
    pub(crate) async fn connect_sending(&self) -> Result<(), Error> {
        for relay in &self.settings.relays {
            self.sending.pool().add_relay(relay, relay_options()).await.map_err(Error::sdk)?;
        }
        self.sending.connect().await;
        Ok(())
    }

    /// Sends to one of our relays; `Ok` once it has confirmed it.
    pub(crate) async fn publish(&self, relay: &RelayUrl, event: &Event) -> Result<(), RelayError> {
        let relay = self.sending.relay(relay).await.map_err(RelayError::sdk)?;
        relay.send_event(event).await.map(drop).map_err(RelayError::sdk)
    }
}
