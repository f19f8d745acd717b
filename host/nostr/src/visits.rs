//! Visits to relays that customers name. A visit is one future that owns its socket: whoever cuts
//! it short has closed it. Visits are bounded in all, for each host and for each customer, and a
//! relay that failed is left alone for a while. Customers whose relays do nothing but fail share a
//! part of the visits: what was paid for is sent again and again until a relay takes it.

use crate::address::{Socket, connect, is_allowed};
use crate::error::{REASON_CHARS, RelayError};
use futures::{SinkExt, StreamExt};
use nostr_sdk::message::MachineReadablePrefix;
use nostr_sdk::{
    ClientMessage, Event, EventBuilder, EventId, JsonUtil, Keys, PublicKey, RelayMessage, RelayUrl,
};
use paygress_core::keyed_limit::{KeyedLimit, Permit};
use paygress_core::recent::Recent;
use paygress_core::sanitize::plain;
use paygress_http_client::Reach;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_tungstenite::tungstenite::Message;

/// Resolving, connecting and shaking hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole visit: connecting, authenticating, sending, waiting for the relay's OK.
const VISIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Taking leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages that a relay may send during a visit: its challenge, its OK and a notice or two.
const MESSAGES: usize = 32;
/// Visits at the same time, of each [`Priority`].
const VISITS: usize = 32;
/// How long one waits for a slot.
const VISIT_WAIT: Duration = Duration::from_secs(10);
/// Visits at the same time to one host…
const VISITS_OF_HOST: usize = 8;
/// …and for one customer: two responses to all relays of their list.
const VISITS_OF_CUSTOMER: usize = 6;
/// …and for all customers whose visits have failed so often since one last succeeded, as many times
/// as their list has relays. They have paid for one order each, and repeat its delivery for days…
const VISITS_OF_FAILING: usize = 8;
const FAILURES_OF_CUSTOMER: u32 = 3;
/// …so many customers…
const FAILING_CUSTOMERS: usize = 10_000;
/// …for so long.
const FAILING_KEPT: Duration = Duration::from_secs(86_400);
/// Relays that failed and are remembered…
const FAILED_RELAYS: usize = 1_024;
/// …for so long.
const FAILED_KEPT: Duration = Duration::from_secs(60);

/// Each priority has its own visits: customers who pay do not wait for those who do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A response that holds a refund, or a paid order's own: it waits for a slot.
    Paid,
    /// Any other, and what can be requested again and again: it is not sent when there is no room at
    /// once.
    Unpaid,
}

/// The visits of one priority that are under way, and the relays that failed in them: what nobody
/// pays for keeps no relay from those who pay.
struct VisitSlots {
    all: Semaphore,
    hosts: KeyedLimit<String>,
    customers: KeyedLimit<PublicKey>,
    failed: Mutex<Recent<RelayUrl>>,
    /// Those of customers whose relays only fail.
    of_failing: Semaphore,
    /// How often visits for a customer have failed since one succeeded.
    failures: Mutex<Recent<PublicKey>>,
}

impl VisitSlots {
    fn new() -> Self {
        Self {
            all: Semaphore::new(VISITS),
            hosts: KeyedLimit::default(),
            customers: KeyedLimit::default(),
            failed: Mutex::new(Recent::new(FAILED_RELAYS, FAILED_KEPT)),
            of_failing: Semaphore::new(VISITS_OF_FAILING),
            failures: Mutex::new(Recent::new(FAILING_CUSTOMERS, FAILING_KEPT)),
        }
    }

    fn failed(&self) -> MutexGuard<'_, Recent<RelayUrl>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Recent<PublicKey>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to visit this relay for this customer.
    async fn acquire(
        &self,
        relay: &RelayUrl,
        customer: PublicKey,
        priority: Priority,
    ) -> Result<DeliveryPermit<'_>, RelayError> {
        if self.failed().contains(relay) {
            return Err(RelayError::FailedLately);
        }
        // First what is the customer's own fault, so that nobody waits in others' way.
        let of_customer = self.customers.try_acquire(customer, VISITS_OF_CUSTOMER);
        let of_customer = of_customer.ok_or(RelayError::Busy)?;
        let is_failing = self.failures().times(&customer) >= FAILURES_OF_CUSTOMER;
        let of_failing = match is_failing {
            true => Some(slot(&self.of_failing, priority).await?),
            false => None,
        };
        let host = relay.host().ok_or(RelayError::Busy)?.to_string();
        let host = self.hosts.try_acquire(host, VISITS_OF_HOST).ok_or(RelayError::Busy)?;
        let slot = slot(&self.all, priority).await?;
        Ok(DeliveryPermit {
            _host: host,
            _customer: of_customer,
            _of_failing: of_failing,
            _slot: slot,
        })
    }

    /// Notes whether a relay has failed, whatever it was sent.
    fn note(&self, relay: &RelayUrl, customer: &PublicKey, visited: &Result<(), RelayError>) {
        match visited {
            Ok(()) => self.failures().remove(customer),
            Err(error) if error.is_the_relays() => {
                self.failed().insert(relay);
                self.failures().insert(customer);
            }
            Err(_) => {}
        }
    }
}

/// One visit, until it is dropped.
struct DeliveryPermit<'a> {
    _host: Permit<String>,
    _customer: Permit<PublicKey>,
    _of_failing: Option<SemaphorePermit<'a>>,
    _slot: SemaphorePermit<'a>,
}

/// Brings events to external relays. They do not learn who we are.
pub(crate) struct Visits {
    reach: Reach,
    paid: VisitSlots,
    unpaid: VisitSlots,
}

impl Visits {
    pub(crate) fn new(reach: Reach) -> Self {
        Self { reach, paid: VisitSlots::new(), unpaid: VisitSlots::new() }
    }

    /// Whether this relay is one that we would visit: somebody else is going to.
    pub(crate) async fn is_allowed(&self, relay: &RelayUrl) -> bool {
        is_allowed(relay.into(), self.reach).await
    }

    /// Brings the event to this relay; `Ok` once it has confirmed that it has taken it.
    pub(crate) async fn send(
        &self,
        relay: &RelayUrl,
        event: &Event,
        customer: PublicKey,
        priority: Priority,
    ) -> Result<(), RelayError> {
        let slots = match priority {
            Priority::Paid => &self.paid,
            Priority::Unpaid => &self.unpaid,
        };
        let permit = slots.acquire(relay, customer, priority).await?;
        let sent = tokio::time::timeout(VISIT_TIMEOUT, visit(relay, event, self.reach)).await;
        let sent = sent.unwrap_or(Err(RelayError::Timeout));
        slots.note(relay, &customer, &sent);
        drop(permit);
        sent
    }
}

async fn slot(all: &Semaphore, priority: Priority) -> Result<SemaphorePermit<'_>, RelayError> {
    let slot = match priority {
        Priority::Paid => tokio::time::timeout(VISIT_WAIT, all.acquire()).await.ok(),
        Priority::Unpaid => return all.try_acquire().map_err(|_| RelayError::Busy),
    };
    slot.and_then(Result::ok).ok_or(RelayError::Busy)
}

/// Brings an event to one relay, and waits for its answer.
pub(crate) async fn visit(relay: &RelayUrl, event: &Event, reach: Reach) -> Result<(), RelayError> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(relay.into(), reach)).await;
    let mut socket = connected.map_err(|_| RelayError::Timeout)??;
    let sent = publish(&mut socket, relay, event).await;
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(None)).await;
    sent
}

/// Sends the event until the relay has answered it, with authentication (NIP-42) if it wants that.
async fn publish(socket: &mut Socket, relay: &RelayUrl, event: &Event) -> Result<(), RelayError> {
    send(socket, ClientMessage::event(event.clone())).await?;
    let (mut challenge, mut wanted, mut authentication) = (None, false, None::<EventId>);
    for _ in 0..MESSAGES {
        match receive(socket).await? {
            Some(RelayMessage::Auth { challenge: sent }) => challenge = Some(sent.into_owned()),
            Some(RelayMessage::Ok { event_id, status: true, .. }) => {
                if event_id == event.id {
                    return Ok(());
                }
                if Some(event_id) == authentication {
                    send(socket, ClientMessage::event(event.clone())).await?;
                }
            }
            Some(RelayMessage::Ok { event_id, message, .. }) => {
                let prefix = MachineReadablePrefix::parse(&message);
                let is_auth = prefix == Some(MachineReadablePrefix::AuthRequired);
                if event_id == event.id && is_auth && authentication.is_none() {
                    wanted = true;
                } else if event_id == event.id || Some(event_id) == authentication {
                    return Err(RelayError::Refused(plain(&message, REASON_CHARS)));
                }
            }
            _ => {}
        }
        if wanted && let Some(challenge) = challenge.take() {
            wanted = false;
            // A key of this visit alone: the wrap does not say who we are, and neither does this.
            let login = EventBuilder::auth(challenge, relay.clone());
            let login = login.sign_with_keys(&Keys::generate()).map_err(RelayError::sdk)?;
            authentication = Some(login.id);
            send(socket, ClientMessage::auth(login)).await?;
        }
    }
    Err(RelayError::NoAnswer)
}

async fn send(socket: &mut Socket, message: ClientMessage<'_>) -> Result<(), RelayError> {
    socket.send(Message::text(message.as_json())).await.map_err(RelayError::connection)
}

/// The next message; `None`: one that is not Nostr's.
async fn receive(socket: &mut Socket) -> Result<Option<RelayMessage<'static>>, RelayError> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(RelayMessage::from_json(text.as_bytes()).ok()),
        Some(Ok(Message::Close(_))) | None => Err(RelayError::Closed),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(RelayError::connection(error)),
    }
}

#[cfg(test)]
mod tests;
