//! The relays: one client for ours, and one, without our key, for those that customers name.

use crate::address::PublicOnly;
use crate::error::RelayError;
use nostr_sdk::nips::nip17;
use nostr_sdk::pool::RelayLimits;
use nostr_sdk::pool::relay::limits::{RelayEventLimits, RelayMessageLimits};
use nostr_sdk::{
    Client, ClientOptions, Event, Filter, Keys, Kind, PublicKey, RelayOptions, RelayServiceFlags,
    RelayUrl, client,
};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A relay's message: a wrap of the largest direct message, with room to spare.
const MESSAGE_BYTES: u32 = 256 << 10;
/// An event in it.
const EVENT_BYTES: u32 = 200 << 10;
/// Connecting to an external relay.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole visit to one: resolving, connecting, sending, waiting for its OK.
const VISIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Visits at the same time, of each [`Priority`].
const VISITS: usize = 32;
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

/// Both clients.
pub struct Connection {
    pub(crate) settings: Settings,
    pub(crate) ours: Client,
    external: Client,
    order_visits: Semaphore,
    other_visits: Semaphore,
}

/// Each priority has its own visits to external relays: customers who pay do not wait for those
/// who do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// The response to an order.
    Order,
    /// Anything else.
    Other,
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
        // External relays do not learn who we are: no key, no authentication.
        let external = Client::builder().opts(client_options().automatic_authentication(false));
        let external = if settings.private_relays {
            external
        } else {
            external.websocket_transport(PublicOnly)
        };
        Self {
            settings,
            ours,
            external: external.build(),
            order_visits: Semaphore::new(VISITS),
            other_visits: Semaphore::new(VISITS),
        }
    }

    /// Sends to one relay; `Ok` once it has confirmed it.
    pub(crate) async fn send(
        &self,
        url: &RelayUrl,
        event: &Event,
        priority: Priority,
    ) -> Result<(), RelayError> {
        if self.settings.relays.contains(url) {
            let relay = self.ours.relay(url).await.map_err(RelayError::sdk)?;
            return relay.send_event(event).await.map(drop).map_err(RelayError::sdk);
        }
        let visits = match priority {
            Priority::Order => &self.order_visits,
            Priority::Other => &self.other_visits,
        };
        let visit = async {
            let _permit = visits.acquire().await.map_err(RelayError::sdk)?;
            let visited = tokio::time::timeout(VISIT_TIMEOUT, self.visit(url, event)).await;
            // Another response may be using it; that one is sent again.
            let _ = self.external.pool().force_remove_relay(url).await;
            visited.unwrap_or(Err(RelayError::Timeout))
        };
        // Waiting for a permit ends too: another relay of the customer may take the event.
        tokio::time::timeout(VISIT_TIMEOUT.saturating_mul(2), visit)
            .await
            .unwrap_or(Err(RelayError::Busy))
    }

    async fn visit(&self, url: &RelayUrl, event: &Event) -> Result<(), RelayError> {
        let pool = self.external.pool();
        let once = relay_options()
            .reconnect(false)
            .flags(RelayServiceFlags::WRITE | RelayServiceFlags::PING);
        pool.add_relay(url, once).await.map_err(RelayError::sdk)?;
        let relay = self.external.relay(url).await.map_err(RelayError::sdk)?;
        relay.try_connect(CONNECT_TIMEOUT).await.map_err(RelayError::sdk)?;
        relay.send_event(event).await.map(drop).map_err(RelayError::sdk)
    }
}
