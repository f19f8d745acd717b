//! The rate limits of requests: for each address, for the wider networks that it is in, and for the
//! customer of a pod.

use crate::limits;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::{IpNet, Ipv4Net};
use paygress_core::model::ids::PodName;
use paygress_core::networks::{NETWORKS, networks};
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// Counts the requests of each network, with one limiter for each width of network.
pub(crate) struct RequestRates {
    limiters: [DefaultKeyedRateLimiter<IpNet>; NETWORKS],
    clock: DefaultClock,
}

impl RequestRates {
    /// `a_minute`: how many requests one address has a minute.
    pub(crate) fn new(a_minute: u32) -> Self {
        let limiter = |times: u32| {
            let requests = NonZeroU32::new(a_minute.saturating_mul(times));
            RateLimiter::keyed(Quota::per_minute(requests.unwrap_or(NonZeroU32::MIN)))
        };
        Self { limiters: limits::ALLOWANCES.map(limiter), clock: DefaultClock::default() }
    }

    /// Counts a request, or gives the seconds after which the client may try again. The narrowest
    /// network counts first: a request that exceeds its limit is not counted in the wider networks,
    /// which other clients share.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), u64> {
        let mut limiters = self.limiters.iter().zip(networks(address)).peekable();
        while let Some((limiter, network)) = limiters.next() {
            let key = match (limiter.len() < limits::ADDRESSES, limiters.peek()) {
                (true, _) => network,
                // Beyond so many known networks of one width, new ones are counted only in the
                // wider network that they are in: a flood of addresses must not fill the memory…
                (false, Some(_)) => continue,
                // …and new networks of the greatest width all share one allowance.
                (false, None) => IpNet::V4(Ipv4Net::default()),
            };
            check(limiter, &key, &self.clock)?;
        }
        Ok(())
    }

    /// Forgets the networks that have used nothing of their allowance lately.
    pub(crate) fn forget(&self) {
        for limiter in &self.limiters {
            limiter.retain_recent();
        }
    }
}

/// The requests of the customers of pods, each of whom has proved who they are: whoever shares an address
/// with them takes nothing of it. Only pods that were sold are in it.
pub(crate) struct CustomerRates {
    limiter: DefaultKeyedRateLimiter<PodName>,
    clock: DefaultClock,
}

impl CustomerRates {
    /// So many at each pod.
    pub(crate) fn new(a_minute: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(a_minute).unwrap_or(NonZeroU32::MIN));
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Seconds to wait, if it is too soon.
    pub(crate) fn check(&self, pod: &PodName) -> Result<(), u64> {
        check(&self.limiter, pod, &self.clock)
    }

    /// Forgets those that have their whole allowance.
    pub(crate) fn forget(&self) {
        self.limiter.retain_recent();
    }
}

fn check<K: Hash + Eq + Clone>(
    limiter: &DefaultKeyedRateLimiter<K>,
    key: &K,
    clock: &DefaultClock,
) -> Result<(), u64> {
    limiter
        .check_key(key)
        .map_err(|not_until| not_until.wait_time_from(clock.now()).as_secs().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_addresses_of_one_network_share_an_allowance() {
        let rates = RequestRates::new(2);
        assert!(
            rates.check(address("2001:db8::1")).is_ok()
                && rates.check(address("2001:db8::2")).is_ok()
        );
        assert!(rates.check(address("2001:db8::3")).unwrap_err() >= 1);
        assert!(rates.check(address("2001:db8:0:1::3")).is_ok());
        assert!(
            rates.check(address("::ffff:192.0.2.1")).is_ok()
                && rates.check(address("192.0.2.1")).is_ok()
        );
        assert!(rates.check(address("192.0.2.1")).is_err());
    }

    #[test]
    fn a_site_has_the_allowance_of_sixteen_addresses_however_many_it_has() {
        let rates = RequestRates::new(60);
        let mut served = 0;
        for network in 0..1_000_u128 {
            let address = Ipv6Addr::from_bits((0x2001_0db8_0001_u128 << 80) | (network << 64));
            served += (0..60).filter(|_| rates.check(address.into()).is_ok()).count();
        }
        println!("{served} of 60000 requests of one /48 are served");
        assert!((960..1_100).contains(&served), "{served}");
        assert!(rates.check(address("2001:db8:2::1")).is_ok(), "its neighbour is served");
    }
}
