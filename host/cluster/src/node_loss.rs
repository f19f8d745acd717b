//! When a node that is not ready counts as lost.

use paygress_core::model::units::UnixTime;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The nodes that are not ready, and since when that was seen. It is counted by this process: the
/// cluster's clock may be another one, and a service that has just started has seen nothing.
#[derive(Default)]
pub(crate) struct UnreadyNodes(BTreeMap<String, Instant>);

impl UnreadyNodes {
    /// Those of the nodes that are unready now that have been unready for so long. A node that was
    /// ready in between begins anew.
    pub(crate) fn lost(
        &mut self,
        unready: Vec<String>,
        lost_after: Duration,
        now: Instant,
    ) -> Vec<String> {
        let before = std::mem::take(&mut self.0);
        let since = |name: &String| before.get(name).copied().unwrap_or(now);
        self.0 = unready.into_iter().map(|name| (name.clone(), since(&name))).collect();
        let is_lost = |since: Instant| now.saturating_duration_since(since) >= lost_after;
        self.0.iter().filter(|(_, since)| is_lost(**since)).map(|(name, _)| name.clone()).collect()
    }

    /// How long it is known that a node is not ready.
    pub(crate) fn unready_for(&self, name: &str, now: Instant) -> Duration {
        self.0.get(name).map_or(Duration::ZERO, |since| now.saturating_duration_since(*since))
    }
}

/// Until when the pods of a lost node were served: until the node was last known to be ready.
/// `reported` is by the clocks of node and cluster, which may be wrong: it is not believed if it is
/// later than `seen`, when this process saw that the node was not ready.
pub(crate) fn served_until(reported: Option<UnixTime>, seen: UnixTime) -> UnixTime {
    reported.map_or(seen, |reported| reported.min(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_lost_that_was_not_ready_all_the_time() {
        let (start, lost_after) = (Instant::now(), Duration::from_secs(300));
        let mut nodes = UnreadyNodes::default();
        for (seconds, unready, expected) in [
            (0, &["a"][..], &[][..]),
            (10, &["a", "b"], &[]),
            (299, &["a", "b"], &[]),
            (300, &["a", "b"], &["a"]),
            (310, &["a", "b"], &["a", "b"]),
            // It is back, and fails again.
            (320, &["b"], &["b"]),
            (330, &["a", "b"], &["b"]),
            (629, &["a"], &[]),
            (630, &["a"], &["a"]),
            (640, &[], &[]),
        ] {
            let unready = unready.iter().map(|name| (*name).to_owned()).collect();
            let now = start.checked_add(Duration::from_secs(seconds)).unwrap();
            assert_eq!(nodes.lost(unready, lost_after, now), expected, "after {seconds} s");
        }
    }

    #[test]
    fn its_pods_are_served_until_it_was_last_known_to_be_ready() {
        let start = Instant::now();
        let now = start.checked_add(Duration::from_secs(300)).unwrap();
        let mut nodes = UnreadyNodes::default();
        nodes.lost(vec!["a".to_owned()], Duration::from_secs(300), start);
        assert_eq!(nodes.unready_for("a", now), Duration::from_secs(300));
        assert_eq!(nodes.unready_for("b", now), Duration::ZERO);
        let until = |reported: Option<u64>| served_until(reported.map(UnixTime), UnixTime(700)).0;
        assert_eq!([None, Some(650), Some(701)].map(until), [700, 650, 700]);
    }
}
