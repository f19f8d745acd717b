//! Which addresses are on the public internet, and which may be connected to.

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

/// Whether an address is on the public internet: not this machine, not a private network, not a
/// cloud's metadata, and not a way of writing one of those (IANA's special-purpose registries). What
/// customers and registries may make us connect to is decided here, and nowhere else.
#[must_use]
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        // This network, carrier-grade NAT, what Azure gives its machines to start with, protocol
        // assignments, 6to4 relays, benchmarks; and what is reserved, with broadcast.
        [0, ..]
        | [100, 64..=127, ..]
        | [168, 63, 129, 16]
        | [192, 0, 0, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [240..=255, ..] => true,
        _ => false,
    };
    !(is_special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64 (RFC 6052): the IPv4 address behind it counts. Its prefix for local use
        // (64:ff9b:1::/48, RFC 8215) leads into the network that we are in, and falls to the last
        // line with everything else outside global unicast.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments with Teredo, documentation, and 6to4: Teredo and 6to4 carry other
        // addresses inside.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
            false
        }
        [0x2000..=0x3fff, ..] => true,
        _ => false,
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
        ("2606:4700::1111", true),
        ("2620:fe::fe", true),
        ("2001:200::1", true),
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
        ("192.0.0.8", false),
        ("192.0.2.1", false),
        ("192.88.99.1", false),
        ("192.168.0.1", false),
        ("198.18.0.1", false),
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
        ("2001:db8::1", false),
        ("2002:7f00:1::", false),
        ("3fff::1", false),
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
