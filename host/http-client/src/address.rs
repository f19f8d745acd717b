//! Which addresses are on the public internet, and which may be connected to.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those on the public internet: for what customers and servers name.
    Public,
    /// All: for what the operator names, for tests and closed networks.
    Any,
}

/// A name leads to a private address, or is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not public")]
pub struct NotPublic;

impl Reach {
    /// The addresses of a name, if all of them may be connected to. Connect to these and no others:
    /// resolved again, the name may lead elsewhere.
    pub fn check(self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, NotPublic> {
        let is_allowed =
            self == Self::Any || addresses.iter().all(|address| is_public(address.ip()));
        is_allowed.then_some(addresses).ok_or(NotPublic)
    }
}

/// The only addresses of IPv6 that are on the public internet: global unicast.
pub const OPEN_NETWORK: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// The networks of IPv4, and of [`OPEN_NETWORK`], that are not on the public internet: this
/// machine, private networks, a cloud's metadata, and what leads on to these (IANA's
/// special-purpose registries). Neither pods connect to them, nor the service for customers and
/// registries: `k8s/base/network.yaml` and the overlays have them in this order.
pub const CLOSED_NETWORKS: [IpNet; 15] = [
    ipv4([0, 0, 0, 0], 8),
    ipv4([10, 0, 0, 0], 8),
    ipv4([100, 64, 0, 0], 10),
    ipv4([127, 0, 0, 0], 8),
    // Where Azure gives nodes what they start with, secrets too.
    ipv4([168, 63, 129, 16], 32),
    ipv4([169, 254, 0, 0], 16),
    ipv4([172, 16, 0, 0], 12),
    // Protocol assignments.
    ipv4([192, 0, 0, 0], 24),
    // Relays of 6to4.
    ipv4([192, 88, 99, 0], 24),
    ipv4([192, 168, 0, 0], 16),
    // Benchmarks.
    ipv4([198, 18, 0, 0], 15),
    ipv4([224, 0, 0, 0], 4),
    ipv4([240, 0, 0, 0], 4),
    // Protocol assignments with Teredo, which carries an address of IPv4 inside, as 6to4 does.
    ipv6([0x2001, 0], 23),
    ipv6([0x2002, 0], 16),
];

/// Closed to the service alone: nobody has these networks, so pods may try.
const DOCUMENTATION_NETWORKS: [IpNet; 5] = [
    ipv4([192, 0, 2, 0], 24),
    ipv4([198, 51, 100, 0], 24),
    ipv4([203, 0, 113, 0], 24),
    ipv6([0x2001, 0xdb8], 32),
    ipv6([0x3fff, 0], 20),
];

const fn ipv4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

/// By the first 32 bits.
const fn ipv6([a, b]: [u16; 2], prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix))
}

/// Whether an address is in none of the [`CLOSED_NETWORKS`], nor outside of [`OPEN_NETWORK`].
#[must_use]
pub fn is_open(address: IpAddr) -> bool {
    let is_global = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => OPEN_NETWORK.contains(&address),
    };
    is_global && !CLOSED_NETWORKS.iter().any(|network| network.contains(&address))
}

/// Whether an address is on the public internet, and not a way of writing one that is not. What
/// customers and registries may make us connect to is decided here, and nowhere else.
#[must_use]
pub(crate) fn is_public(address: IpAddr) -> bool {
    let address = canonical(address);
    is_open(address) && !DOCUMENTATION_NETWORKS.iter().any(|network| network.contains(&address))
}

/// The address of IPv4 that is written as one of IPv6, also by NAT64 (RFC 6052). Not by its prefix
/// for local use (64:ff9b:1::/48, RFC 8215): that leads into the network that we are in.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(wide) = address else { return address };
    match wide.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => wide.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether these are of the public internet.
    const ADDRESSES: &[(&str, bool)] = &[
        ("9.9.9.9", true),
        ("100.63.255.255", true),
        ("100.128.0.1", true),
        ("172.15.255.255", true),
        ("172.32.0.0", true),
        ("192.0.1.0", true),
        ("192.88.98.255", true),
        ("192.88.100.0", true),
        ("198.17.255.255", true),
        ("198.20.0.0", true),
        ("223.255.255.255", true),
        ("2606:4700::1111", true),
        ("2620:fe::fe", true),
        ("2001:200::1", true),
        ("2003::1", true),
        ("3fff:1000::1", true),
        ("::ffff:9.9.9.9", true),
        ("64:ff9b::9.9.9.9", true),
        ("0.0.0.0", false),
        ("0.1.2.3", false),
        ("10.0.0.1", false),
        ("100.64.0.1", false),
        ("127.0.0.1", false),
        ("168.63.129.15", true),
        ("168.63.129.16", false),
        ("169.254.169.254", false),
        ("172.16.0.1", false),
        ("172.31.255.255", false),
        ("192.0.0.8", false),
        ("192.0.2.1", false),
        ("198.51.100.1", false),
        ("203.0.113.1", false),
        ("192.88.99.1", false),
        ("192.168.0.1", false),
        ("198.18.0.1", false),
        ("198.19.255.255", false),
        ("224.0.0.1", false),
        ("240.0.0.1", false),
        ("255.255.255.255", false),
        ("::", false),
        ("::1", false),
        ("::9.9.9.9", false),
        ("::ffff:10.0.0.1", false),
        ("64:ff9b::10.0.0.1", false),
        ("64:ff9b::169.254.169.254", false),
        ("64:ff9b:1::9.9.9.9", false),
        ("64:ff9b:1:fffe::1", false),
        ("64:ff9b:0:1::9.9.9.9", false),
        ("100::1", false),
        ("2001::1", false),
        ("2001:2::1", false),
        ("2001:1ff:ffff::1", false),
        ("2001:db8::1", false),
        ("2002:7f00:1::", false),
        ("3fff::1", false),
        ("3fff:fff::1", false),
        ("4000::1", false),
        ("5f00::1", false),
        ("fd00::1", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
    ];

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for (address, expected) in ADDRESSES {
            assert_eq!(is_public(address.parse().unwrap()), *expected, "{address}");
        }
    }

    #[test]
    fn a_name_with_one_private_address_is_not_public() {
        let addresses = |all: &[&str]| -> Vec<SocketAddr> {
            all.iter().map(|address| address.parse().unwrap()).collect()
        };
        for (all, expected) in [
            (&["9.9.9.9:443", "[2620:fe::fe]:443"][..], true),
            (&["9.9.9.9:443", "[fd00::1]:443"], false),
            (&["10.0.0.1:443"], false),
        ] {
            assert_eq!(Reach::Public.check(addresses(all)).is_ok(), expected, "{all:?}");
            assert_eq!(Reach::Any.check(addresses(all)), Ok(addresses(all)));
        }
    }
}
