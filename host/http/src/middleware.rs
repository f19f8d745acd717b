//! What every request passes: how often an address may ask, what every answer says, and what is
//! counted.

use crate::problem::{Fault, Problem};
use crate::server::Peer;
use crate::{App, limits};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How often each address may ask.
pub(crate) struct Rates {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl Rates {
    pub(crate) fn new(a_minute: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(a_minute).unwrap_or(NonZeroU32::MIN));
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Seconds to wait, if it is too soon.
    fn check(&self, address: IpAddr) -> Result<(), u64> {
        // A flood of addresses shares the allowances of wide networks rather than our memory.
        let key = if self.limiter.len() < limits::ADDRESSES {
            network(address)
        } else {
            wide_network(address)
        };
        self.limiter.check_key(&key).map_err(|not_until| {
            not_until.wait_time_from(self.clock.now()).as_secs().saturating_add(1)
        })
    }

    /// Forgets addresses that may ask as often as any.
    pub(crate) fn forget(&self) {
        self.limiter.retain_recent();
    }
}

/// Whoever has one address of IPv6 has the whole /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        },
    }
}

/// A provider's part of the net: /16 of IPv4, /32 of IPv6.
fn wide_network(address: IpAddr) -> IpAddr {
    match network(address) {
        IpAddr::V4(address) => {
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 16)))
        }
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 96)))
        }
    }
}

/// Whose request it is: the peer's, or what trusted proxies say. What the last of them was told by
/// others is not believed.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    let forwarded =
        headers.get_all("x-forwarded-for").iter().rev().filter_map(|value| value.to_str().ok());
    for hop in forwarded.flat_map(|value| value.rsplit(',')) {
        if !is_trusted(&client) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

/// Everything around the routes.
pub(crate) fn layer(router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    let nothing = || async { Problem::new(Fault::NoSuchPage, "there is nothing here; see /docs") };
    let not_so = || async {
        Problem::new(Fault::MethodNotAllowed, "this is not asked with that method; see /docs")
    };
    let mut router = router
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .layer(from_fn_with_state(Arc::clone(app), rate_limit))
        .layer(from_fn_with_state(Arc::clone(app), security_headers));
    let origins: Vec<HeaderValue> = app
        .settings
        .cors_origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok())
        .collect();
    if !origins.is_empty() {
        let (x_cashu, key) =
            (HeaderName::from_static("x-cashu"), HeaderName::from_static("idempotency-key"));
        let prefer = HeaderName::from_static("prefer");
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                x_cashu.clone(),
                key,
                prefer,
            ])
            .expose_headers([x_cashu, header::LOCATION, header::RETRY_AFTER]);
        router = router.layer(cors);
    }
    router
}

async fn rate_limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
    // Probes cost next to nothing, and who is not found alive or ready is cut off from everybody.
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if let (Some(peer), false) = (peer, is_probe)
        && let Err(wait) =
            app.rates.check(client(peer, request.headers(), &app.settings.trusted_proxies))
    {
        let problem = Problem::new(
            Fault::TooManyRequests,
            &format!("too many requests from this address; wait {wait} s"),
        );
        // nginx knows only yes, 401 and 403 there.
        let problem = if request.uri().path() == "/auth" {
            problem.with_status(StatusCode::FORBIDDEN)
        } else {
            problem
        };
        return problem.header(header::RETRY_AFTER, HeaderValue::from(wait)).into_response();
    }
    next.run(request).await
}

/// What every answer says. The page and its parts say more for themselves.
async fn security_headers(
    State(app): State<Arc<App>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let method = match *request.method() {
        Method::GET | Method::HEAD | Method::POST | Method::DELETE | Method::OPTIONS => {
            request.method().as_str().to_owned()
        }
        _ => "other".to_owned(),
    };
    let mut response = next.run(request).await;
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.note(route, &method, response.status().as_u16(), begun.elapsed());
    let headers = response.headers_mut();
    let mut say = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "no-referrer");
    say(header::X_FRAME_OPTIONS, "DENY");
    say(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    say(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    say(HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()");
    // Logins, tokens, prices: nobody in between keeps them.
    say(header::CACHE_CONTROL, "no-store");
    if app.public_url.starts_with("https://") {
        say(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let of = |peer: &str, forwarded: &'static str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_static(forwarded),
            )]);
            client(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(of("192.0.2.1", "198.51.100.7"), "192.0.2.1");
        assert_eq!(of("10.0.0.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(of("10.0.0.1", "203.0.113.9, 198.51.100.7, 10.0.0.2"), "198.51.100.7");
        assert_eq!(of("10.0.0.1", "nonsense, 10.0.0.2"), "10.0.0.2");
        assert_eq!(of("10.0.0.1", "::ffff:198.51.100.7, ::ffff:10.0.0.2"), "198.51.100.7");
    }

    #[test]
    fn a_flood_of_one_network_is_one_flood() {
        let rates = Rates::new(2);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(
            rates.check(address("2001:db8::1")).is_ok()
                && rates.check(address("2001:db8::2")).is_ok()
        );
        assert!(rates.check(address("2001:db8::3")).unwrap_err() >= 1);
        assert!(rates.check(address("2001:db8:0:1::3")).is_ok());
        assert!(
            rates.check(address("::ffff:192.0.2.1")).is_ok()
                && rates.check(address("192.0.2.1")).is_ok()
        );
        assert!(rates.check(address("192.0.2.1")).is_err());
    }
}
