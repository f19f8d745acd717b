//! Addresses whose limits are shared.

use std::net::{IpAddr, Ipv6Addr};

/// The first 64 bits of an address of IPv6, which one customer has.
const NETWORK: u128 = 0xffff_ffff_ffff_ffff_0000_0000_0000_0000;

/// An address of IPv4, or the first one of a /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_has_one_network() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2::7", "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(network(address.parse().unwrap()).to_string(), expected);
        }
    }
}
