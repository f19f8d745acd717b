//! Delays of an action that a relay can make the service repeat, such as opening a subscription
//! again. Each delay is twice the one before.

use nostr_sdk::RelayUrl;
use paygress_core::backoff::{Doubling, doubling};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The delays of one action, for each of our relays.
pub(super) struct RelayDelays {
    pub first: Duration,
    /// Jitter included.
    pub longest: Duration,
    /// An action so long after the last one is not a repetition: the delays begin anew. Longer than
    /// the longest delay.
    pub forgiven: Duration,
    pub first_time: FirstTime,
    pub latest: HashMap<RelayUrl, Latest>,
}

/// What happens to an action that is not a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstTime {
    AtOnce,
    Delayed,
}

pub(super) struct Latest {
    delays: Doubling,
    /// When it was done.
    done_at: Instant,
}

impl RelayDelays {
    /// How long to wait before the action that this relay makes due now.
    pub(super) fn delay(&mut self, relay: &RelayUrl, now: Instant) -> Duration {
        // Zero while it is put off.
        let elapsed = |latest: &Latest| now.saturating_duration_since(latest.done_at);
        let is_again = self.latest.get(relay).is_some_and(|it| elapsed(it) < self.forgiven);
        if !is_again {
            let delays = doubling(self.first, self.longest);
            self.latest.insert(relay.clone(), Latest { delays, done_at: now });
            if self.first_time == FirstTime::AtOnce {
                return Duration::ZERO;
            }
        }
        let Some(latest) = self.latest.get_mut(relay) else { return Duration::ZERO };
        let delay = latest.delays.next().unwrap_or(self.longest);
        latest.done_at = now.checked_add(delay).unwrap_or(now);
        delay
    }
}
