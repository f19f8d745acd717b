//! The addresses that a server tries to listen on.

use std::net::{Ipv4Addr, SocketAddr};

/// A server listens on the first of these that it can bind. For `[::]`, which takes IPv4
/// connections too, the second is `0.0.0.0`, for machines without IPv6.
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
