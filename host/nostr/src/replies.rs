//! Answers: to the relays that the customer reads (kind 10050), or to the one that brought the
//! order.

use crate::connection::{Connection, Priority};
use crate::gift_wrap;
use async_trait::async_trait;
use nostr_sdk::nips::nip17;
use nostr_sdk::{EventId, Filter, Kind, PublicKey, RelayUrl};
use paygress_core::backend::responder::{ReplyTo, Responder};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Looking for a customer's relays, at all of ours at once.
const LOOKUP: Duration = Duration::from_secs(3);
/// Relays of a customer that we write to: NIP-17 says that a list has one to three.
const RELAYS: usize = 3;
/// Answers under way that are not in the ledger: errors of requests that were never orders. More
/// are dropped.
const IN_FLIGHT: usize = 128;
/// Attempts for these.
const ATTEMPTS: u32 = 5;

/// The way back to customers.
pub struct ReplyPublisher {
    connection: Arc<Connection>,
    places: Arc<Semaphore>,
}

impl ReplyPublisher {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, places: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// Sends an answer that is not in the ledger, a few times at most.
    pub(crate) fn send_soon(self: &Arc<Self>, to: ReplyTo, answer: Value) {
        self.send_when(to, std::future::ready(Some(answer)));
    }

    /// As [`ReplyPublisher::send_soon`], once there is an answer.
    pub(crate) fn send_when(
        self: &Arc<Self>,
        to: ReplyTo,
        answer: impl Future<Output = Option<Value>> + Send + 'static,
    ) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!("too many answers are under way; one was dropped");
            return;
        };
        let post = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(answer) = answer.await {
                for attempt in 0..ATTEMPTS {
                    match post.bring(&to, &answer, Priority::Other).await {
                        Ok(()) => break,
                        Err(why) => tracing::warn!(why, attempt, "an answer could not be sent"),
                    }
                    tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
                }
            }
            drop(place);
        });
    }

    /// The relays where this customer reads private messages.
    async fn relays_of(&self, customer: PublicKey) -> Vec<RelayUrl> {
        let filter = Filter::new().kind(Kind::InboxRelays).author(customer).limit(1);
        let found = match self.connection.ours.fetch_events(filter, LOOKUP).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "no list of relays");
                return Vec::new();
            }
        };
        let newest = found.into_iter().find(|event| {
            event.kind == Kind::InboxRelays && event.pubkey == customer && event.verify().is_ok()
        });
        newest
            .map(|event| nip17::extract_relay_list(&event).take(RELAYS).cloned().collect())
            .unwrap_or_default()
    }

    async fn send_to_any(
        &self,
        relays: &[RelayUrl],
        wrap: &nostr_sdk::Event,
        rank: Priority,
    ) -> bool {
        let sent = relays.iter().map(|relay| async move {
            let sent = self.connection.send(relay, wrap, rank).await;
            if let Err(why) = &sent {
                tracing::debug!(%relay, why, "a relay did not take an answer");
            }
            sent.is_ok()
        });
        futures::future::join_all(sent).await.contains(&true)
    }

    async fn bring(&self, to: &ReplyTo, answer: &Value, rank: Priority) -> Result<(), String> {
        let customer =
            PublicKey::from_hex(to.customer.as_str()).map_err(|error| error.to_string())?;
        let request = to.request.as_deref().and_then(|id| EventId::from_hex(id).ok());
        let (_, wrap) =
            gift_wrap::gift_wrap(&self.connection.settings.keys, &customer, &answer.to_string(), request)?;
        let named = self.relays_of(customer).await;
        if self.send_to_any(&named, &wrap, rank).await {
            return Ok(());
        }
        let receipt: Vec<RelayUrl> =
            to.relay.iter().filter_map(|url| RelayUrl::parse(url).ok()).collect();
        if self.send_to_any(&receipt, &wrap, rank).await
            || self.send_to_any(&self.connection.settings.relays, &wrap, rank).await
        {
            return Ok(());
        }
        Err("no relay took it".to_owned())
    }
}

#[async_trait]
impl Responder for ReplyPublisher {
    async fn send(&self, to: &ReplyTo, answer: &Value) -> Result<(), String> {
        self.bring(to, answer, Priority::Order).await
    }
}
