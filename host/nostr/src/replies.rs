//! Responses: to the relays that the customer reads (kind 10050), or to the one that brought the
//! request.

use crate::connection::{Connection, Priority, inbox_relays};
use crate::error::ReplyError;
use crate::gift_wrap;
use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use nostr_sdk::{Event, EventId, PublicKey, RelayUrl};
use paygress_core::backend::responder::{ReplyTo, Responder, SendError};
use paygress_core::model::ids::Customer;
use paygress_core::protocol::Response;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Looking up a customer's relays, at all of ours at once.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Responses in flight that are not in the ledger: errors of requests that never became orders.
/// More are dropped.
const IN_FLIGHT: usize = 128;
/// Attempts for these, after the first.
const RETRIES: usize = 4;
/// The first pause between them; each one is twice as long.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Sends responses to customers.
pub struct ReplyPublisher {
    connection: Arc<Connection>,
    in_flight: Arc<Semaphore>,
}

impl ReplyPublisher {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// Sends a response that is not in the ledger, a few times at most.
    pub(crate) fn send_soon(self: &Arc<Self>, to: ReplyTo, response: Response) {
        self.send_when(to, std::future::ready(Some(response)));
    }

    /// As [`ReplyPublisher::send_soon`], once there is a response.
    pub(crate) fn send_when(
        self: &Arc<Self>,
        to: ReplyTo,
        response: impl Future<Output = Option<Response>> + Send + 'static,
    ) {
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            tracing::warn!("too many responses are in flight; one was dropped");
            return;
        };
        let replies = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(response) = response.await {
                let backoff = ExponentialBuilder::new()
                    .with_min_delay(RETRY_DELAY)
                    .with_factor(2.0)
                    .with_max_times(RETRIES)
                    .with_jitter();
                let log = |error: &ReplyError| {
                    let error: &dyn Error = error;
                    tracing::warn!(error, "a response could not be sent");
                };
                let sent = (|| replies.publish(&to, &response, Priority::Other))
                    .retry(backoff)
                    .notify(|error, _| log(error))
                    .await;
                if let Err(error) = sent {
                    log(&error);
                }
            }
            drop(permit);
        });
    }

    /// The relays where this customer reads private messages.
    async fn relays_of(&self, customer: PublicKey) -> Vec<RelayUrl> {
        match inbox_relays(&self.connection.ours, customer, LOOKUP_TIMEOUT).await {
            Ok(relays) => relays,
            Err(error) => {
                tracing::debug!(%error, "the customer's list of relays could not be read");
                Vec::new()
            }
        }
    }

    async fn send_to_any(&self, relays: &[RelayUrl], wrap: &Event, priority: Priority) -> bool {
        let sent = relays.iter().map(|relay| async move {
            let sent = self.connection.send(relay, wrap, priority).await;
            if let Err(error) = &sent {
                let error: &dyn Error = error;
                tracing::debug!(%relay, error, "a relay did not take a response");
            }
            sent.is_ok()
        });
        futures::future::join_all(sent).await.contains(&true)
    }

    async fn publish(
        &self,
        to: &ReplyTo,
        response: &Response,
        priority: Priority,
    ) -> Result<(), ReplyError> {
        let Some(Customer::Nostr(customer)) = &to.customer else {
            return Err(ReplyError::Customer("they have no Nostr key".into()));
        };
        let customer = PublicKey::from_hex(customer.as_str())
            .map_err(|error| ReplyError::Customer(error.into()))?;
        let request = to.part(REQUEST).and_then(|id| EventId::from_hex(id).ok());
        let keys = &self.connection.settings.keys;
        let (_, wrap) = gift_wrap::gift_wrap(keys, &customer, &response.to_json(), request)?;
        let inbox = self.relays_of(customer).await;
        if self.send_to_any(&inbox, &wrap, priority).await {
            return Ok(());
        }
        let receipt: Vec<RelayUrl> =
            to.part(RELAY).into_iter().filter_map(|url| RelayUrl::parse(url).ok()).collect();
        if self.send_to_any(&receipt, &wrap, priority).await
            || self.send_to_any(&self.connection.settings.relays, &wrap, priority).await
        {
            return Ok(());
        }
        Err(ReplyError::NotTaken)
    }
}

/// The name of this transport in a [`ReplyTo`].
pub const TRANSPORT: &str = "nostr";
/// In its address: the relay that brought the request…
const RELAY: &str = "relay";
/// …and the id of its event.
const REQUEST: &str = "request";

/// Where the response to a message goes.
pub(crate) fn reply_to(customer: Customer, relay: &RelayUrl, request: &EventId) -> ReplyTo {
    let address = [(RELAY, relay.to_string()), (REQUEST, request.to_hex())];
    ReplyTo {
        transport: TRANSPORT.to_owned(),
        customer: Some(customer),
        address: address.map(|(name, value)| (name.to_owned(), Some(value))).into(),
    }
}

#[async_trait]
impl Responder for ReplyPublisher {
    async fn send(&self, to: &ReplyTo, response: &Response) -> Result<(), SendError> {
        self.publish(to, response, Priority::Order).await.map_err(|error| match error {
            ReplyError::Customer(_) => SendError::recipient(error),
            ReplyError::GiftWrap(_) | ReplyError::NotTaken => SendError::undelivered(error),
        })
    }
}
