//! Queues every event that a relay sends for the inbox's subscription or a page, before the library's
//! own bookkeeping can lose it.

use super::pages::Pages;
use nostr_sdk::pool::policy::{AdmitPolicy, AdmitStatus, PolicyError};
use nostr_sdk::util::BoxedFuture;
use nostr_sdk::{Event, RelayUrl, SubscriptionId};
use tokio::sync::mpsc;

/// An event, as one relay sent it.
#[derive(Debug)]
pub(super) struct ReceivedEvent {
    pub(super) relay: RelayUrl,
    pub(super) event: Event,
}

/// Moves the inbox's events into the queue; the library sees them as rejected.
#[derive(Debug)]
pub(super) struct InboxAdmitPolicy {
    id: SubscriptionId,
    queue: mpsc::Sender<ReceivedEvent>,
    pages: Pages,
}

impl InboxAdmitPolicy {
    pub(super) fn new(
        id: SubscriptionId,
        queue: mpsc::Sender<ReceivedEvent>,
        pages: Pages,
    ) -> Self {
        Self { id, queue, pages }
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
            if *id != self.id && !self.pages.contains(id) {
                return Ok(AdmitStatus::Success);
            }
            let received = ReceivedEvent { relay: relay.clone(), event: event.clone() };
            // Waits when the queue is full: the relay's connection waits with it.
            self.queue.send(received).await.map_err(PolicyError::backend)?;
            Ok(AdmitStatus::rejected("taken"))
        })
    }
}
