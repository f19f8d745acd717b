//! Responses and their priorities. A response that holds money or a login is sent first and never
//! dropped. Responses that cost the customer nothing are bounded, and dropped first. To customers'
//! own relays, responses that are in the ledger go first, and those that customers can request as
//! often as they like go last.

mod admission;

use crate::connection::Connection;
use crate::delivery::Inbox;
use crate::error::ReplyError;
use crate::gift_wrap;
use crate::visits::Priority;
use admission::ReplyAdmission;
use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use futures::FutureExt;
use nostr_sdk::{Event, EventId, PublicKey, RelayUrl};
use paygress_core::backend::responder::{PodReply, ReplyTo, Responder, SendError};
use paygress_core::model::ids::Customer;
use paygress_core::protocol::{PodAccessDetails, Response};
use paygress_core::recent::Recent;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Responses of [`Priority::Unpaid`] that are on their way to the customers' own relays, each to
/// three at the most. When there are more, those are left out: our relay has the response.
const UNPAID_BESIDE: usize = 32;
/// Paid responses that our relay has and the customer's own relays have not, yet.
const HELD: usize = 10_000;
const HELD_KEPT: Duration = Duration::from_secs(14 * 86_400);
/// Attempts for responses that are not in the ledger, after the first.
const RETRIES: usize = 4;
/// The first pause between them; each one is twice as long.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Sends responses to customers.
pub struct ReplyPublisher {
    connection: Arc<Connection>,
    admission: ReplyAdmission,
    unpaid_beside: Arc<Semaphore>,
    held: Mutex<Recent<HeldKey>>,
}

/// A request, and a hash of its response: a request may have a second one, its pod's refund.
type HeldKey = (Option<EventId>, u64);

impl ReplyPublisher {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            admission: ReplyAdmission::new(),
            unpaid_beside: Arc::new(Semaphore::new(UNPAID_BESIDE)),
            held: Mutex::new(Recent::new(HELD, HELD_KEPT)),
        }
    }

    /// Sends a response that is not in the ledger, a few times at most.
    pub(crate) fn send_soon(self: &Arc<Self>, to: ReplyTo, response: Response) {
        let Some(in_flight) = self.admission.admit(&to, &response) else { return };
        let replies = Arc::clone(self);
        tokio::spawn(async move {
            replies.send_repeatedly(&to, &response).await;
            drop(in_flight);
        });
    }

    /// As [`ReplyPublisher::send_soon`], once there is a response: about an order or a pod of this
    /// customer, so that their number is bounded.
    pub(crate) fn send_when(
        self: &Arc<Self>,
        to: ReplyTo,
        about: String,
        response: impl Future<Output = Option<Response>> + Send + 'static,
    ) {
        let Some(waiting) = self.admission.admit_wait(&to, about) else { return };
        let replies = Arc::clone(self);
        tokio::spawn(async move {
            let response = response.await;
            drop(waiting);
            if let Some(response) = response {
                replies.send_soon(to, response);
            }
        });
    }

    async fn send_repeatedly(&self, to: &ReplyTo, response: &Response) {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(RETRY_DELAY)
            .with_factor(2.0)
            .with_max_times(RETRIES)
            .with_jitter();
        let log = |error: &ReplyError| {
            let error: &dyn Error = error;
            tracing::warn!(error, "a response could not be sent");
        };
        let priority = repeated_priority(response);
        let publish = || self.publish(to, response, priority);
        let sent = publish.retry(backoff).notify(|error, _| log(error)).await;
        if let Err(error) = sent {
            log(&error);
        }
    }

    async fn publish(
        &self,
        to: &ReplyTo,
        response: &Response,
        priority: Priority,
    ) -> Result<(), ReplyError> {
        let Recipient { customer, request, receipt } = recipient(to)?;
        let (keys, json) = (&self.connection.settings.keys, response.to_json());
        let (_, wrap) = gift_wrap::gift_wrap(keys, &customer, &json, request)?;
        match priority {
            Priority::Paid => {
                let mut hasher = DefaultHasher::new();
                json.hash(&mut hasher);
                self.publish_paid(customer, receipt, wrap, (request, hasher.finish())).await
            }
            Priority::Unpaid => self.publish_unpaid(customer, receipt, wrap).await,
        }
    }

    /// Delivered once the customer's own relays have it, or ours if they have none. Each attempt
    /// goes to their relays; ours gets it once.
    async fn publish_paid(
        &self,
        customer: PublicKey,
        receipt: Option<RelayUrl>,
        wrap: Event,
        key: HeldKey,
    ) -> Result<(), ReplyError> {
        let is_held = self.held().contains(&key);
        let ours = async {
            match is_held {
                true => None,
                false => self.connection.send_to_ours(receipt.as_ref(), &wrap).await,
            }
        };
        let ours = ours.boxed().shared();
        let beside = self.connection.send_to_inbox(customer, &wrap, Priority::Paid, ours.clone());
        let (taken, inbox) = tokio::join!(ours, beside);
        let is_held = is_held || taken.is_some();
        if inbox == Inbox::Taken || (inbox == Inbox::NoRelay && is_held) {
            self.held().remove(&key);
            return Ok(());
        }
        if is_held {
            self.held().insert(&key);
        }
        Err(ReplyError::NotTaken)
    }

    /// Delivered once our relay has it. Their own relays get it beside that, if there is room.
    async fn publish_unpaid(
        &self,
        customer: PublicKey,
        receipt: Option<RelayUrl>,
        wrap: Event,
    ) -> Result<(), ReplyError> {
        let taken = self.connection.send_to_ours(receipt.as_ref(), &wrap).await;
        let is_taken = taken.is_some();
        let Ok(room) = Arc::clone(&self.unpaid_beside).try_acquire_owned() else {
            return is_taken.then_some(()).ok_or(ReplyError::NotTaken);
        };
        let connection = Arc::clone(&self.connection);
        let beside = tokio::spawn(async move {
            let ours = std::future::ready(taken);
            let inbox = connection.send_to_inbox(customer, &wrap, Priority::Unpaid, ours).await;
            drop(room);
            inbox
        });
        match is_taken || matches!(beside.await, Ok(Inbox::Taken)) {
            true => Ok(()),
            false => Err(ReplyError::NotTaken),
        }
    }

    fn held(&self) -> MutexGuard<'_, Recent<HeldKey>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who gets a response, to which request, and by which relay that came.
struct Recipient {
    customer: PublicKey,
    request: Option<EventId>,
    receipt: Option<RelayUrl>,
}

fn recipient(to: &ReplyTo) -> Result<Recipient, ReplyError> {
    let Some(Customer::Nostr(customer)) = &to.customer else {
        return Err(ReplyError::Customer("they have no Nostr key".into()));
    };
    let customer = PublicKey::from_hex(customer.as_str())
        .map_err(|error| ReplyError::Customer(error.into()))?;
    let request = to.part(REQUEST).and_then(|id| EventId::from_hex(id).ok());
    let receipt = to.part(RELAY).and_then(|url| RelayUrl::parse(url).ok());
    Ok(Recipient { customer, request, receipt })
}

/// The priority of a response that is not in the ledger. Whoever bought a pod once may request its
/// status, its end and its login for ever: those keep no relay from orders that are paid for now. A
/// login is in the ledger too, and sent from there until one of the customer's own relays has it.
fn repeated_priority(response: &Response) -> Priority {
    match response.holds_refund() {
        true => Priority::Paid,
        false => Priority::Unpaid,
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
        let priority = if response.is_paid() { Priority::Paid } else { Priority::Unpaid };
        self.publish(to, response, priority).await.map_err(|error| match error {
            ReplyError::Customer(_) => SendError::recipient(error),
            ReplyError::GiftWrap(_) | ReplyError::NotTaken => SendError::undelivered(error),
        })
    }

    async fn pod_reply(&self, to: &ReplyTo, details: PodAccessDetails) -> Option<PodReply> {
        let Recipient { customer, request, receipt } = recipient(to).ok()?;
        self.connection.pod_reply(customer, request, receipt.as_ref(), details).await
    }
}
