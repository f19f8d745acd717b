//! How many requests an address has.

use crate::limits;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

/// The requests of each address.
pub(crate) struct Rates {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl Rates {
    pub(crate) fn new(a_minute: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(a_minute).unwrap_or(NonZeroU32::MIN));
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Seconds to wait, if it is too soon.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), u64> {
        // A flood of addresses shares the allowances of wide networks rather than our memory.
        let key = if self.limiter.len() < limits::ADDRESSES {
            network(address)
        } else {
            wide_network(address)
        };
        self.limiter.check_key(&key).map_err(|not_until| {
            not_until.wait_time_from(self.clock.now()).as_secs().saturating_add(1)
        })
    }

    /// Forgets addresses that have their whole allowance.
    pub(crate) fn forget(&self) {
        self.limiter.retain_recent();
    }
}

/// One customer usually has a whole /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        },
    }
}

/// A provider's network: /16 of IPv4, /32 of IPv6.
fn wide_network(address: IpAddr) -> IpAddr {
    match network(address) {
        IpAddr::V4(address) => {
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 16)))
        }
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 96)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_network_share_an_allowance() {
        let rates = Rates::new(2);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
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
}
