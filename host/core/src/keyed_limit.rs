//! How many of something each key has: connections of an address, streams of a customer, visits to
//! a host.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

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
    #[cfg(test)]
    pub(crate) fn count(&self, key: &K) -> usize {
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
        let count = counts.entry(key.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count = count.saturating_add(1);
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
    }
}
