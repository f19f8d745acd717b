//! What every request passes: the rate limit, the headers of every response, and the metrics.

use crate::client_address::client;
use crate::limits;
use crate::pay;
use crate::problem::{Problem, ProblemType};
use crate::server::Peer;
use crate::state::App;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Instant;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The middleware around all routes.
pub(crate) fn layer(router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    let not_found =
        || async { Problem::new(ProblemType::NoSuchPage, "there is no such page; see /docs") };
    let wrong_method = || async {
        Problem::new(
            ProblemType::MethodNotAllowed,
            "the path does not support this method; see /docs",
        )
    };
    let limited = router
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(app), answer_in_time))
        .layer(from_fn_with_state(Arc::clone(app), rate_limit))
        .layer(cors(&app.settings.cors_origins))
        .layer(from_fn_with_state(Arc::clone(app), limit_preflights));
    counted(limited, app)
}

/// The same around routes with answers of their own to what is none of them, and without the rate limit.
pub(crate) fn unlimited(router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    counted(router.layer(cors(&app.settings.cors_origins)), app)
}

/// With the headers of every response, and the metrics.
fn counted(router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    router
        .layer(from_fn_with_state(Arc::clone(app), security_headers))
        .layer(from_fn_with_state(Arc::clone(app), record_metrics))
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
        .max_age(limits::PREFLIGHT_KEPT)
}

/// Nobody's request is cut when the service is stopped.
async fn answer_in_time(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let answer = async { Ok(next.run(request).await) };
    app.stopping.in_time(answer).await.unwrap_or_else(Problem::into_response)
}

/// CORS answers these before the rate limit of all others, whose refusals it lets pages read.
async fn limit_preflights(app: State<Arc<App>>, request: Request, next: Next) -> Response {
    match *request.method() {
        Method::OPTIONS => rate_limit(app, request, next).await,
        _ => next.run(request).await,
    }
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
            ProblemType::TooManyRequests,
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
