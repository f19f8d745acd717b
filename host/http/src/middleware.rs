//! What every request passes: the rate limit, the headers of every response, and the metrics.

use crate::networks::order_network;
use crate::pay;
use crate::problem::{Fault, Problem};
use crate::server::Peer;
use crate::state::App;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The client's address: the peer's, or what trusted proxies say. What a client says to the last of
/// them is not believed.
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

/// The network of the client, if its peer is known.
pub(crate) fn client_network(
    extensions: &Extensions,
    headers: &HeaderMap,
    app: &App,
) -> Option<IpAddr> {
    let peer = extensions.get::<Peer>()?;
    Some(order_network(client(peer.address, headers, &app.settings.trusted_proxies)))
}

/// The middleware around all routes.
pub(crate) fn layer(router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    let not_found =
        || async { Problem::new(Fault::NoSuchPage, "there is no such page; see /docs") };
    let wrong_method = || async {
        Problem::new(Fault::MethodNotAllowed, "the path does not support this method; see /docs")
    };
    router
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(app), rate_limit))
        .layer(from_fn_with_state(Arc::clone(app), security_headers))
        .layer(from_fn_with_state(Arc::clone(app), record_metrics))
        .layer(cors(&app.settings.cors_origins))
}

/// Which pages may call: those of the operator's origins; and any wallet's may pay, since a payment
/// request is for whatever wallet its customer has.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.to_vec();
    let is_allowed = move |origin: &HeaderValue, request: &Parts| {
        request.uri.path() == pay::PATH
            || origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    };
    let x_cashu = HeaderName::from_static("x-cashu");
    let (key, prefer) =
        (HeaderName::from_static("idempotency-key"), HeaderName::from_static("prefer"));
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, x_cashu.clone(), key, prefer])
        .expose_headers([x_cashu, header::LOCATION, header::RETRY_AFTER])
}

async fn rate_limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
    // Probes cost next to nothing, and a service that fails them is cut off from everybody.
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if let (Some(peer), false) = (peer, is_probe)
        && let Err(wait) =
            app.rates.check(client(peer, request.headers(), &app.settings.trusted_proxies))
    {
        let problem = Problem::new(
            Fault::TooManyRequests,
            &format!("too many requests from this address; wait {wait} s"),
        );
        // nginx understands only success, 401 and 403 there.
        let problem = if request.uri().path() == "/auth" {
            problem.with_status(StatusCode::FORBIDDEN)
        } else {
            problem
        };
        return problem.header(header::RETRY_AFTER, HeaderValue::from(wait)).into_response();
    }
    next.run(request).await
}

/// The headers of every response, unless it has its own.
async fn security_headers(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set_default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set_default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set_default(header::REFERRER_POLICY, "no-referrer");
    set_default(header::X_FRAME_OPTIONS, "DENY");
    set_default(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    set_default(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set_default(
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    );
    // Logins, tokens, prices: no cache keeps them.
    set_default(header::CACHE_CONTROL, "no-store");
    if app.public_url.starts_with("https://") {
        set_default(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

/// Counts and times each request by its route, never by its path, which the client chooses.
async fn record_metrics(
    State(app): State<Arc<App>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = match *request.method() {
        Method::GET | Method::HEAD | Method::POST | Method::DELETE | Method::OPTIONS => {
            request.method().as_str().to_owned()
        }
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.record(route, &method, response.status().as_u16(), started.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_set_the_client_address() {
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
}
