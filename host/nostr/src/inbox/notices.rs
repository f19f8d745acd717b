//! What relays say of themselves, for the log: a line a minute of each.

use nostr_sdk::RelayUrl;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Notices(HashMap<RelayUrl, Logged>);

struct Logged {
    at: Instant,
    left_out: u32,
}

impl Notices {
    /// Whether a text of this relay is logged now; how many were left out since the last one.
    pub(super) fn admit(&mut self, relay: &RelayUrl, now: Instant) -> Option<u32> {
        let Some(last) = self.0.get_mut(relay) else {
            self.0.insert(relay.clone(), Logged { at: now, left_out: 0 });
            return Some(0);
        };
        if now.duration_since(last.at) < INTERVAL {
            last.left_out = last.left_out.saturating_add(1);
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_has_one_line_a_minute() {
        let [a, b] =
            ["wss://a.example", "wss://b.example"].map(|url| RelayUrl::parse(url).unwrap());
        let (mut notices, start) = (Notices::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(notices.admit(&a, at(0)), Some(0));
        for second in 1..60 {
            assert_eq!(notices.admit(&a, at(second)), None);
        }
        assert_eq!(notices.admit(&b, at(59)), Some(0));
        assert_eq!(notices.admit(&a, at(60)), Some(59));
        assert_eq!(notices.admit(&a, at(61)), None);
        assert_eq!(notices.admit(&a, at(200)), Some(1));
    }
}
