//! What of a request's head reaches the pod, and what of its answer the client.

use super::login::COOKIE;
use crate::identity::same;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE as COOKIES, EXPECT, HOST,
    ORIGIN, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use paygress_core::model::http_port::HttpAccess;
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use std::net::IpAddr;

/// What is between two hops alone (RFC 9110, 7.6.1), besides what `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that programs trust if they are behind a proxy, besides [`FORWARDED`] ones. What the client
/// itself has sent in them is not passed on. `Proxy` is the variable `HTTP_PROXY` to a program of CGI.
const OF_PROXIES: [&str; 16] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-ip",
    "do-connecting-ip",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "proxy",
    "true-client-ip",
    "x-appengine-user-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-original-forwarded-for",
    "x-real-ip",
];
/// The prefix of all others of these.
const FORWARDED: &str = "x-forwarded-";
/// Response headers that would have an effect beyond the pod's own site. They name another server
/// for its host, clear the cookies of all sites of the domain, or have a proxy before the service
/// send a file or page in place of the response.
const BEYOND_THE_POD: [&str; 7] = [
    "alt-svc",
    "clear-site-data",
    "x-lighttpd-send-file",
    "x-lighttpd-send-tempfile",
    "x-litespeed-location",
    "x-reproxy-url",
    "x-sendfile",
];
/// The prefixes of the headers by which a response commands nginx and Envoy. To Envoy it may say that the
/// service is not healthy, by which all sites would go.
const PROXY_COMMANDS: [&str; 2] = ["x-accel-", "x-envoy-"];
/// The ends of headers that shared caches obey in place of `Cache-Control` (RFC 9213, Edge architecture).
const OF_SHARED_CACHES: [&str; 2] = ["cdn-cache-control", "surrogate-control"];
/// The prefix of every bearer token that the service has made.
const OWN_BEARER: &str = "pg_";

/// The credentials of the request for the service itself: they must not reach the pod.
pub(super) struct Credentials<'a> {
    pub(super) customer: Option<&'a Customer>,
    pub(super) operator: Option<&'a Secret>,
}

impl Credentials<'_> {
    /// Whether a value of `Authorization` is for the service, and not for the pod's own program.
    fn is_in(&self, value: &HeaderValue) -> bool {
        let Ok(text) = value.to_str() else { return false };
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        scheme.eq_ignore_ascii_case("bearer")
            && (rest.starts_with(OWN_BEARER)
                || self.operator.is_some_and(|token| same(token, rest))
                || self.customer == Some(&Customer::of_bearer(&Secret::new(rest))))
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn is_of_proxies(name: &str) -> bool {
    // CGI and WSGI have one variable for both spellings.
    let name = name.replace('_', "-");
    name.starts_with(FORWARDED) || OF_PROXIES.contains(&&*name)
}

fn remove_all(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| is_meant(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Whether a head asks for a WebSocket, or agrees to one. No other protocol is passed on.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, "connection", "upgrade") && has_token(headers, "upgrade", "websocket")
}

fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn is(headers: &HeaderMap, name: &str, expected: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes() == expected.as_bytes())
}

/// Whether a browser says that it opens a page.
pub(super) fn is_navigation(headers: &HeaderMap) -> bool {
    is(headers, "sec-fetch-mode", "navigate")
}

/// Whether a page of another site makes the request, other than by a link that is followed: the
/// browser sends the cookie with it all the same, where both are below one domain.
pub(super) fn is_of_other_page(method: &Method, headers: &HeaderMap, host: &str) -> bool {
    let is_same_origin = is(headers, "sec-fetch-site", "same-origin");
    // A page with `Referrer-Policy: no-referrer` does not name itself when it posts a form. What else
    // has no origin, a sandboxed frame for instance, is another site to the browser.
    let is_own = |origin: &HeaderValue| {
        origin.as_bytes() == format!("https://{host}").as_bytes()
            || (is_same_origin && origin.as_bytes() == b"null")
    };
    if !headers.get_all(ORIGIN).iter().all(is_own) {
        return true;
    }
    let is_own_page = !headers.contains_key("sec-fetch-site")
        || is_same_origin
        || is(headers, "sec-fetch-site", "none");
    let is_link = matches!(*method, Method::GET | Method::HEAD)
        && is_navigation(headers)
        && is(headers, "sec-fetch-dest", "document");
    !is_own_page && !is_link
}

/// The lines of `Cookie` without ours.
fn without_own_cookie(headers: &mut HeaderMap) {
    let is_others = |pair: &&str| pair.split('=').next().is_some_and(|it| it.trim() != COOKIE);
    let lines: Vec<HeaderValue> = headers
        .get_all(COOKIES)
        .iter()
        .filter_map(|line| {
            let text = std::str::from_utf8(line.as_bytes()).ok()?;
            let pairs: Vec<&str> = text
                .split(';')
                .map(str::trim)
                .filter(is_others)
                .filter(|it| !it.is_empty())
                .collect();
            HeaderValue::from_str(&pairs.join("; ")).ok().filter(|line| !line.is_empty())
        })
        .collect();
    headers.remove(COOKIES);
    for line in lines {
        headers.append(COOKIES, line);
    }
}

/// Makes of a request's headers what the pod gets.
pub(super) fn to_pod(
    headers: &mut HeaderMap,
    host: &str,
    client: IpAddr,
    credentials: &Credentials<'_>,
) {
    let (is_chunked, is_websocket) =
        (headers.contains_key(TRANSFER_ENCODING), is_websocket(headers));
    remove_hop_by_hop(headers);
    remove_all(headers, is_of_proxies);
    headers.remove(EXPECT);
    without_own_cookie(headers);
    if headers.get_all(AUTHORIZATION).iter().any(|value| credentials.is_in(value)) {
        headers.remove(AUTHORIZATION);
    }
    if is_chunked {
        // Two lengths are none.
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if is_websocket {
        set_websocket(headers);
    }
    // Both are plain: a name of DNS, and an address.
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host.clone());
        headers.insert("x-forwarded-host", host);
    }
    if let Ok(client) = HeaderValue::from_str(&client.to_string()) {
        headers.insert("x-forwarded-for", client);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
}

/// Whether a cookie of the pod's stays with the pod's host.
fn is_of_host(cookie: &HeaderValue, host: &str) -> bool {
    let text = String::from_utf8_lossy(cookie.as_bytes()).to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().and_then(|pair| pair.split('=').next()).unwrap_or_default().trim();
    let mut domains = parts.filter_map(|attribute| {
        let (name, value) = attribute.split_once('=')?;
        (name.trim() == "domain").then(|| value.trim().trim_start_matches('.'))
    });
    name != COOKIE.to_ascii_lowercase() && domains.all(|domain| domain.is_empty() || domain == host)
}

fn remove_beyond_the_pod(headers: &mut HeaderMap) {
    remove_all(headers, |name| PROXY_COMMANDS.iter().any(|prefix| name.starts_with(prefix)));
    for name in BEYOND_THE_POD {
        headers.remove(name);
    }
}

/// Makes of the headers of a pod's answer what the client gets.
pub(super) fn to_client(headers: &mut HeaderMap, host: &str, access: HttpAccess) {
    let (is_chunked, is_websocket) =
        (headers.contains_key(TRANSFER_ENCODING), is_websocket(headers));
    remove_hop_by_hop(headers);
    remove_beyond_the_pod(headers);
    if is_chunked {
        // It is no length of the body, which would be cut there, or found too short.
        headers.remove(CONTENT_LENGTH);
    }
    let cookies: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter(|it| is_of_host(it, host)).cloned().collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    if access == HttpAccess::Owner {
        // No cache between shows it to others.
        remove_all(headers, |name| OF_SHARED_CACHES.iter().any(|end| name.ends_with(end)));
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    if is_websocket {
        set_websocket(headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST_NAME: &str = "ssh-pod-aaaaaaaaaa.apps.example";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn sent_to_pod(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = headers(lines);
        let (customer, operator) =
            (Customer::of_bearer(&Secret::new("mine".repeat(10))), Secret::new("the operator's"));
        let credentials = Credentials { customer: Some(&customer), operator: Some(&operator) };
        to_pod(&mut headers, HOST_NAME, "192.0.2.7".parse().unwrap(), &credentials);
        headers
    }

    #[test]
    fn the_pod_gets_the_request_and_nothing_of_the_service() {
        let sent = sent_to_pod(&[
            ("host", "SSH-pod-aaaaaaaaaa.apps.example:443"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-real-ip", "203.0.113.9"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("cookie", "a=1; __Host-paygress-app=secret; b=2"),
            ("accept", "text/html"),
        ]);
        let expected = headers(&[
            ("host", HOST_NAME),
            ("x-forwarded-host", HOST_NAME),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("cookie", "a=1; b=2"),
            ("accept", "text/html"),
        ]);
        assert_eq!(sent, expected);
        assert!(!sent_to_pod(&[("cookie", "__Host-paygress-app=secret")]).contains_key(COOKIES));
    }

    /// The pod's program would take them for what its proxy says.
    #[test]
    fn no_spelling_of_what_a_proxy_says_is_passed_on() {
        for name in [
            "x_forwarded_for",
            "X-Forwarded_For",
            "x_real_ip",
            "X-Forwarded-Ssl",
            "x_forwarded_user",
            "client-ip",
            "true_client_ip",
            "proxy",
            "X-Forwarded",
            "forwarded_for",
            "CF-Connecting-IP",
            "cf_connecting_ipv6",
            "Fastly-Client-IP",
            "x-client-ip",
            "x-cluster-client-ip",
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            let mut sent =
                HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("127.0.0.1"))]);
            let credentials = Credentials { customer: None, operator: None };
            to_pod(&mut sent, HOST_NAME, "192.0.2.7".parse().unwrap(), &credentials);
            assert!(!sent.contains_key(&name), "{name}");
            assert_eq!(sent["x-forwarded-for"], "192.0.2.7");
        }
        let others = [("x-forward", "1"), ("x_custom", "1"), ("proxy-status", "1")];
        let sent = sent_to_pod(&others);
        assert!(others.iter().all(|(name, _)| sent.contains_key(*name)), "{sent:?}");
    }

    #[test]
    fn an_owners_answer_is_for_no_shared_cache() {
        let lines = [
            ("cdn-cache-control", "max-age=60"),
            ("cloudflare-cdn-cache-control", "max-age=60"),
            ("surrogate-control", "max-age=60"),
        ];
        let mut answer = headers(&lines);
        to_client(&mut answer, HOST_NAME, HttpAccess::Public);
        assert_eq!(answer, headers(&lines));
        to_client(&mut answer, HOST_NAME, HttpAccess::Owner);
        assert_eq!(answer, headers(&[("cache-control", "private")]));
    }

    #[test]
    fn an_answer_in_chunks_has_no_length() {
        let length = ("content-length", "5");
        let mut answer = headers(&[length, ("transfer-encoding", "chunked")]);
        to_client(&mut answer, HOST_NAME, HttpAccess::Public);
        assert!(answer.is_empty(), "{answer:?}");
        let mut answer = headers(&[length]);
        to_client(&mut answer, HOST_NAME, HttpAccess::Public);
        assert_eq!(answer, headers(&[length]));
    }

    #[test]
    fn an_authorization_is_the_pods_unless_it_is_for_the_service() {
        let mine = format!("Bearer {}", "mine".repeat(10));
        for (value, is_sent) in [
            (&*mine, false),
            ("bearer the operator's", false),
            ("Bearer pg_abc", false),
            ("Bearer of-the-app", true),
            ("Basic dXNlcjpwYXNz", true),
        ] {
            let sent = sent_to_pod(&[("authorization", value)]);
            assert_eq!(sent.contains_key(AUTHORIZATION), is_sent, "{value}");
        }
    }

    #[test]
    fn of_upgrades_only_websockets_are_passed_on() {
        for (protocol, is_sent) in [("websocket", true), ("WebSocket", true), ("h2c", false)] {
            let sent = sent_to_pod(&[("connection", "keep-alive, Upgrade"), ("upgrade", protocol)]);
            assert_eq!(is_websocket(&sent), is_sent, "{protocol}");
        }
    }

    #[test]
    fn what_another_page_sends_with_the_cookie_is_noticed() {
        let own = format!("https://{HOST_NAME}");
        let link = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let cross = ("sec-fetch-site", "same-site");
        for (method, lines, is_other) in [
            (Method::GET, vec![], false),
            (Method::POST, vec![("origin", &*own)], false),
            (Method::POST, vec![("origin", "https://ssh-pod-bbbbbbbbbb.apps.example")], true),
            (Method::POST, vec![("origin", "null")], true),
            (Method::POST, vec![("origin", "null"), ("sec-fetch-site", "same-origin")], false),
            (Method::POST, vec![("origin", "null"), ("sec-fetch-site", "cross-site")], true),
            (Method::POST, vec![("origin", "null"), ("sec-fetch-site", "none")], true),
            (
                Method::POST,
                vec![("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
                true,
            ),
            (Method::GET, vec![("sec-fetch-site", "none")], false),
            (Method::GET, vec![cross], true),
            (Method::GET, vec![cross, link[0], link[1]], false),
            (Method::GET, vec![cross, link[0], ("sec-fetch-dest", "iframe")], true),
            (Method::POST, vec![cross, link[0], link[1]], true),
        ] {
            let found = is_of_other_page(&method, &headers(&lines), HOST_NAME);
            assert_eq!(found, is_other, "{method} {lines:?}");
        }
    }

    #[test]
    fn a_pod_sets_cookies_of_its_own_host_alone() {
        let mut answer = headers(&[
            ("set-cookie", "a=1; Path=/"),
            ("set-cookie", "b=1; Domain=apps.example"),
            ("set-cookie", "c=1; domain=.ssh-pod-aaaaaaaaaa.apps.example"),
            ("set-cookie", "__Host-paygress-app=forged; Secure; Path=/"),
            ("connection", "keep-alive"),
            ("alt-svc", "h3=\":443\""),
        ]);
        to_client(&mut answer, HOST_NAME, HttpAccess::Owner);
        let expected = headers(&[
            ("cache-control", "private"),
            ("set-cookie", "a=1; Path=/"),
            ("set-cookie", "c=1; domain=.ssh-pod-aaaaaaaaaa.apps.example"),
        ]);
        assert_eq!(answer, expected);
        let mut public = HeaderMap::new();
        to_client(&mut public, HOST_NAME, HttpAccess::Public);
        assert!(public.is_empty());
    }

    #[test]
    fn a_pod_commands_neither_proxies_nor_browsers_beyond_its_site() {
        let mut answer = headers(&[
            ("x-accel-redirect", "/members/page.html"),
            ("x-accel-buffering", "yes"),
            ("x-accel-of-a-later-version", "1"),
            ("x-sendfile", "/etc/passwd"),
            ("x-lighttpd-send-file", "/etc/passwd"),
            ("x-reproxy-url", "http://10.0.0.1/"),
            ("x-litespeed-location", "/members/page.html"),
            ("x-envoy-immediate-health-check-fail", "true"),
            ("x-envoy-degraded", "true"),
            ("clear-site-data", "\"cookies\""),
            ("alt-svc", "h3=\":443\""),
            ("x-acceleration", "1"),
        ]);
        to_client(&mut answer, HOST_NAME, HttpAccess::Public);
        assert_eq!(answer, headers(&[("x-acceleration", "1")]));
    }
}
