//! How many of something each key has: connections of an address, streams of a customer, visits to
//! a host; and how that shrinks where all share what there is.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts by key; a key without permits is forgotten.
pub struct KeyedLimit<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for KeyedLimit<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Released when it is dropped.
pub struct Permit<K: Eq + Hash> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Eq + Hash> Permit<K> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Eq + Hash + Clone> KeyedLimit<K> {
    /// How many this key has.
    #[must_use]
    pub fn count(&self, key: &K) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or(0)
    }

    /// Whether no key has any.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// One more for this key, unless it has reached the limit.
    #[must_use]
    pub fn try_acquire(&self, key: K, limit: usize) -> Option<Permit<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&key).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        counts.insert(key.clone(), count.saturating_add(1));
        Some(Permit { counts: Arc::clone(&self.0), key })
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// One of the permits that all share, and how many were free with it: what [`share`] needs.
#[must_use]
pub fn try_acquire_of_all(all: &Arc<Semaphore>) -> Option<(OwnedSemaphorePermit, usize)> {
    let permit = Arc::clone(all).try_acquire_owned().ok()?;
    Some((permit, all.available_permits().saturating_add(1)))
}

/// How many one of several may have of what `all` share: `most` while more than half of it is free; then
/// less, by the square of how many times what is `free` goes into all; and one as long as there is one.
/// Those who came first get no more then, and what is left is for those who have few or none.
#[must_use]
pub fn share(most: usize, free: usize, all: usize) -> usize {
    let Some(times) = all.checked_div(free) else { return 0 };
    most.checked_div(times.saturating_mul(times)).unwrap_or(most).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_limit() {
        let limit = KeyedLimit::default();
        let (a, _b) = (limit.try_acquire("a", 1), limit.try_acquire("b", 1));
        assert!(a.is_some() && limit.try_acquire("a", 1).is_none());
        drop(a);
        assert!(limit.try_acquire("a", 1).is_some());
        assert_eq!(limit.0.lock().unwrap().len(), 1, "a key without permits is forgotten");
        assert!(limit.try_acquire("c", 0).is_none());
        assert_eq!(limit.0.lock().unwrap().len(), 1, "one that gets none is not known");
    }

    #[test]
    fn a_share_is_whole_at_first_and_one_at_last() {
        for (free, expected) in
            [(128, 48), (65, 48), (64, 12), (43, 12), (42, 5), (32, 3), (16, 1), (1, 1), (0, 0)]
        {
            assert_eq!(share(48, free, 128), expected, "{free}");
        }
    }

    /// Whoever takes all that they may, one after another.
    #[test]
    fn those_who_take_all_that_they_may_leave_some_to_many_others() {
        let mut free = 128;
        let mut takers = 0;
        while free > 0 {
            let mut held = 0;
            while held < share(96, free, 128) {
                (held, free) = (held + 1, free - 1);
            }
            takers += 1;
        }
        assert_eq!(takers, 26);
    }
}
