//! One message: parsed, submitted, and marked as complete.

use super::claims::Claims;
use super::text;
use crate::connection::Connection;
use crate::gift_wrap::DirectMessage;
use crate::replies::{ReplyPublisher, reply_to};
use nostr_sdk::{Event, Kind, PublicKey, RelayUrl};
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::{LedgerError, Repetition};
use paygress_core::model::ids::{self, Customer, MessageId, PodName};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::UnixTime;
use paygress_core::orders::{NewOrder, OrderService, Submission};
use paygress_core::protocol::{Request, Response, is_response, unpaid};
use std::sync::Arc;

/// Older messages are not served, so that none is served twice: their ids are kept for longer.
pub(super) const OLDEST_SECONDS: u64 = 14 * 86_400;
/// Messages that were not encrypted are answered if they are not older than this.
pub(super) const PLAIN_SECONDS: u64 = 600;
/// A message from the future would outlive its id.
const FUTURE_SECONDS: u64 = 3_600;

/// Serves messages.
pub(super) struct MessageHandler {
    pub connection: Arc<Connection>,
    pub claims: Claims,
    pub replies: Arc<ReplyPublisher>,
    pub orders: Arc<OrderService>,
}

impl MessageHandler {
    /// A message is marked as complete only when it was served: after a crash before that it is
    /// served again, and the ledger knows the order.
    pub(super) async fn serve(
        &self,
        relay: &RelayUrl,
        message: &DirectMessage,
    ) -> Result<(), LedgerError> {
        let (now, written) = (UnixTime::now(), message.written_at.as_secs());
        let is_too_old = written.saturating_add(OLDEST_SECONDS) < now.0;
        if message.sender == self.connection.settings.keys.public_key()
            || is_response(&message.text)
            || is_too_old
            || !self.claims.claim(&message.id).await?
        {
            return Ok(());
        }
        let customer = customer_of(&message.sender);
        let to = reply_to(customer.clone(), relay, &message.id);
        let response = if written > now.0.saturating_add(FUTURE_SECONDS) {
            Err(Refusal::new(
                ErrorType::InvalidRequest,
                "the message is dated in the future; set your clock",
            ))
        } else {
            self.dispatch(message, &customer, &to).await
        };
        match response {
            Ok(None) => {}
            Ok(Some(response)) => self.replies.send_soon(to, response),
            Err(refusal) => {
                tracing::info!(code = refusal.code.as_str(), reason = refusal.message, %customer, "refused");
                self.replies.send_soon(to, Response::from(&refusal));
            }
        }
        self.claims.complete(&message.id).await
    }

    /// The response to a request; `None` if somebody else sends it, or sends it later.
    async fn dispatch(
        &self,
        message: &DirectMessage,
        customer: &Customer,
        to: &ReplyTo,
    ) -> Result<Option<Response>, Refusal> {
        match text::parse(&message.text)? {
            Request::Status { pod } => Ok(Some(self.orders.status(&pod, customer).await?.into())),
            Request::Stop { pod } => {
                // Who owns no pod is answered at once: only owners have somebody wait for them.
                self.orders.status(&pod, customer).await?;
                // A pod takes its time to end, and the next customer does not wait for it.
                let name = pod.to_string();
                let stopped = stop(Arc::clone(&self.orders), pod, customer.clone());
                self.replies.send_when(to.clone(), name, async move { Some(stopped.await) });
                Ok(None)
            }
            Request::Buy { token: None, .. } => Err(unpaid()),
            Request::Buy { token: Some(token), purchase, password, notices } => {
                let reply_to = to.clone();
                let order = NewOrder {
                    repetition: Repetition::ByContent,
                    message: MessageId::from_hash(message.id.to_bytes()),
                    reply_to: if notices { reply_to.with_notices() } else { reply_to },
                    // A relay stands between: the key is all that is known of the sender.
                    network: None,
                    token,
                    purchase,
                    password,
                };
                self.submit(order, customer, to).await
            }
        }
    }

    async fn submit(
        &self,
        order: NewOrder,
        customer: &Customer,
        to: &ReplyTo,
    ) -> Result<Option<Response>, Refusal> {
        match self.orders.submit(order).await? {
            // The order service responds.
            Submission::InProgress(order, _) => {
                tracing::info!(%order, %customer, "order submitted");
                Ok(None)
            }
            submission @ Submission::Joined(..) => {
                let order = submission.order().to_string();
                self.replies.send_when(to.clone(), order, submission.answer());
                Ok(None)
            }
            // The other replica responds.
            Submission::OnOtherReplica(_) => Ok(None),
            Submission::Completed(_, response) => Ok(Some(*response)),
        }
    }

    /// A message that everybody could read, or whose sender everybody sees.
    pub(super) async fn warn(&self, relay: &RelayUrl, event: &Event) -> Result<(), LedgerError> {
        if !self.claims.claim(&event.id).await? {
            return Ok(());
        }
        let is_recent =
            event.created_at.as_secs().saturating_add(PLAIN_SECONDS) > UnixTime::now().0;
        let is_own = event.pubkey == self.connection.settings.keys.public_key();
        if event.verify().is_ok() && is_recent && !is_own {
            let warning = match event.kind {
                Kind::PrivateDirectMessage => {
                    "your message was not encrypted: any token in it is exposed, swap it at its mint at once; send orders as NIP-17 gift wraps"
                }
                _ => {
                    "kind 4 messages (NIP-04) are not served and show who talks to whom: swap any token in it at its mint; send orders as NIP-17 gift wraps"
                }
            };
            let refusal = Refusal::new(ErrorType::InvalidRequest, warning);
            let to = reply_to(customer_of(&event.pubkey), relay, &event.id);
            self.replies.send_soon(to, Response::from(&refusal));
        }
        self.claims.complete(&event.id).await
    }
}

fn customer_of(key: &PublicKey) -> Customer {
    Customer::Nostr(ids::PublicKey::from_bytes(key.to_bytes()))
}

async fn stop(orders: Arc<OrderService>, pod: PodName, customer: Customer) -> Response {
    match orders.stop(&pod, &customer).await {
        Ok(stopped) => stopped.into(),
        Err(refusal) => Response::from(&refusal),
    }
}
