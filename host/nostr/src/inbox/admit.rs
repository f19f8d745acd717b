//! Queues every event that a relay sends for the inbox's subscription, before the library's own
//! bookkeeping can lose it.

use nostr_sdk::pool::policy::{AdmitPolicy, AdmitStatus, PolicyError};
use nostr_sdk::util::BoxedFuture;
use nostr_sdk::{Event, Kind, RelayUrl, SubscriptionId, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// An event, as one relay sent it.
#[derive(Debug)]
pub(super) struct ReceivedEvent {
    pub(super) relay: RelayUrl,
    pub(super) event: Event,
}

/// The oldest wrap that each relay has sent since it was last subscribed.
#[derive(Clone, Debug, Default)]
pub(super) struct OldestWraps(Arc<Mutex<HashMap<RelayUrl, Timestamp>>>);

impl OldestWraps {
    pub(super) fn insert(&self, relay: &RelayUrl, at: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = all.entry(relay.clone()).or_insert(at);
        *oldest = (*oldest).min(at);
    }

    pub(super) fn remove(&self, relay: &RelayUrl) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(relay)
    }
}

/// Moves the inbox's events into the queue; the library sees them as rejected.
#[derive(Debug)]
pub(super) struct InboxAdmitPolicy {
    id: SubscriptionId,
    queue: mpsc::Sender<ReceivedEvent>,
    oldest: OldestWraps,
}

impl InboxAdmitPolicy {
    pub(super) fn new(
        id: SubscriptionId,
        queue: mpsc::Sender<ReceivedEvent>,
        oldest: OldestWraps,
    ) -> Self {
        Self { id, queue, oldest }
    }
}

impl AdmitPolicy for InboxAdmitPolicy {
    fn admit_event<'a>(
        &'a self,
        relay: &'a RelayUrl,
        id: &'a SubscriptionId,
        event: &'a Event,
    ) -> BoxedFuture<'a, Result<AdmitStatus, PolicyError>> {
        Box::pin(async move {
            if *id != self.id {
                return Ok(AdmitStatus::Success);
            }
            if event.kind == Kind::GiftWrap {
                self.oldest.insert(relay, event.created_at);
            }
            let received = ReceivedEvent { relay: relay.clone(), event: event.clone() };
            // Waits when the queue is full: the relay's connection waits with it.
            self.queue.send(received).await.map_err(PolicyError::backend)?;
            Ok(AdmitStatus::rejected("taken"))
        })
    }
}
