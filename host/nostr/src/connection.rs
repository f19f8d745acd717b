//! The relays: one client for ours, and one, without our key, for those that customers name.

use crate::address::PublicOnly;
use nostr_sdk::pool::RelayLimits;
use nostr_sdk::pool::relay::limits::{RelayEventLimits, RelayMessageLimits};
use nostr_sdk::{Client, ClientOptions, Event, Keys, RelayOptions, RelayServiceFlags, RelayUrl};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A message of a relay: a wrap of the largest letter, with air.
const MESSAGE_BYTES: u32 = 256 << 10;
/// An event in it.
const EVENT_BYTES: u32 = 200 << 10;
/// Connecting to a relay that a customer named.
const CONNECT: Duration = Duration::from_secs(5);
/// All that is done with one: finding it, connecting, sending, waiting for its OK.
const VISIT: Duration = Duration::from_secs(10);
/// Such visits at the same time, for answers to orders; and as many for all others, so that nobody
/// who pays waits for who does not.
const VISITS: usize = 32;

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
    /// What it says of itself.
    pub about: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library said no.
    #[error("nostr: {0}")]
    Client(String),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] paygress_core::backend::store::LedgerError),
}

pub(crate) fn client_error(error: impl std::fmt::Display) -> Error {
    Error::Client(error.to_string())
}

/// Both clients.
pub struct Connection {
    pub(crate) settings: Settings,
    pub(crate) ours: Client,
    strangers: Client,
    ordered: Semaphore,
    others: Semaphore,
}

/// Whose letter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// An order's answer.
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

pub(crate) fn options() -> ClientOptions {
    ClientOptions::new()
        .automatic_authentication(true)
        .verify_subscriptions(true)
        .relay_limits(limits())
}

/// A relay of ours: what it sends is what was asked for, and not without end. (The pool knows
/// nothing of the client's options for relays that are added to it.)
pub(crate) fn relay_options() -> RelayOptions {
    RelayOptions::new().verify_subscriptions(true).limits(limits())
}

impl Connection {
    pub(crate) fn new(settings: Settings, ours: Client) -> Self {
        // Strangers' relays do not learn who we are: no key, no authentication.
        let strangers = Client::builder().opts(options().automatic_authentication(false));
        let strangers = if settings.private_relays {
            strangers
        } else {
            strangers.websocket_transport(PublicOnly)
        };
        Self {
            settings,
            ours,
            strangers: strangers.build(),
            ordered: Semaphore::new(VISITS),
            others: Semaphore::new(VISITS),
        }
    }

    /// Sends to one relay; `Ok` once it has said OK.
    pub(crate) async fn send(
        &self,
        url: &RelayUrl,
        event: &Event,
        rank: Priority,
    ) -> Result<(), String> {
        if self.settings.relays.contains(url) {
            let relay = self.ours.relay(url).await.map_err(|error| error.to_string())?;
            return relay.send_event(event).await.map(drop).map_err(|error| error.to_string());
        }
        let places = if rank == Priority::Order { &self.ordered } else { &self.others };
        let visit = async {
            let _place = places.acquire().await.map_err(|error| error.to_string())?;
            let visited = tokio::time::timeout(VISIT, self.visit(url, event)).await;
            // Another answer may be using it; that one is tried again.
            let _ = self.strangers.pool().force_remove_relay(url).await;
            visited.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
        };
        // Waiting for a place has an end too: the customer's other relays may do.
        tokio::time::timeout(VISIT.saturating_mul(2), visit)
            .await
            .unwrap_or_else(|_| Err("too many relays are being visited".to_owned()))
    }

    async fn visit(&self, url: &RelayUrl, event: &Event) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let pool = self.strangers.pool();
        let once = relay_options()
            .reconnect(false)
            .flags(RelayServiceFlags::WRITE | RelayServiceFlags::PING);
        pool.add_relay(url, once).await.map_err(|error| text(&error))?;
        let relay = self.strangers.relay(url).await.map_err(|error| text(&error))?;
        relay.try_connect(CONNECT).await.map_err(|error| text(&error))?;
        relay.send_event(event).await.map(drop).map_err(|error| text(&error))
    }
}
