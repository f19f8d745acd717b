//! Wraps that were rejected: in memory only, since anybody can make as many as they like.

use nostr_sdk::EventId;
use std::collections::{HashSet, VecDeque};

const CAPACITY: usize = 10_000;

/// The most recent ids.
#[derive(Default)]
pub(super) struct RejectedIds {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl RejectedIds {
    pub(super) fn contains(&self, id: &EventId) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn insert(&mut self, id: EventId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}
