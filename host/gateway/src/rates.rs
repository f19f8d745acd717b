//! How often somebody may come.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use paygress_core::networks::{NETWORKS, networks};
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often keys that have their whole allowance are looked for when there are too many.
const FORGET: Duration = Duration::from_secs(1);

/// A rate for each key.
pub(crate) struct Rates<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    most: usize,
    forgot: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// So many a second, and so many at once, for so many keys at the most.
    pub(crate) fn new([a_second, at_once]: [u32; 2], most: usize) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(a_second)).allow_burst(at_least_one(at_once));
        let (limiter, clock) = (RateLimiter::keyed(quota), DefaultClock::default());
        Self { limiter, clock, most, forgot: Mutex::new(Instant::now()) }
    }

    /// Counts one, unless it comes too soon, or too many others are counted already.
    pub(crate) fn allows(&self, key: &K) -> bool {
        self.check(key).is_ok()
    }

    /// The same; or how long to wait before the next attempt.
    fn check(&self, key: &K) -> Result<(), Duration> {
        if self.limiter.len() >= self.most {
            self.forget();
            if self.limiter.len() >= self.most {
                return Err(FORGET);
            }
        }
        let checked = self.limiter.check_key(key);
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Looks at every key, so not each time.
    fn forget(&self) {
        let mut forgot = self.forgot.lock().unwrap_or_else(PoisonError::into_inner);
        if forgot.elapsed() >= FORGET {
            self.limiter.retain_recent();
            *forgot = Instant::now();
        }
    }
}

/// A rate for each of the networks that an address is in.
pub(crate) struct NetworkRates([Rates<IpNet>; NETWORKS]);

impl NetworkRates {
    /// The narrowest first.
    pub(crate) fn new(allowances: [[u32; 2]; NETWORKS], most: usize) -> Self {
        Self(allowances.map(|allowance| Rates::new(allowance, most)))
    }

    /// Counts one of this address, as soon as it may come. The narrowest network counts first: what it
    /// has too many of costs the others in the wider ones nothing.
    pub(crate) async fn wait(&self, address: IpAddr) {
        for (rates, network) in self.0.iter().zip(networks(address)) {
            while let Err(wait) = rates.check(&network) {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let rates = Rates::new([1, 3], 8);
        let allowed = (0..10).filter(|_| rates.allows(&"a")).count();
        assert!((3..=4).contains(&allowed), "{allowed}");
        assert!(rates.allows(&"b"));
    }

    #[tokio::test]
    async fn what_comes_too_soon_waits_and_holds_up_no_other_network() {
        let rates = NetworkRates::new([[1, 1], [64, 64], [64, 64]], 8);
        let [first, second] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let begun = Instant::now();
        rates.wait(first).await;
        tokio::select! {
            biased;
            () = rates.wait(first) => panic!("{:?}", begun.elapsed()),
            () = rates.wait(second) => {}
        }
        rates.wait(first).await;
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let rates = Rates::new([1, 3], 8);
        assert!((0..8).all(|key| rates.allows(&key)));
        assert!(!rates.allows(&8));
    }
}
