//! Where clients come from, and from where most do.

use ipnet::IpNet;
use paygress_core::networks::{NETWORKS, networks};
use std::collections::HashMap;
use std::net::IpAddr;

/// The network that a client comes from. None: a relay. All that come by relays are one, since the
/// keys by which they differ cost nothing.
pub(crate) type Origin = Option<IpAddr>;

/// The networks that a client is in, the narrowest first.
pub(crate) fn groups(origin: Origin) -> [Option<IpNet>; NETWORKS] {
    origin.map_or([None; NETWORKS], |address| networks(address).map(Some))
}

/// Those from the provider, the site and the address with most: one of these gives its place to a
/// newcomer, so that who fills the places loses their own, however many addresses they have.
pub(crate) fn of_most<T>(clients: impl Iterator<Item = (T, Origin)> + Clone) -> Vec<T> {
    let mut of_widths: [HashMap<Option<IpNet>, usize>; NETWORKS] = Default::default();
    for (_, origin) in clients.clone() {
        for (counts, group) in of_widths.iter_mut().zip(groups(origin)) {
            let count = counts.entry(group).or_default();
            *count = count.saturating_add(1);
        }
    }
    let rank = |origin: Origin| {
        let of_groups = of_widths.iter().zip(groups(origin));
        let mut counts = of_groups.map(|(counts, group)| counts.get(&group).copied());
        let [of_address, of_site, of_provider] = std::array::from_fn(|_| counts.next().flatten());
        [of_provider, of_site, of_address]
    };
    let most = clients.clone().map(|(_, origin)| rank(origin)).max();
    clients.filter(|(_, origin)| Some(rank(*origin)) == most).map(|(client, _)| client).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> Vec<usize> {
        let origins = addresses.iter().map(|address| address.parse().ok());
        of_most(origins.enumerate())
    }

    #[test]
    fn those_are_found_who_are_most() {
        for (addresses, expected) in [
            (&["192.0.2.1", "198.51.100.1", "relay"][..], &[0_usize, 1, 2][..]),
            // Those of one address, of relays, of a site, of a provider.
            (&["192.0.2.1", "198.51.100.1", "198.51.100.1"], &[1, 2]),
            (&["192.0.2.1", "relay", "relay"], &[1, 2]),
            (&["192.0.2.1", "2001:db8:1:1::1", "2001:db8:1:2::1"], &[1, 2]),
            (&["192.0.2.1", "2001:db8:1::1", "2001:db8:2::1"], &[1, 2]),
            // Within these, the site and the address with most.
            (&["2001:db8:1::1", "2001:db8:2::1", "2001:db8:2:1::1"], &[1, 2]),
            (&["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:1::1"], &[1, 2]),
            (&[], &[]),
        ] {
            assert_eq!(found(addresses), expected, "{addresses:?}");
        }
    }
}
