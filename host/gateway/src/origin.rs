//! Where clients come from, and which of them gives its place to a newcomer.

use ipnet::IpNet;
use paygress_core::networks::{NETWORKS, networks};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

/// The network that a client comes from. None: a relay. All that come by relays are one, since the
/// keys by which they differ cost nothing.
pub(crate) type Origin = Option<IpAddr>;

/// The networks that a client is in, the narrowest first.
pub(crate) fn groups(origin: Origin) -> [Option<IpNet>; NETWORKS] {
    origin.map_or([None; NETWORKS], |address| networks(address).map(Some))
}

/// Of those from the provider, the site and the address with most, the oldest: who fills the places
/// loses their own, however many addresses they have. Ids are given in the order of age.
pub(crate) fn first_to_go(clients: impl Iterator<Item = (u64, Origin)> + Clone) -> Option<u64> {
    let mut of_widths: [HashMap<Option<IpNet>, usize>; NETWORKS] = Default::default();
    for (_, origin) in clients.clone() {
        for (counts, group) in of_widths.iter_mut().zip(groups(origin)) {
            let count = counts.entry(group).or_default();
            *count = count.saturating_add(1);
        }
    }
    let rank = |(id, origin): &(u64, Origin)| {
        let of_groups = of_widths.iter().zip(groups(*origin));
        let mut counts = of_groups.map(|(counts, group)| counts.get(&group).copied());
        let [of_address, of_site, of_provider] = std::array::from_fn(|_| counts.next().flatten());
        (of_provider, of_site, of_address, Reverse(*id))
    };
    clients.max_by_key(rank).map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(addresses: &[&str]) -> Option<u64> {
        let origins = addresses.iter().map(|address| address.parse().ok());
        first_to_go((0..).zip(origins))
    }

    #[test]
    fn the_oldest_goes_of_those_who_are_most() {
        for (addresses, expected) in [
            (&["192.0.2.1", "198.51.100.1", "relay"][..], Some(0)),
            // Those of one address, of relays, of a site, of a provider.
            (&["192.0.2.1", "198.51.100.1", "198.51.100.1"], Some(1)),
            (&["192.0.2.1", "relay", "relay"], Some(1)),
            (&["192.0.2.1", "2001:db8:1:1::1", "2001:db8:1:2::1"], Some(1)),
            (&["192.0.2.1", "2001:db8:1::1", "2001:db8:2::1"], Some(1)),
            // Within these, the site and the address with most.
            (&["2001:db8:1::1", "2001:db8:2::1", "2001:db8:2:1::1"], Some(1)),
            (&["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:1::1"], Some(1)),
        ] {
            assert_eq!(first(addresses), expected, "{addresses:?}");
        }
        assert_eq!(first(&[]), None);
    }
}
