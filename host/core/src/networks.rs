//! The networks that an address is in, which share limits: who has one address often has more.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// How many there are.
pub const NETWORKS: usize = 3;
/// What a customer has, what a site has, what a provider has: the lengths of their prefixes.
const IPV4: [u8; NETWORKS] = [32, 24, 16];
const IPV6: [u8; NETWORKS] = [64, 48, 32];
/// Where a translator (NAT64) puts the addresses of IPv4, in the last 32 bits (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// The address of IPv4 that is written as one of IPv6. By NAT64 all of IPv4 is a single /64.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(wide) = address else { return address };
    match (wide.segments(), wide.octets()) {
        ([a, b, c, d, e, f, _, _], [.., w, x, y, z]) if [a, b, c, d, e, f] == NAT64 => {
            IpAddr::V4(Ipv4Addr::new(w, x, y, z))
        }
        _ => wide.to_canonical(),
    }
}

/// The networks of an address, the narrowest first.
#[must_use]
pub fn networks(address: IpAddr) -> [IpNet; NETWORKS] {
    let address = canonical(address);
    let lengths = if address.is_ipv4() { IPV4 } else { IPV6 };
    // No prefix above is longer than an address.
    lengths.map(|length| IpNet::new(address, length).unwrap_or(address.into()).trunc())
}

/// The network that one customer has: an address of IPv4, or the first one of a /64 of IPv6.
#[must_use]
pub fn customer_network(address: IpAddr) -> IpAddr {
    let [narrowest, _, _] = networks(address);
    narrowest.addr()
}

/// The network whose unpaid orders are counted together: an address of IPv4, since many customers
/// may share the network around it, and of IPv6 a /48, since one customer may have it all.
#[must_use]
pub fn order_network(address: IpAddr) -> IpAddr {
    let [narrowest, site, _] = networks(address);
    if canonical(address).is_ipv4() { narrowest.addr() } else { site.addr() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_network_of_each_width() {
        for (address, expected) in [
            ("192.0.2.7", ["192.0.2.7/32", "192.0.2.0/24", "192.0.0.0/16"]),
            ("::ffff:192.0.2.7", ["192.0.2.7/32", "192.0.2.0/24", "192.0.0.0/16"]),
            ("64:ff9b::192.0.2.7", ["192.0.2.7/32", "192.0.2.0/24", "192.0.0.0/16"]),
            ("64:ff9b::1:192.0.2.7", ["64:ff9b::/64", "64:ff9b::/48", "64:ff9b::/32"]),
            ("2001:db8:1:2::7", ["2001:db8:1:2::/64", "2001:db8:1::/48", "2001:db8::/32"]),
        ] {
            let found = networks(address.parse().unwrap()).map(|network| network.to_string());
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_customer_has_a_narrower_network_than_an_order() {
        for (address, customer, order) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("64:ff9b::192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2::7", "2001:db8:1:2::", "2001:db8:1::"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", "2001:db8:1::"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(customer_network(address).to_string(), customer);
            assert_eq!(order_network(address).to_string(), order);
        }
    }
}
