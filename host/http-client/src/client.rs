//! The client: a pool of connections, and a deadline for every request.

use crate::connect_error::ConnectError;
use crate::error::{HttpError, Phase, SetupError};
use crate::proxy::{Proxies, ProxyConnector, connector};
use crate::redirect::{RedirectError, RedirectPolicy, destination};
use crate::response::{Deadline, Response};
use crate::url::{host, is_http_url, is_same_server};
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// Connections without a request that are kept to one server.
const MAX_IDLE_PER_HOST: usize = 8;

/// How long a server may take. Each limit is also bounded by `whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// For status and headers, connecting included, of a request without a body. A request with a
    /// body has `whole`: servers answer when they have read all of it.
    pub head: Duration,
    /// For everything, from the request to the last byte of the response.
    pub whole: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), head: seconds(10), whole: seconds(60) }
    }
}

impl Timeouts {
    /// The same limit for everything.
    #[must_use]
    pub fn all(limit: Duration) -> Self {
        Self { connect: limit, head: limit, whole: limit }
    }
}

/// An HTTP/1.1 client. Clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<ProxyConnector>, Full<Bytes>>,
    timeouts: Timeouts,
}

impl HttpClient {
    /// With the proxies that the environment names.
    pub fn new(timeouts: Timeouts) -> Result<Self, SetupError> {
        Self::with_proxies(timeouts, Proxies::from_env()?)
    }

    pub fn with_proxies(timeouts: Timeouts, proxies: Proxies) -> Result<Self, SetupError> {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build(connector(timeouts.connect, proxies)?);
        Ok(Self { client, timeouts })
    }

    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Sends a request and waits for status and headers. A redirect is returned, not followed; an
    /// error status is a response, not an error.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response, HttpError> {
        self.send_within(request, self.timeouts).await
    }

    /// As [`send`](Self::send), with other limits for this request. `connect` is the client's.
    pub async fn send_within(
        &self,
        request: Request<Bytes>,
        timeouts: Timeouts,
    ) -> Result<Response, HttpError> {
        let url = request.uri().clone();
        if !is_http_url(&url) {
            return Err(HttpError::InvalidUrl);
        }
        let host = host(&url);
        let deadline = Deadline::after(timeouts.whole);
        let limit = if request.body().is_empty() {
            timeouts.head.min(timeouts.whole)
        } else {
            timeouts.whole
        };
        let exchange = self.client.request(request.map(Full::new));
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                Ok(Response { url, head, body, deadline })
            }
            Ok(Err(error)) if error.is_connect() => {
                Err(HttpError::Unreachable { host, source: ConnectError::of(error) })
            }
            Ok(Err(source)) => Err(HttpError::Disconnected { host, source: Box::new(source) }),
            Err(_) => Err(HttpError::TimedOut { host, phase: Phase::Head, limit }),
        }
    }

    /// Follows the redirects of a GET, if `response` is one, as far as `policy` allows. `headers`
    /// are sent at each hop; credentials among them go no further than the server that redirected.
    /// All hops together have the time that is left to `response`.
    pub async fn follow(
        &self,
        mut response: Response,
        mut headers: HeaderMap,
        policy: RedirectPolicy,
    ) -> Result<Response, HttpError> {
        let deadline = response.deadline;
        for _ in 0..policy.max_hops {
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let refused = |source| HttpError::Redirect { host: host(response.url()), source };
            let to = destination(response.url(), response.headers()).map_err(refused)?;
            if !is_same_server(response.url(), &to) {
                headers.remove(AUTHORIZATION);
                headers.remove(COOKIE);
            }
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = to;
            *request.headers_mut() = headers.clone();
            let timeouts = Timeouts { whole: deadline.remaining(), ..self.timeouts };
            response = self.send_within(request, timeouts).await?;
            response.deadline = deadline;
        }
        if response.status().is_redirection() {
            let source = RedirectError::TooManyHops { max_hops: policy.max_hops };
            return Err(HttpError::Redirect { host: host(response.url()), source });
        }
        Ok(response)
    }
}
