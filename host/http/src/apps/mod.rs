//! The HTTP ports of pods, each at a host of its own below the operator's domain.
//!
//! ```text
//! sites.rs ─▶ owner or anybody ─▶ rate of each ─▶ lease: live, with a port ─▶ permits ─▶ forward.rs ─▶ PodStreams
//!                                                              └ /.paygress/login: a code for a cookie (login.rs)
//! ```
//!
//! `headers.rs`: what of a head is passed on. `idle_stream.rs`: the pod's connection, cut when idle.
//! The service's own site is not served here: none of its routes, CORS headers or cookies.

mod forward;
mod headers;
mod idle_stream;
mod login;
mod permits;

use crate::client_address::client;
use crate::limits;
use crate::problem::{Problem, ProblemType};
use crate::rate_limit::{CustomerRates, RequestRates};
use crate::server::Peer;
use crate::state::{App, AppBackends};
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use forward::{Exchange, ForwardError, PodConnection, forward};
use futures::FutureExt;
use futures::future::BoxFuture;
use headers::{Credentials, is_navigation, is_of_other_page, to_client, to_pod};
use login::{AppLogins, LOGIN_PAGE, LOGIN_PATH};
use paygress_core::backend::apps::AppLinks;
use paygress_core::backend::pod_streams::{ByteStream, OpenError, PodPort, PodStreams};
use paygress_core::backend::store::{MessageLog, USED_LOGIN};
use paygress_core::error_chain;
use paygress_core::every_nth::EveryNth;
use paygress_core::live_leases::LiveLeases;
use paygress_core::logged_failures::LoggedFailures;
use paygress_core::model::apps_domain::{AppHost, AppsDomain};
use paygress_core::model::http_port::{HttpAccess, HttpPort};
use paygress_core::model::ids::{MessageId, PodName};
use paygress_core::model::order::Lease;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::UnixTime;
use permits::{AppPermit, AppPermits, Visitor};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// Paths with this prefix are answered by the service at the host of every pod.
const RESERVED: &str = "/.paygress/";
/// The route under which metrics count the requests for all pods.
const ROUTE: &str = "app";

/// The sites of pods.
pub(crate) struct AppProxy {
    app: Arc<App>,
    domain: AppsDomain,
    leases: Arc<LiveLeases>,
    streams: Arc<dyn PodStreams>,
    used_codes: Arc<dyn MessageLog>,
    /// When they are forgotten, by how many there are.
    codes_used: EveryNth,
    /// Held while a code is used: of two requests with the same code the second one fails.
    login: Mutex<()>,
    logins: Arc<AppLogins>,
    rates: RequestRates,
    customer_rates: CustomerRates,
    permits: AppPermits,
    /// Of the ledger: each request needs it.
    ledger_failures: LoggedFailures,
}

/// A request's pod, and who asks.
struct Visit {
    pod: PodName,
    /// The name of its site.
    host: String,
    lease: Lease,
    http: HttpPort,
    visitor: Visitor,
    client: IpAddr,
    peer: Option<Peer>,
}

impl AppProxy {
    pub(crate) fn new(app: Arc<App>, backends: AppBackends) -> Self {
        let AppBackends { domain, leases, streams, used_codes } = backends;
        let key = app.settings.bearer_key.clone();
        let a_minute = app.settings.requests_per_minute.saturating_mul(limits::APP_ALLOWANCE);
        Self {
            logins: Arc::new(AppLogins::new(key, domain.clone())),
            rates: RequestRates::new(a_minute),
            customer_rates: CustomerRates::new(a_minute),
            permits: AppPermits::new(),
            codes_used: EveryNth::new(limits::USED_LOGINS_CHECK_EVERY),
            login: Mutex::default(),
            ledger_failures: LoggedFailures::default(),
            app,
            domain,
            leases,
            streams,
            used_codes,
        }
    }

    pub(crate) fn domain(&self) -> &AppsDomain {
        &self.domain
    }

    /// What answers name.
    pub(crate) fn links(&self) -> Arc<dyn AppLinks> {
        self.logins.clone()
    }

    /// Notices the ends of leases, until it is dropped.
    pub(crate) async fn watch(&self) {
        self.leases.watch(Some(self.app.orders.lease_ends())).await;
    }

    pub(crate) fn forget_rates(&self) {
        self.rates.forget();
        self.customer_rates.forget();
    }

    /// Answers a request for a host of the domain.
    pub(crate) async fn serve(&self, host: AppHost, request: Request) -> Response {
        let (started, method) = (Instant::now(), metrics_method(request.method()));
        let (parts, body) = request.into_parts();
        let answer = self.answer(host, parts, body);
        let (response, status) = match self.app.stopping.in_time(answer).await {
            Ok(response) => {
                let class = status_class(response.status());
                (response, class)
            }
            Err(problem) => {
                let response = own_response(problem.into_response());
                let status = response.status().as_u16();
                (response, status)
            }
        };
        self.app.metrics.record(ROUTE, method, status, started.elapsed());
        response
    }

    async fn answer(&self, host: AppHost, parts: Parts, body: Body) -> Result<Response, Problem> {
        let visit = self.visit(host, &parts).await?;
        let path = parts.uri.path();
        if path == LOGIN_PATH {
            return self.log_in(&visit, &parts).await;
        }
        if parts.method == Method::CONNECT {
            return Err(Problem::new(ProblemType::MethodNotAllowed, "this is no proxy"));
        }
        if path.starts_with(RESERVED) {
            return Err(Problem::new(
                ProblemType::NoSuchPage,
                "there is no such page of the service",
            ));
        }
        if visit.http.access() == HttpAccess::Owner && visit.visitor == Visitor::Anybody {
            return Err(not_logged_in());
        }
        self.forward(visit, parts, body).await
    }

    /// The pod of this host, if its port may be served.
    async fn visit(&self, host: AppHost, parts: &Parts) -> Result<Visit, Problem> {
        let peer = parts.extensions.get::<Peer>().cloned();
        let address =
            peer.as_ref().map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |peer| peer.address);
        let client = client(address, &parts.headers, &self.app.settings.trusted_proxies);
        let AppHost::Pod(pod) = host else {
            self.rates.check(client).map_err(too_fast)?;
            return Err(no_such_app());
        };
        let visitor = self.visitor(&pod, parts);
        let checked = match visitor {
            Visitor::Customer => self.customer_rates.check(&pod),
            Visitor::Anybody => self.rates.check(client),
        };
        checked.map_err(too_fast)?;
        let lease = self.leases.find(&pod).await.map_err(|error| {
            if let Some(error) = self.ledger_failures.admit(error_chain(&error)) {
                tracing::warn!(%pod, error, "a lease cannot be looked up");
            }
            Problem::internal("the service cannot look this pod up right now; try again later")
        })?;
        let lease = lease.ok_or_else(no_such_app)?;
        let http = lease.http.ok_or_else(no_such_app)?;
        Ok(Visit { host: self.domain.host_of(&pod), pod, lease, http, visitor, client, peer })
    }

    /// Who asks, by what this service has signed for this pod: it costs no look-up.
    fn visitor(&self, pod: &PodName, parts: &Parts) -> Visitor {
        let now = UnixTime::now();
        let is_customer = match parts.uri.path() {
            LOGIN_PATH => self.logins.verify_code(pod, code(parts), now).is_some(),
            _ => {
                !is_of_other_page(&parts.method, &parts.headers, &self.domain.host_of(pod))
                    && self.logins.has_cookie(&parts.headers, pod, now)
            }
        };
        if is_customer { Visitor::Customer } else { Visitor::Anybody }
    }

    /// Gives the browser a cookie for the code that it has. Whoever only looks at a link, to preview it
    /// for instance, does not use its code: they are no browser, and press no button.
    async fn log_in(&self, visit: &Visit, parts: &Parts) -> Result<Response, Problem> {
        if !matches!(parts.method, Method::GET | Method::POST) {
            return Err(Problem::new(ProblemType::MethodNotAllowed, "open this link in a browser"));
        }
        let now = UnixTime::now();
        let id = self.logins.verify_code(&visit.pod, code(parts), now).ok_or_else(bad_code)?;
        if parts.method == Method::GET && !is_navigation(&parts.headers) {
            return Ok(own_response(Html(LOGIN_PAGE).into_response()));
        }
        self.use_code(id, now).await?;
        let cookie = self.logins.set_cookie(&visit.pod, now);
        let cookie = cookie.ok_or_else(|| Problem::internal("no cookie can be made"))?;
        let mut response = own_response(StatusCode::SEE_OTHER.into_response());
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/"));
        response.headers_mut().insert(header::SET_COOKIE, cookie);
        Ok(response)
    }

    /// Fails if it was used before, at any replica.
    async fn use_code(&self, id: &str, now: UnixTime) -> Result<(), Problem> {
        let id = MessageId::parse(format!("{USED_LOGIN}{id}")).map_err(|_| bad_code())?;
        let _one_by_one = self.login.lock().await;
        let claimed = async {
            let is_new = self.used_codes.claim_message(&id, now).await?;
            if is_new {
                self.used_codes.complete_message(&id, now).await?;
            }
            Ok::<bool, paygress_core::backend::store::LedgerError>(is_new)
        };
        match claimed.await {
            Ok(true) => {
                self.forget_used_codes(now).await;
                Ok(())
            }
            Ok(false) => Err(bad_code()),
            Err(error) => {
                if let Some(error) = self.ledger_failures.admit(error_chain(&error)) {
                    tracing::warn!(error, "the use of a login link cannot be stored");
                }
                Err(Problem::internal("the service cannot log you in right now; try again later"))
            }
        }
    }

    async fn forget_used_codes(&self, now: UnixTime) {
        if !self.codes_used.is_due() {
            return;
        }
        let before = now.minus(limits::USED_LOGINS_KEPT);
        if let Err(error) = self.used_codes.forget_used_logins(before).await {
            let error = error_chain(&error);
            tracing::warn!(error, "used login links could not be forgotten yet");
        }
    }

    async fn forward(
        &self,
        visit: Visit,
        mut parts: Parts,
        body: Body,
    ) -> Result<Response, Problem> {
        let permit = self.permit(&visit).await.ok_or_else(too_many)?;
        let operator = self.app.settings.operator_token.as_ref();
        let credentials = Credentials { customer: visit.lease.customer.as_ref(), operator };
        to_pod(&mut parts.headers, &visit.host, visit.client, &credentials);
        let stream = self.open(&visit).await?;
        let connection =
            PodConnection { stream, ends: [self.end_of(&visit.pod), self.end_of(&visit.pod)] };
        let exchange = Exchange::new(permit, visit.peer);
        let answer = forward(Request::from_parts(parts, body), connection, exchange).await;
        let mut answer = answer.map_err(|error| failed(&visit.pod, visit.http, &error))?;
        to_client(answer.headers_mut(), &visit.host, visit.http.access());
        Ok(answer)
    }

    /// A proxy sends at once what a page needs, and its connections are not limited by their address.
    async fn permit(&self, visit: &Visit) -> Option<AppPermit> {
        let Visit { pod, client, visitor, .. } = visit;
        let proxies = &self.app.settings.trusted_proxies;
        let is_proxy = |peer: &Peer| proxies.iter().any(|network| network.contains(&peer.address));
        if *visitor == Visitor::Customer && visit.peer.as_ref().is_some_and(is_proxy) {
            self.permits.acquire(pod, *client, *visitor).await
        } else {
            self.permits.try_acquire(pod, *client, *visitor)
        }
    }

    async fn open(&self, visit: &Visit) -> Result<Box<dyn ByteStream>, Problem> {
        let opening = self.streams.open(&visit.pod, PodPort::Tcp(visit.http.port()));
        let opened = tokio::time::timeout(limits::APP_OPEN, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(OpenError::new("it takes too long")));
        opened.map_err(|error| {
            tracing::debug!(pod = %visit.pod, error = %error_chain(&error), "no HTTP port");
            not_opened(visit.http, &error)
        })
    }

    /// Returns when the lease of this pod has ended.
    fn end_of(&self, pod: &PodName) -> BoxFuture<'static, ()> {
        let (leases, pod) = (Arc::clone(&self.leases), pod.clone());
        async move { leases.ended(&pod).await }.boxed()
    }
}

/// The code of a link, or nothing that is one.
fn code(parts: &Parts) -> &str {
    let query = parts.uri.query().unwrap_or_default();
    query.split('&').find_map(|pair| pair.strip_prefix("code=")).unwrap_or_default()
}

/// The method as metrics know it: few names, and no client's choice.
fn metrics_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The status of a pod's answer as metrics know it: a pod may choose any of nine hundred, and each
/// would be one more series for good.
fn status_class(status: StatusCode) -> u16 {
    let status = status.as_u16();
    status.saturating_sub(status.checked_rem(100).unwrap_or(0))
}

/// An answer of the service itself at a host of a pod.
pub(crate) fn own_response(mut response: Response) -> Response {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The answer to a request that names a site of a pod and another one.
pub(crate) fn contradicting_hosts() -> Response {
    own_response(Problem::invalid("the request names two hosts; send one").into_response())
}

/// The same for every name without a site, so that nobody learns which pods there are or were.
fn no_such_app() -> Problem {
    Refusal::new(
        ErrorType::NotFound,
        "no pod has an HTTP port at this name; if yours had one, it has ended: order a new one",
    )
    .into()
}

fn not_logged_in() -> Problem {
    Refusal::new(
        ErrorType::NotOwner,
        "this is for the pod's customer: request the pod's status, and open its http_login_url in this browser",
    )
    .into()
}

fn bad_code() -> Problem {
    Refusal::new(
        ErrorType::NotOwner,
        "this link was used before, is too old, or is another pod's: request the pod's status for a new one",
    )
    .into()
}

fn too_fast(wait: u64) -> Problem {
    let message = format!("too many requests from this address; wait {wait} s");
    let problem = Problem::new(ProblemType::TooManyRequests, &message);
    problem.header(header::RETRY_AFTER, HeaderValue::from(wait))
}

fn too_many() -> Problem {
    let message = "too many requests to this pod, or from this network, are under way; try again";
    let problem = Problem::new(ProblemType::TooManyRequests, message);
    problem.header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

fn silent(http: HttpPort) -> Problem {
    let port = http.port();
    let message = format!(
        "nothing answers at port {port} of the pod: start a server there that listens on 0.0.0.0, and try again"
    );
    Refusal::new(ErrorType::BackendError, message).into()
}

fn not_opened(http: HttpPort, error: &OpenError) -> Problem {
    match error {
        OpenError::Unreachable(_) => silent(http),
        OpenError::Busy => Refusal::new(
            ErrorType::ResourceUnavailable,
            "too many connections to this pod, or to all pods, are open: close pages of it that you do not need, and try again after the time in Retry-After",
        )
        .into(),
    }
}

fn failed(pod: &PodName, http: HttpPort, error: &ForwardError) -> Problem {
    tracing::debug!(%pod, error = %error_chain(error), "an HTTP port of a pod fails");
    silent(http)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_pod_without_a_free_way_is_not_one_that_is_silent() {
        let http = HttpPort::new(8_080, HttpAccess::Public).unwrap();
        for (error, expected) in [
            (OpenError::Busy, "resource_unavailable"),
            (OpenError::new("no route"), "backend_error"),
        ] {
            let problem = not_opened(http, &error);
            assert!(format!("{problem:?}").contains(expected), "{problem:?}");
            let response = problem.into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers().get_all(header::RETRY_AFTER).iter().count(), 1);
        }
    }

    #[test]
    fn the_statuses_that_pods_choose_are_few_to_metrics() {
        let all = (100..=999).map(|status| StatusCode::from_u16(status).unwrap());
        let classes: BTreeSet<u16> = all.map(status_class).collect();
        assert_eq!(classes.len(), 9);
        assert_eq!(status_class(StatusCode::IM_A_TEAPOT), 400);
    }
}
