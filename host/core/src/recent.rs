//! What was seen lately. Outsiders fill it, so it is bounded in time and in number: the oldest is
//! forgotten first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// The keys that were seen lately, and how often.
pub struct Recent<K> {
    kept: Duration,
    capacity: usize,
    seen: HashMap<K, Seen>,
    /// Oldest first. A key that was removed, or seen again since, stays here until it is the
    /// oldest.
    order: VecDeque<(K, Instant)>,
}

struct Seen {
    since: Instant,
    times: u32,
}

impl<K: Eq + Hash + Clone> Recent<K> {
    /// Keeps so many keys, each for so long after it was first seen.
    pub fn new(capacity: usize, kept: Duration) -> Self {
        Self { kept, capacity, seen: HashMap::new(), order: VecDeque::new() }
    }

    /// Notes the key, and gives how many times it was seen by now.
    pub fn insert(&mut self, key: &K) -> u32 {
        self.forget_old();
        if let Some(seen) = self.seen.get_mut(key) {
            seen.times = seen.times.saturating_add(1);
            return seen.times;
        }
        let since = Instant::now();
        self.seen.insert(key.clone(), Seen { since, times: 1 });
        self.order.push_back((key.clone(), since));
        if self.order.len() > self.capacity {
            self.forget_oldest();
        }
        1
    }

    pub fn contains(&mut self, key: &K) -> bool {
        self.times(key) > 0
    }

    /// How many times the key was seen; 0 if it is not kept.
    pub fn times(&mut self, key: &K) -> u32 {
        self.forget_old();
        self.seen.get(key).map_or(0, |seen| seen.times)
    }

    pub fn remove(&mut self, key: &K) {
        self.seen.remove(key);
    }

    fn forget_old(&mut self) {
        while self.order.front().is_some_and(|(_, since)| since.elapsed() >= self.kept) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, since)) = self.order.pop_front()
            && self.seen.get(&key).is_some_and(|seen| seen.since == since)
        {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::new(2, Duration::MAX);
        assert_eq!([1, 2, 2, 3].map(|key| recent.insert(&key)), [1, 1, 2, 1]);
        assert_eq!([1, 2, 3].map(|key| recent.contains(&key)), [false, true, true]);
        assert_eq!([1, 2, 3].map(|key| recent.times(&key)), [0, 2, 1]);
        for key in 0..1_000 {
            recent.insert(&key);
            recent.remove(&key);
        }
        assert_eq!((recent.seen.len(), recent.order.len()), (0, 2));
    }

    #[test]
    fn nothing_is_kept_for_longer_than_it_may_be() {
        let mut recent = Recent::new(10, Duration::ZERO);
        assert_eq!([1, 1].map(|key| recent.insert(&key)), [1, 1]);
        assert!(!recent.contains(&1));
        assert!(recent.seen.is_empty() && recent.order.is_empty());
    }
}
