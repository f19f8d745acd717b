//! What a server listens on.

use std::net::{Ipv4Addr, SocketAddr};

/// The first of them that can be had is listened on: `[::]` is IPv4 too, and where there is no IPv6,
/// IPv4 alone.
#[must_use]
pub fn listen_addresses(bind: SocketAddr) -> Vec<SocketAddr> {
    let mut addresses = vec![bind];
    if bind.is_ipv6() && bind.ip().is_unspecified() {
        addresses.push((Ipv4Addr::UNSPECIFIED, bind.port()).into());
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_family_is_served_where_there_is_one() {
        for (bind, expected) in [
            ("[::]:8080", &["[::]:8080", "0.0.0.0:8080"][..]),
            ("0.0.0.0:8080", &["0.0.0.0:8080"]),
            ("127.0.0.1:0", &["127.0.0.1:0"]),
            ("[::1]:0", &["[::1]:0"]),
        ] {
            let found: Vec<String> =
                listen_addresses(bind.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{bind}");
        }
    }
}
