//! The client: a pool of connections, and a deadline for every request.

use crate::address::Reach;
use crate::connect_error::ConnectError;
use crate::error::{HttpError, Phase, SetupError};
use crate::proxy::{Proxies, ProxyConnector, connector};
use crate::redirect::{Origin, RedirectError, RedirectPolicy, check_destination, destination};
use crate::response::{Deadline, Response};
use crate::tls::tls_config;
use crate::url::{host, is_http_url, is_same_server};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, COOKIE, HeaderMap};
use hyper::http::response::Parts;
use hyper::{Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpInfo;
use hyper_util::rt::TokioExecutor;
use std::net::IpAddr;
use std::sync::Arc;
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

/// Connections that are kept.
type Pool = Client<HttpsConnector<ProxyConnector>, Full<Bytes>>;

/// An HTTP/1.1 client. Clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    /// To what the operator names.
    any: Pool,
    /// To what servers on the public internet name: no connection is both.
    public: Pool,
    proxies: Arc<Proxies>,
    timeouts: Timeouts,
}

impl HttpClient {
    /// With the proxies that the environment names.
    pub fn new(timeouts: Timeouts) -> Result<Self, SetupError> {
        Self::with_proxies(timeouts, Proxies::from_env()?)
    }

    pub fn with_proxies(timeouts: Timeouts, proxies: Proxies) -> Result<Self, SetupError> {
        let (tls, proxies) = (tls_config()?, Arc::new(proxies));
        let pool = |reach| -> Pool {
            let proxies = Arc::clone(&proxies);
            let connector = connector(timeouts.connect, tls.clone(), proxies, reach);
            Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .build(connector)
        };
        let (any, public) = (pool(Reach::Any), pool(Reach::Public));
        Ok(Self { any, public, proxies, timeouts })
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

    /// Requests what is at a URL, of this media type.
    pub async fn get(&self, url: &str, media_type: &'static str) -> Result<Response, HttpError> {
        let request = Request::get(url).header(ACCEPT, media_type).body(Bytes::new());
        self.send(request.map_err(|_| HttpError::InvalidUrl)?).await
    }

    /// As [`send`](Self::send), with other limits for this request. `connect` is the client's.
    pub async fn send_within(
        &self,
        request: Request<Bytes>,
        timeouts: Timeouts,
    ) -> Result<Response, HttpError> {
        self.exchange(Reach::Any, request, timeouts).await
    }

    /// As [`send_within`](Self::send_within), to a URL that a server's response has named: as far as
    /// a redirect of it could lead ([`RedirectPolicy`]).
    pub async fn send_from(
        &self,
        origin: &Origin,
        request: Request<Bytes>,
        timeouts: Timeouts,
    ) -> Result<Response, HttpError> {
        check_destination(&origin.url, request.uri())
            .map_err(|source| HttpError::Redirect { host: host(&origin.url), source })?;
        self.exchange(origin.reach_of(request.uri()), request, timeouts).await
    }

    async fn exchange(
        &self,
        reach: Reach,
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
        let pool = match reach {
            Reach::Any => &self.any,
            Reach::Public => &self.public,
        };
        let exchange = pool.request(request.map(Full::new));
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                let address = self.address_of(&url, &head);
                Ok(Response { origin: Origin { url, reach, address }, head, body, deadline })
            }
            Ok(Err(error)) if error.is_connect() => {
                Err(HttpError::Unreachable { host, source: ConnectError::of(error) })
            }
            Ok(Err(source)) => Err(HttpError::Disconnected { host, source: Box::new(source) }),
            Err(_) => Err(HttpError::TimedOut { host, phase: Phase::Head, limit }),
        }
    }

    /// Where a response came from, unless a proxy was between.
    fn address_of(&self, url: &Uri, head: &Parts) -> Option<IpAddr> {
        let is_direct = self.proxies.url_for(url).is_none();
        let connection = head.extensions.get::<HttpInfo>().filter(|_| is_direct)?;
        Some(connection.remote_addr().ip())
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
            let reach = response.origin.reach_of(&to);
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = to;
            *request.headers_mut() = headers.clone();
            let timeouts = Timeouts { whole: deadline.remaining(), ..self.timeouts };
            response = self.exchange(reach, request, timeouts).await?;
            response.deadline = deadline;
        }
        if response.status().is_redirection() {
            let source = RedirectError::TooManyHops { max_hops: policy.max_hops };
            return Err(HttpError::Redirect { host: host(response.url()), source });
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const FINE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";

    #[tokio::test]
    async fn a_connection_of_ours_is_not_for_what_a_public_server_names() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    while stream.read(&mut [0; 4096]).await.unwrap() > 0 {
                        stream.write_all(FINE).await.unwrap();
                    }
                });
            }
        });
        let timeouts = Timeouts::all(Duration::from_secs(5));
        let client = HttpClient::with_proxies(timeouts, Proxies::default()).unwrap();
        let get = || Request::get(&url).body(Bytes::new()).unwrap();
        let response = client.send(get()).await.unwrap();
        assert_eq!(response.origin().address, Some("127.0.0.1".parse().unwrap()));
        // The connection is kept.
        assert_eq!(response.bytes(4).await.unwrap(), "fine");
        let error = client.exchange(Reach::Public, get(), timeouts).await.unwrap_err();
        assert!(
            matches!(error, HttpError::Unreachable { source: ConnectError::PrivateAddress, .. }),
            "{error}"
        );
        let public = Origin::named("https://a.example/".parse().unwrap());
        let mut request = get();
        *request.uri_mut() = "https://127.0.0.1/".parse().unwrap();
        let error = client.send_from(&public, request, timeouts).await.unwrap_err();
        assert!(
            matches!(error, HttpError::Redirect { source: RedirectError::PrivateAddress, .. }),
            "{error}"
        );
    }
}
