//! Questions about URLs that decide what is sent where.

use crate::address::is_public;
use hyper::Uri;
use std::net::{IpAddr, Ipv4Addr};

/// The host and port of a URL, for messages; without user information.
#[must_use]
pub fn host(url: &Uri) -> String {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

/// Whether this is an http or https URL with a host, a port that there is if it names one, and without
/// user information. Numbers that only a resolver would take for an IPv4 address (`127.1`,
/// `0x7f000001`) are no host.
#[must_use]
pub fn is_http_url(url: &Uri) -> bool {
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    let has_plain_host = |authority: &hyper::http::uri::Authority| {
        let host = canonical(authority.host());
        // What is left besides the host is a port.
        let is_alone = authority.as_str() == authority.host() || authority.port_u16().is_some();
        let has_user = authority.as_str().contains('@');
        is_alone && !has_user && !host.is_empty() && !is_odd_number(&host)
    };
    is_http && url.authority().is_some_and(has_plain_host)
}

/// Whether what goes to `to` cannot be overheard: it is encrypted, or both URLs are on this
/// machine.
#[must_use]
pub fn is_confidential(from: &Uri, to: &Uri) -> bool {
    let is_local = |url: &Uri| is_loopback(url.host().unwrap_or_default());
    to.scheme_str() == Some("https") || (is_local(from) && is_local(to))
}

/// Whether two URLs have the same scheme, host and port.
#[must_use]
pub fn is_same_server(one: &Uri, other: &Uri) -> bool {
    let server = |url: &Uri| {
        let default_port = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let host = url.host().map(str::to_ascii_lowercase);
        (url.scheme_str().map(str::to_owned), host, url.port_u16().unwrap_or(default_port))
    };
    server(one) == server(other)
}

/// Whether a host (without its port; IPv6 in brackets) is this machine by its name alone. An IPv4
/// address in an IPv6 one is not: what need not be encrypted is written plainly.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = canonical(host);
    host == "localhost" || literal(&host).is_some_and(|address| address.is_loopback())
}

/// Whether a host is, by its name alone, not on the public internet.
pub(crate) fn is_private(host: &str) -> bool {
    let host = canonical(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || literal(&host).is_some_and(|address| !is_public(address))
}

/// A host as it is compared: in lower case, and without the dot of the root.
fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether a canonical host ends in a number and is no IPv4 address in its usual form. Resolvers
/// take other forms too, so that its name alone does not say where it leads.
fn is_odd_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let is_decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    (is_decimal || last.starts_with("0x")) && host.parse::<Ipv4Addr>().is_err()
}

fn literal(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        let confidential = |from: &str, to: &str| is_confidential(&url(from), &url(to));
        assert!(confidential("https://a.example/", "https://b.example/"));
        assert!(confidential("http://127.0.0.1:1/", "http://[::1]:2/"));
        assert!(!confidential("https://a.example/", "http://localhost/"));
        assert!(confidential("http://LOCALHOST/", "http://localhost.:2/"));
        assert!(!confidential("http://localhost/", "http://a.example/"));
        assert!(!confidential("http://localhost/", "http://localhost.example/"));
        assert!(!confidential("http://localhost/", "http://[::ffff:127.0.0.1]/"));
    }

    #[test]
    fn private_addresses_are_recognised_in_every_form() {
        for private in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "A.Localhost.",
            "127.0.0.1",
            "127.0.0.1.",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[fd00::1]",
            "[FD00::1]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b:1::9.9.9.9]",
        ] {
            assert!(is_private(private), "{private}");
        }
        for public in [
            "a.example",
            "localhost.example",
            "9.9.9.9",
            "100.128.0.1",
            "[2620:fe::fe]",
            "[64:ff9b::9.9.9.9]",
        ] {
            assert!(!is_private(public), "{public}");
        }
    }

    #[test]
    fn servers_are_compared_with_their_default_ports() {
        assert!(is_same_server(&url("https://A.example/x"), &url("https://a.example:443/y")));
        assert!(is_same_server(&url("http://a.example/"), &url("http://a.example:80/")));
        assert!(!is_same_server(&url("https://a.example/"), &url("http://a.example/")));
        assert!(!is_same_server(&url("https://a.example/"), &url("https://a.example:444/")));
    }

    #[test]
    fn numbers_are_hosts_only_as_ipv4_addresses() {
        for good in ["https://9.9.9.9/", "https://9.9.9.9./", "https://1.a/", "https://[::1]:1/"] {
            assert!(is_http_url(&url(good)), "{good}");
        }
        for bad in [
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0x7f000001/",
            "https://0X7F000001./",
            "https://0177.0.0.1/",
            "https://a.1/",
        ] {
            assert!(!is_http_url(&url(bad)), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_of_16_bits() {
        for good in ["https://a.example/", "https://a.example:65535/", "https://[::1]/"] {
            assert!(is_http_url(&url(good)), "{good}");
        }
        for bad in ["https://a.example:65536/", "https://a.example:/", "https://[::1]:99999/"] {
            assert!(!is_http_url(&url(bad)), "{bad}");
        }
    }

    #[test]
    fn urls_with_user_information_are_not_accepted() {
        assert!(is_http_url(&url("https://a.example/")));
        for bad in ["https://user:secret@a.example/", "ftp://a.example/", "/path", "a.example:443"]
        {
            assert!(!is_http_url(&url(bad)), "{bad}");
        }
        assert_eq!(host(&url("https://user:secret@a.example:1/x")), "a.example:1");
    }
}
