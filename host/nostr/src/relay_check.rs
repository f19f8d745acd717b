//! Checks for the operator whether one of our relays does what the service needs: it must take a
//! gift wrap, give it to its receiver, and let the service read its inbox. The wrap goes to a new
//! random key and expires; a service that runs with the same key does not see it.

use crate::connection::{client_options, relay_options};
use crate::error::Error;
use crate::gift_wrap;
use crate::relay_auth::RelayAuthSigner;
use nostr_sdk::pool::relay::ReqExitPolicy;
use nostr_sdk::pool::{Relay, RelayNotification};
use nostr_sdk::{Client, Event, EventBuilder, Filter, Keys, Kind, RelayUrl, Tag, Timestamp};
use paygress_http_client::{HttpClient, Proxies, Timeouts};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

/// Connecting to the relay.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One request to it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// What a relay may write about itself.
const INFORMATION_BYTES: usize = 64 << 10;
/// How long it is to keep the wrap.
const KEPT_SECONDS: u64 = 600;
/// As long as an answer with a refund of some proofs.
const TEXT_BYTES: usize = 4 << 10;

/// What a relay has done.
#[derive(Debug)]
pub struct RelayReport {
    /// Whether it has taken a wrap of the service's.
    pub written: Result<(), Error>,
    /// Whether it lets the service read its inbox.
    pub inbox: Result<(), Error>,
    /// Whether it has given the wrap to its receiver; none: it has taken none.
    pub read_back: Option<Result<ReadBack, Error>>,
    /// Whether it has wanted authentication (NIP-42), and accepted it.
    pub authenticated: bool,
    /// The largest message that it takes, if it says so (NIP-11).
    pub max_message_bytes: Option<u64>,
}

/// What a receiver gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    Same,
    Nothing,
}

/// A wrap for this receiver that expires soon.
fn wrap(receiver: &Keys) -> Result<Event, Error> {
    let text = "x".repeat(TEXT_BYTES);
    let to = receiver.public_key();
    let (_, wrap) = gift_wrap::gift_wrap(&Keys::generate(), &to, &text, None)?;
    let expires = Timestamp::from(Timestamp::now().as_secs().saturating_add(KEPT_SECONDS));
    EventBuilder::new(Kind::GiftWrap, wrap.content)
        .tags([Tag::public_key(to), Tag::expiration(expires)])
        .sign_with_keys(&Keys::generate())
        .map_err(Error::sdk)
}

/// Connects to a relay, and authenticates with these keys if it wants that.
async fn connect(keys: &Keys, relay: &RelayUrl) -> Result<(Client, Relay), Error> {
    let signer = RelayAuthSigner::new(keys.clone());
    let client = Client::builder().signer(signer).opts(client_options()).build();
    client.pool().add_relay(relay, relay_options()).await.map_err(Error::sdk)?;
    let connected = client.try_connect(CONNECT_TIMEOUT).await;
    if connected.success.is_empty() {
        return Err(Error::NoRelay(connected.failed.into()));
    }
    let relay = client.relay(relay).await.map_err(Error::sdk)?;
    Ok((client, relay))
}

async fn fetch(relay: &Relay, filter: Filter) -> Result<Vec<Event>, Error> {
    let events = relay.fetch_events(filter, FETCH_TIMEOUT, ReqExitPolicy::ExitOnEOSE).await;
    Ok(events.map_err(Error::sdk)?.into_iter().collect())
}

async fn read_back(relay: &RelayUrl, receiver: &Keys, wrap: &Event) -> Result<ReadBack, Error> {
    let (client, connected) = connect(receiver, relay).await?;
    let filter = Filter::new().id(wrap.id).kind(Kind::GiftWrap).pubkey(receiver.public_key());
    let events = fetch(&connected, filter).await;
    client.shutdown().await;
    let is_there = events?.iter().any(|event| event.id == wrap.id);
    Ok(if is_there { ReadBack::Same } else { ReadBack::Nothing })
}

fn was_authenticated(mut notifications: Receiver<RelayNotification>) -> bool {
    loop {
        match notifications.try_recv() {
            Ok(RelayNotification::Authenticated) => return true,
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return false,
        }
    }
}

/// What it says of itself (NIP-11). Relays are connected to directly.
async fn max_message_bytes(relay: &RelayUrl) -> Option<u64> {
    let url = format!("http{}", relay.as_str().strip_prefix("ws")?);
    let client = HttpClient::with_proxies(Timeouts::all(FETCH_TIMEOUT), Proxies::default()).ok()?;
    let answer = client.get(&url, "application/nostr+json").await.ok()?;
    let text = answer.bytes(INFORMATION_BYTES).await.ok()?;
    let information: Value = serde_json::from_slice(&text).ok()?;
    information.get("limitation")?.get("max_message_length")?.as_u64()
}

/// Writes to a relay and reads from it, as the service with these keys does.
///
/// # Errors
/// [`Error`]: the relay cannot be connected to.
pub async fn check_relay(keys: &Keys, relay: &RelayUrl) -> Result<RelayReport, Error> {
    let (client, own) = connect(keys, relay).await?;
    let notifications = own.notifications();
    let receiver = Keys::generate();
    let wrap = wrap(&receiver)?;
    let written = own.send_event(&wrap).await.map(drop).map_err(Error::sdk);
    let inbox = Filter::new().kind(Kind::GiftWrap).pubkey(keys.public_key()).limit(1);
    let inbox = fetch(&own, inbox).await.map(drop);
    let authenticated = was_authenticated(notifications);
    client.shutdown().await;
    let read_back = match written {
        Ok(()) => Some(read_back(relay, &receiver, &wrap).await),
        Err(_) => None,
    };
    let max_message_bytes = max_message_bytes(relay).await;
    Ok(RelayReport { written, inbox, read_back, authenticated, max_message_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_sandbox::Relay;

    #[tokio::test]
    async fn open_and_guarded_relays_give_a_wrap_to_its_receiver() {
        for (relay, wants_authentication) in
            [(Relay::start().await, false), (Relay::start_guarded().await, true)]
        {
            let relay = relay.unwrap();
            let report = check_relay(&Keys::generate(), &relay.url().await).await.unwrap();
            assert!(report.written.is_ok() && report.inbox.is_ok(), "{report:?}");
            assert!(matches!(report.read_back, Some(Ok(ReadBack::Same))), "{report:?}");
            assert_eq!(report.authenticated, wants_authentication, "{report:?}");
        }
    }

    #[tokio::test]
    async fn a_relay_that_takes_nothing_and_one_that_is_not_there_are_reported() {
        let relay = Relay::start_refusing("blocked: no").await.unwrap();
        let url = relay.url().await;
        let report = check_relay(&Keys::generate(), &url).await.unwrap();
        let why = format!("{:?}", report.written.unwrap_err());
        assert!(why.contains("blocked: no") && report.read_back.is_none(), "{why}");
        relay.stop();
        drop(relay);
        let gone = RelayUrl::parse("ws://127.0.0.1:9").unwrap();
        assert!(matches!(check_relay(&Keys::generate(), &gone).await, Err(Error::NoRelay(_))));
    }

    #[test]
    fn the_wrap_is_nobodys_and_expires() {
        let receiver = Keys::generate();
        let wrap = wrap(&receiver).unwrap();
        assert!(wrap.verify().is_ok() && wrap.pubkey != receiver.public_key());
        assert!(wrap.tags.expiration().is_some());
    }
}
