//! Connections that have not authenticated yet: OpenSSH's `MaxStartups`.
//!
//! As many are held, with one difference: where chance is against a newcomer, OpenSSH refuses it. A pod
//! has one owner, and behind source NAT everybody has the same address, so whoever held most places
//! would keep them out. Here the newcomer takes the place of another: see [`Progress::drop_one`].

use crate::early_drop::EarlyDrop;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Waiting = BTreeMap<u64, Progress>;

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connections that wait.
pub(crate) struct Startups<R> {
    limit: EarlyDrop,
    random: R,
    next: u64,
    waiting: Arc<Mutex<Waiting>>,
}

impl<R: FnMut() -> u32> Startups<R> {
    pub(crate) fn new(limit: EarlyDrop, random: R) -> Self {
        Self { limit, random, next: 0, waiting: Arc::default() }
    }

    /// A place for a new connection. By chance, and always at the limit, it is that of another, which is
    /// dropped.
    pub(crate) fn admit(&mut self) -> Startup {
        let mut waiting = lock(&self.waiting);
        if self.limit.strikes_by(waiting.len(), (self.random)()) {
            let all = waiting.iter().map(|(id, progress)| (*id, progress));
            if let Some(dropped) = Progress::drop_one_by(all, &mut self.random) {
                waiting.remove(&dropped);
            }
        }
        let (id, progress) = (self.next, Progress::default());
        self.next = id.wrapping_add(1);
        waiting.insert(id, progress.clone());
        Startup { id, waiting: Arc::clone(&self.waiting), progress }
    }
}

/// The place of a connection until it authenticates or ends.
pub(crate) struct Startup {
    id: u64,
    waiting: Arc<Mutex<Waiting>>,
    pub(crate) progress: Progress,
}

impl Drop for Startup {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Stage;

    const LIMIT: EarlyDrop = EarlyDrop::new([10, 30, 100]);
    /// Chance is against nobody below the limit.
    const LUCK: u32 = 99;

    impl<R> Startups<R> {
        fn held(&self) -> usize {
            lock(&self.waiting).len()
        }
    }

    impl Startup {
        fn is_dropped(&self) -> bool {
            self.progress.stage() == Stage::Dropped
        }
    }

    /// The same numbers in each run (xorshift).
    fn seeded() -> impl FnMut() -> u32 {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u32::try_from(state >> 32).unwrap()
        }
    }

    #[test]
    fn chance_is_against_those_that_wait() {
        let mut startups = Startups::new(LIMIT, || 0);
        let mut all: Vec<Startup> = (0..10).map(|_| startups.admit()).collect();
        assert!(!all.iter().any(Startup::is_dropped), "none below the first number");
        for number in 1..=100 {
            all.push(startups.admit());
            let dropped = all.iter().filter(|it| it.is_dropped()).count();
            assert_eq!((dropped, startups.held()), (number, 10));
            assert!(!all.last().unwrap().is_dropped(), "the newcomer is not");
        }
    }

    #[test]
    fn at_the_limit_each_newcomer_takes_the_place_of_another() {
        let mut startups = Startups::new(LIMIT, seeded());
        let mut all = Vec::new();
        while startups.held() < 100 {
            all.push(startups.admit());
        }
        all.retain(|it| !it.is_dropped());
        for number in 1..=1_000 {
            let newcomer = startups.admit();
            assert!(!newcomer.is_dropped());
            all.push(newcomer);
            let dropped = all.iter().filter(|it| it.is_dropped()).count();
            assert_eq!((dropped, startups.held()), (number, 100));
        }
        drop(all);
        assert_eq!(startups.held(), 0, "a place is free when its connection ends");
    }

    #[test]
    fn of_two_the_one_that_has_not_got_as_far_is_dropped() {
        use Stage::{Attempted, Connected, Greeted, KeysExchanged};
        for (stages, dropped) in [
            ([Connected, Greeted], 0),
            ([Greeted, Connected], 1),
            ([KeysExchanged, Greeted], 1),
            ([KeysExchanged, Attempted], 0),
        ] {
            // Without chance they are drawn in their order.
            let mut startups = Startups::new(EarlyDrop::new([2, 30, 2]), || 0);
            let all = stages.map(|stage| {
                let startup = startups.admit();
                startup.progress.reach(stage);
                startup
            });
            let _newcomer = startups.admit();
            assert_eq!(all.iter().position(Startup::is_dropped), Some(dropped), "{stages:?}");
        }
    }

    /// Among those that have got to `others`, how many of a thousand customers are dropped that have
    /// got to `customer` while ten more connect.
    fn dropped_in_a_flood(customer: Stage, others: Stage) -> usize {
        let mut startups = Startups::new(LIMIT, seeded());
        let mut flood = Vec::new();
        let is_dropped = |_: &u32| {
            while startups.held() < 100 {
                let held = startups.admit();
                held.progress.reach(others);
                flood.push(held);
            }
            let login = startups.admit();
            login.progress.reach(customer);
            for _ in 0..10 {
                let newcomer = startups.admit();
                newcomer.progress.reach(others);
                flood.push(newcomer);
            }
            flood.retain(|it| !it.is_dropped());
            login.is_dropped()
        };
        (0..1_000).filter(is_dropped).count()
    }

    /// Ten times one percent are about 96 of a thousand, ten times two percent 183.
    #[test]
    fn a_flood_has_no_more_than_chance_against_a_customer() {
        for (customer, others, most) in [
            (Stage::Greeted, Stage::Connected, 0),
            (Stage::Attempted, Stage::KeysExchanged, 0),
            (Stage::Connected, Stage::Connected, 150),
            (Stage::Attempted, Stage::Attempted, 150),
            (Stage::Connected, Stage::Attempted, 250),
        ] {
            let dropped = dropped_in_a_flood(customer, others);
            println!("{customer:?} among {others:?}: {dropped} of 1000 dropped");
            assert!(dropped <= most, "{customer:?} among {others:?}: {dropped}");
        }
    }

    #[tokio::test]
    async fn who_is_dropped_cannot_authenticate_and_who_has_is_not_dropped() {
        let mut startups = Startups::new(EarlyDrop::new([1, 30, 1]), || LUCK);
        let (first, second) = (startups.admit(), startups.admit());
        first.progress.dropped().await;
        assert!(!first.progress.reach(Stage::Authenticated));
        assert!(second.progress.reach(Stage::Authenticated));
        second.progress.authenticated().await;
        let third = startups.admit();
        assert!(!second.is_dropped() && !third.is_dropped());
        assert_eq!(startups.held(), 1);
    }
}
