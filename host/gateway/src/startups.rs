//! Connections that have not authenticated yet: OpenSSH's `MaxStartups`, random early drop, in all
//! and for each address.
//!
//! As at the pods' own server no newcomer is refused: another one is dropped for it, of two at random
//! ([`Progress::drop_one`]). Where there are too many of its address, it is one of these; where there are
//! too many in all, one of those from where most come. So nobody keeps others out, however many
//! connections they hold open, or from however many addresses of a site; and who has a customer's own
//! address has no more than chance against their login.

use crate::origin::{Origin, of_most};
use paygress_sshd::{EarlyDrop, Progress};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Waiting<K> {
    next: u64,
    connections: BTreeMap<u64, (K, Progress)>,
}

impl<K: Eq> Waiting<K> {
    fn of_one(&self, key: &K) -> impl Iterator<Item = (u64, &Progress)> {
        let own = self.connections.iter().filter(move |(_, (other, _))| other == key);
        own.map(|(id, (_, progress))| (*id, progress))
    }

    fn of_most(&self, origin: fn(&K) -> Origin) -> Vec<(u64, &Progress)> {
        let all = self.connections.iter();
        of_most(all.map(|(id, (key, progress))| ((*id, progress), origin(key))))
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

impl<K: Eq> Startups<K> {
    pub(crate) fn new(of_all: EarlyDrop, of_one: EarlyDrop, origin: fn(&K) -> Origin) -> Self {
        let waiting = Waiting { next: 0, connections: BTreeMap::new() };
        Self { waiting: Arc::new(Mutex::new(waiting)), of_all, of_one, origin }
    }

    /// Admits a new connection. One of the same key, or of those from where most come, may be dropped
    /// for it.
    pub(crate) fn admit(&self, key: K) -> Startup<K> {
        let mut waiting = lock(&self.waiting);
        if self.of_one.strikes(waiting.of_one(&key).count())
            && let Some(dropped) = Progress::drop_one(waiting.of_one(&key))
        {
            waiting.connections.remove(&dropped);
        }
        if self.of_all.strikes(waiting.connections.len())
            && let Some(dropped) = Progress::drop_one(waiting.of_most(self.origin))
        {
            waiting.connections.remove(&dropped);
        }
        let (id, progress) = (waiting.next, Progress::default());
        waiting.next = id.wrapping_add(1);
        waiting.connections.insert(id, (key, progress.clone()));
        Startup { id, waiting: Arc::clone(&self.waiting), progress }
    }

    /// How many connections have not authenticated yet.
    pub(crate) fn held(&self) -> usize {
        lock(&self.waiting).connections.len()
    }
}

/// A connection's place until it authenticates or ends.
pub(crate) struct Startup<K> {
    id: u64,
    waiting: Arc<Mutex<Waiting<K>>>,
    pub(crate) progress: Progress,
}

impl<K> Drop for Startup<K> {
    fn drop(&mut self) {
        lock(&self.waiting).connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use paygress_sshd::Stage::{self, Attempted, Connected, Dropped, Greeted, KeysExchanged};

    const OWN: &str = "192.0.2.1";
    const OTHER: &str = "198.51.100.1";
    const THIRD: &str = "203.0.113.1";
    const FULL: usize = {
        let [_, _, full] = limits::STARTUPS_OF_ONE;
        full
    };

    fn origin(address: &&'static str) -> Origin {
        address.parse().ok()
    }

    fn startups(of_all: [usize; 3], of_one: [usize; 3]) -> Startups<&'static str> {
        Startups::new(EarlyDrop::new(of_all), EarlyDrop::new(of_one), origin)
    }

    impl<K: Eq> Startups<K> {
        fn admit_at(&self, key: K, stage: Stage) -> Startup<K> {
            let startup = self.admit(key);
            startup.progress.reach(stage);
            startup
        }
    }

    impl<K> Startup<K> {
        pub(crate) fn is_dropped(&self) -> bool {
            self.progress.stage() == Dropped
        }
    }

    #[test]
    fn ten_thousand_of_one_address_hold_no_more_than_its_share_and_the_newest_stays() {
        let startups = startups(limits::STARTUPS, limits::STARTUPS_OF_ONE);
        let all: Vec<Startup<&str>> = (0..10_000).map(|_| startups.admit(OWN)).collect();
        assert_eq!(startups.held(), FULL);
        let open = all.iter().filter(|it| !it.is_dropped()).count();
        assert_eq!(open, FULL, "the others are dropped");
        let customer = startups.admit(OWN);
        assert!(!customer.is_dropped(), "at the same address one more comes in");
        let other = startups.admit(OTHER);
        assert!(!other.is_dropped());
        // One that comes from elsewhere may cost another its place.
        assert!((FULL..=FULL + 1).contains(&startups.held()));
    }

    /// However far it has got.
    #[test]
    fn a_flood_of_one_address_takes_no_place_of_another() {
        let startups = startups(limits::STARTUPS, limits::STARTUPS_OF_ONE);
        let [begin, _, _] = limits::STARTUPS_OF_ONE;
        let others: Vec<Startup<&str>> = (0..begin).map(|_| startups.admit(OTHER)).collect();
        let flood: Vec<Startup<&str>> =
            (0..10_000).map(|_| startups.admit_at(OWN, Attempted)).collect();
        assert!(!others.iter().any(Startup::is_dropped));
        let open = flood.iter().filter(|it| !it.is_dropped()).count();
        assert!(open <= FULL, "{open} are open");
    }

    #[test]
    fn of_two_from_where_most_come_the_one_that_has_not_got_as_far_is_dropped() {
        for (stages, dropped) in [
            ([Connected, Greeted], 1),
            ([Greeted, Connected], 2),
            ([KeysExchanged, Greeted], 2),
            ([KeysExchanged, Attempted], 1),
        ] {
            let [first, second] = stages;
            let startups = startups([3, 30, 3], [9, 30, 9]);
            let all = [(OTHER, Connected), (OWN, first), (OWN, second)]
                .map(|(address, stage)| startups.admit_at(address, stage));
            let _newcomer = startups.admit(THIRD);
            assert_eq!(all.iter().position(Startup::is_dropped), Some(dropped), "{stages:?}");
        }
    }

    /// Among those of the same address that have got to `others`, how many of a thousand customers are
    /// dropped that have got to `customer` while so many more connect.
    fn dropped_in_a_flood(customer: Stage, others: Stage, more: usize) -> usize {
        let startups = startups(limits::STARTUPS, [FULL, 30, FULL]);
        let mut flood = Vec::new();
        let is_dropped = |_: &u32| {
            while startups.held() < FULL {
                flood.push(startups.admit_at(OWN, others));
            }
            let login = startups.admit_at(OWN, customer);
            flood.extend((0..more).map(|_| startups.admit_at(OWN, others)));
            flood.retain(|it| !it.is_dropped());
            login.is_dropped()
        };
        (0..1_000).filter(is_dropped).count()
    }

    /// Ten times one of 64 are about 146 of a thousand, and ten times two of 64 are 272.
    #[test]
    fn a_flood_of_their_own_address_has_no_more_than_chance_against_a_customer() {
        for (customer, others, more, most) in [
            (Greeted, Connected, FULL, 0),
            (Attempted, KeysExchanged, FULL, 0),
            (Connected, Connected, 10, 220),
            (Attempted, Attempted, 10, 220),
            (Connected, Attempted, 10, 370),
        ] {
            let dropped = dropped_in_a_flood(customer, others, more);
            println!("{customer:?} among {others:?}: {dropped} of 1000 dropped by {more}");
            assert!(dropped <= most, "{customer:?} among {others:?}: {dropped}");
        }
    }

    #[test]
    fn those_of_many_addresses_hold_no_more_than_there_are() {
        let startups: Startups<u32> =
            Startups::new(EarlyDrop::new([2, 30, 4]), EarlyDrop::new([2, 30, 4]), |_| None);
        let all: Vec<Startup<u32>> = (0..1_000).map(|address| startups.admit(address)).collect();
        assert_eq!(startups.held(), 4);
        drop(all);
        assert_eq!(startups.held(), 0, "a place is free when its connection ends");
    }
}
