//! Where a request comes from.

use crate::server::Peer;
use crate::state::App;
use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;
use paygress_core::networks::order_network;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The client's address: the peer's, or what trusted proxies say. What a client says to the last of
/// them is not believed.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    // Bytes: proxies append to whatever the client has sent, which need be no text.
    for hop in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        if !is_trusted(&client) {
            break;
        }
        match address(hop) {
            Some(address) => client = address.to_canonical(),
            None => break,
        }
    }
    client
}

/// Some proxies name the port too: `192.0.2.7:4711`, `[2001:db8::7]:4711`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let with_port = || Some(hop.parse::<SocketAddr>().ok()?.ip());
    let in_brackets = || {
        let address = hop.strip_prefix('[')?.strip_suffix(']')?;
        Some(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?))
    };
    hop.parse().ok().or_else(with_port).or_else(in_brackets)
}

/// The network of the client, if its peer is known.
pub(crate) fn client_network(
    extensions: &Extensions,
    headers: &HeaderMap,
    app: &App,
) -> Option<IpAddr> {
    let peer = extensions.get::<Peer>()?;
    Some(order_network(client(peer.address, headers, &app.settings.trusted_proxies)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    #[test]
    fn only_trusted_proxies_set_the_client_address() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let of_bytes = |peer: &str, forwarded: &[u8]| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_bytes(forwarded).unwrap(),
            )]);
            client(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        let of = |peer: &str, forwarded: &str| of_bytes(peer, forwarded.as_bytes());
        assert_eq!(of("192.0.2.1", "198.51.100.7"), "192.0.2.1");
        assert_eq!(of("10.0.0.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(of("10.0.0.1", "203.0.113.9, 198.51.100.7, 10.0.0.2"), "198.51.100.7");
        assert_eq!(of("10.0.0.1", "nonsense, 10.0.0.2"), "10.0.0.2");
        assert_eq!(of("10.0.0.1", "::ffff:198.51.100.7, ::ffff:10.0.0.2"), "198.51.100.7");
        assert_eq!(of_bytes("10.0.0.1", b"\xff, 198.51.100.7"), "198.51.100.7");
        assert_eq!(of("10.0.0.1", "198.51.100.7:4711, 10.0.0.2:80"), "198.51.100.7");
        assert_eq!(of("10.0.0.1", "[2001:db8::7]:4711"), "2001:db8::7");
        assert_eq!(of("10.0.0.1", "[2001:db8::7]"), "2001:db8::7");
        assert_eq!(of("10.0.0.1", "198.51.100.7:http"), "10.0.0.1");
    }
}
