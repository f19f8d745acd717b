//! Connections that have not authenticated yet: OpenSSH's `MaxStartups`, random early drop, in all
//! and for each address.
//!
//! One difference: what is dropped for a new connection is not that one, but one that waits, from
//! where most come, the one that has waited longest. A customer logs in within seconds, so somebody
//! who holds connections open loses theirs first, and cannot keep others out however many they open,
//! or from however many addresses of a site.

use crate::origin::{Origin, first_to_go};
use paygress_sshd::EarlyDrop;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

struct Waiting<K> {
    next: u64,
    /// The oldest first. Dropping the sender tells the connection that it is dropped.
    by_age: BTreeMap<u64, (K, oneshot::Sender<()>)>,
    counts: HashMap<K, usize>,
}

impl<K: Eq + Hash> Waiting<K> {
    fn count(&self, key: &K) -> usize {
        self.counts.get(key).copied().unwrap_or(0)
    }

    fn remove(&mut self, id: u64) {
        let Some((key, _)) = self.by_age.remove(&id) else { return };
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }

    fn oldest_of(&self, key: &K) -> Option<u64> {
        self.by_age.iter().find(|(_, (other, _))| other == key).map(|(id, _)| *id)
    }

    fn first_to_go(&self, origin: fn(&K) -> Origin) -> Option<u64> {
        first_to_go(self.by_age.iter().map(|(id, (key, _))| (*id, origin(key))))
    }
}

/// The connections that wait, by what they have in common.
pub(crate) struct Startups<K> {
    waiting: Arc<Mutex<Waiting<K>>>,
    of_all: EarlyDrop,
    of_one: EarlyDrop,
    origin: fn(&K) -> Origin,
}

fn lock<K>(waiting: &Mutex<Waiting<K>>) -> MutexGuard<'_, Waiting<K>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Eq + Hash + Clone> Startups<K> {
    pub(crate) fn new(of_all: EarlyDrop, of_one: EarlyDrop, origin: fn(&K) -> Origin) -> Self {
        let (by_age, counts) = (BTreeMap::new(), HashMap::new());
        let waiting = Arc::new(Mutex::new(Waiting { next: 0, by_age, counts }));
        Self { waiting, of_all, of_one, origin }
    }

    /// Admits a new connection. The oldest one of the same key, or of those from where most come, may be
    /// dropped for it.
    pub(crate) fn admit(&self, key: K) -> Startup<K> {
        let mut waiting = lock(&self.waiting);
        if self.of_one.strikes(waiting.count(&key))
            && let Some(oldest) = waiting.oldest_of(&key)
        {
            waiting.remove(oldest);
        }
        if self.of_all.strikes(waiting.by_age.len())
            && let Some(first) = waiting.first_to_go(self.origin)
        {
            waiting.remove(first);
        }
        let (sender, dropped) = oneshot::channel();
        let id = waiting.next;
        waiting.next = id.wrapping_add(1);
        let count = waiting.counts.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        waiting.by_age.insert(id, (key, sender));
        Startup { id, waiting: Arc::clone(&self.waiting), dropped }
    }

    /// How many connections have not authenticated yet.
    pub(crate) fn held(&self) -> usize {
        lock(&self.waiting).by_age.len()
    }
}

/// A connection's place until it authenticates or ends.
pub(crate) struct Startup<K: Eq + Hash> {
    id: u64,
    waiting: Arc<Mutex<Waiting<K>>>,
    dropped: oneshot::Receiver<()>,
}

impl<K: Eq + Hash> Startup<K> {
    /// Waits until this connection is to be dropped for another one. Must not be called again once
    /// it has returned.
    pub(crate) async fn dropped(&mut self) {
        let _ = (&mut self.dropped).await;
    }
}

impl<K: Eq + Hash> Drop for Startup<K> {
    fn drop(&mut self) {
        lock(&self.waiting).remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use tokio::sync::oneshot::error::TryRecvError;

    fn is_dropped(startup: &mut Startup<&str>) -> bool {
        startup.dropped.try_recv() == Err(TryRecvError::Closed)
    }

    fn startups() -> Startups<&'static str> {
        let of_all = EarlyDrop::new(limits::STARTUPS);
        Startups::new(of_all, EarlyDrop::new(limits::STARTUPS_OF_ONE), |_| None)
    }

    #[test]
    fn ten_thousand_of_one_address_hold_no_more_than_its_share_and_the_newest_stays() {
        let startups = startups();
        let mut all: Vec<Startup<&str>> = (0..10_000).map(|_| startups.admit("a")).collect();
        let [_, _, full] = limits::STARTUPS_OF_ONE;
        assert_eq!(startups.held(), full);
        assert!(is_dropped(&mut all[0]), "the oldest goes first");
        let mut customer = startups.admit("a");
        assert!(!is_dropped(&mut customer), "at the same address one more comes in");
        let mut other = startups.admit("b");
        assert!(!is_dropped(&mut other));
        // One that comes from elsewhere may cost an old one its place.
        assert!((full..=full + 1).contains(&startups.held()));
    }

    #[test]
    fn those_of_many_addresses_hold_no_more_than_there_are() {
        let startups: Startups<u32> =
            Startups::new(EarlyDrop::new([2, 30, 4]), EarlyDrop::new([2, 30, 4]), |_| None);
        let all: Vec<Startup<u32>> = (0..1_000).map(|address| startups.admit(address)).collect();
        assert_eq!(startups.held(), 4);
        drop(all);
        assert_eq!(startups.held(), 0);
        assert!(lock(&startups.waiting).counts.is_empty(), "an address without any is forgotten");
    }
}
