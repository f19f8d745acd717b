//! Rate limits of connections. A client of iroh that exceeds one is refused; a client of the jump
//! host waits, since its handshake has not cost anything yet.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use paygress_core::networks::{NETWORKS, networks};
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When too many keys are known, those that have used nothing of their allowance lately are
/// forgotten, at most this often: that looks at every key.
const FORGET: Duration = Duration::from_secs(1);

/// A rate limit for each key.
pub(crate) struct Rates<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    most: usize,
    forgot: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// `a_second` is the rate, `at_once` the burst. At most `most` keys are known: beyond that, new
    /// keys are refused.
    pub(crate) fn new([a_second, at_once]: [u32; 2], most: usize) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(a_second)).allow_burst(at_least_one(at_once));
        let (limiter, clock) = (RateLimiter::keyed(quota), DefaultClock::default());
        Self { limiter, clock, most, forgot: Mutex::new(Instant::now()) }
    }

    /// Counts one event of this key; `false` if it comes too soon, or too many keys are known.
    pub(crate) fn allows(&self, key: &K) -> bool {
        self.check(key).is_ok()
    }

    /// As [`allows`](Self::allows); the error is how long to wait before the next attempt.
    fn check(&self, key: &K) -> Result<(), Duration> {
        if self.is_full() {
            return Err(FORGET);
        }
        let checked = self.limiter.check_key(key);
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Whether too many keys are known.
    fn is_full(&self) -> bool {
        if self.limiter.len() < self.most {
            return false;
        }
        self.forget();
        self.limiter.len() >= self.most
    }

    /// Does nothing if the last time is less than [`FORGET`] ago.
    fn forget(&self) {
        let mut forgot = self.forgot.lock().unwrap_or_else(PoisonError::into_inner);
        if forgot.elapsed() >= FORGET {
            self.limiter.retain_recent();
            *forgot = Instant::now();
        }
    }
}

/// A rate limit for each of the networks that an address is in.
pub(crate) struct NetworkRates([Rates<IpNet>; NETWORKS]);

impl NetworkRates {
    /// `allowances` are those of the narrowest network first, each as for [`Rates::new`].
    pub(crate) fn new(allowances: [[u32; 2]; NETWORKS], most: usize) -> Self {
        Self(allowances.map(|allowance| Rates::new(allowance, most)))
    }

    /// Counts one event of this address; `false` if it comes too soon for one of its networks.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.counted(address).all(|(rates, network)| rates.allows(&network))
    }

    /// The rates that count an address. Where too many networks of one width are known, the wider ones
    /// alone do: who has many addresses must not keep others out by that.
    fn counted(&self, address: IpAddr) -> impl Iterator<Item = (&Rates<IpNet>, IpNet)> {
        let widths = self.0.iter().zip(networks(address)).enumerate();
        let is_widest = |width: usize| width.saturating_add(1) == NETWORKS;
        widths
            .filter(move |(width, (rates, _))| is_widest(*width) || !rates.is_full())
            .map(|(_, counted)| counted)
    }

    /// Waits until an event of this address is within the limits, and counts it. The narrowest
    /// network counts first: an event that waits there is not counted in the wider networks, which
    /// others share.
    pub(crate) async fn wait(&self, address: IpAddr) {
        for (rates, network) in self.counted(address) {
            while let Err(wait) = rates.check(&network) {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let rates = Rates::new([1, 3], 8);
        let allowed = (0..10).filter(|_| rates.allows(&"a")).count();
        assert!((3..=4).contains(&allowed), "{allowed}");
        assert!(rates.allows(&"b"));
    }

    #[tokio::test]
    async fn an_address_over_its_rate_waits_and_delays_no_other_address() {
        let rates = NetworkRates::new([[1, 1], [64, 64], [64, 64]], 8);
        let [first, second] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let begun = Instant::now();
        let has_waited =
            || assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
        rates.wait(first).await;
        tokio::select! {
            biased;
            // Only where the machine has stood still for a second.
            () = rates.wait(first) => has_waited(),
            () = rates.wait(second) => {}
        }
        rates.wait(first).await;
        has_waited();
    }

    #[tokio::test]
    async fn who_comes_from_too_many_networks_keeps_no_other_out() {
        let rates = NetworkRates::new([[1, 1], [1, 4], [64, 64]], 8);
        let of_site = |number: u128| {
            IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8_0001_u128 << 80) | (number << 64)))
        };
        let allowed = (0..100).filter(|number| rates.allows(of_site(*number))).count();
        assert!((4..8).contains(&allowed), "{allowed}");
        assert!(rates.allows([192, 0, 2, 1].into()));
        tokio::select! {
            biased;
            () = rates.wait([198, 51, 100, 1].into()) => {}
            () = std::future::ready(()) => panic!("it waits"),
        }
    }

    #[test]
    fn keys_beyond_the_limit_are_refused() {
        let rates = Rates::new([1, 3], 8);
        assert!((0..8).all(|key| rates.allows(&key)));
        assert!(!rates.allows(&8));
    }
}
