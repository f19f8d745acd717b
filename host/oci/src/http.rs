//! HTTP with an end to everything: how long, how much, and where to.

use crate::error::Error;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::LOCATION;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use paygress_http_client::{chain, connector};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// How long registries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, and for the head of an answer.
    pub head: Duration,
    /// For all that one call needs.
    pub whole: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), whole: Duration::from_secs(60) }
    }
}

/// The client of all registries.
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    pub(crate) patience: Timeouts,
}

impl HttpClient {
    pub(crate) fn new(patience: Timeouts) -> Result<Self, Error> {
        let connector = connector(patience.head).map_err(|error| Error::Tls(error.to_string()))?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), patience })
    }

    /// Sends a request and waits for the head of its answer. Who sends a body has the time of a
    /// whole call: it is answered when all of it is there.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let host = host_of(request.uri());
        let is_empty = hyper::body::Body::is_end_stream(request.body());
        let patience = if is_empty { self.patience.head } else { self.patience.whole };
        let answer =
            within(&host, patience, async { Ok(self.client.request(request).await) }).await?;
        answer.map_err(|error| Error::Away { host, cause: chain(&error) })
    }
}

/// Ends what takes longer.
pub(crate) async fn within<T>(
    host: &str,
    patience: Duration,
    errand: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let slow = |_| Error::Slow { host: host.to_owned(), seconds: patience.as_secs() };
    tokio::time::timeout(patience, errand).await.map_err(slow)?
}

/// Reads a body that has at most so many bytes.
pub(crate) async fn read(
    host: &str,
    body: Incoming,
    limit: usize,
    what: &str,
) -> Result<Bytes, Error> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Error::TooLarge { what: what.to_owned(), limit })
        }
        Err(error) => Err(Error::Away { host: host.to_owned(), cause: chain(&*error) }),
    }
}

/// Where an answer sends us, if it says so in a way that can be followed.
pub(crate) fn location<T>(from: &Uri, answer: &Response<T>) -> Option<Uri> {
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let is_path = location.starts_with('/') && !location.starts_with("//");
    let location = if is_path {
        format!("{}://{}{location}", from.scheme_str()?, from.authority()?)
    } else {
        location.to_owned()
    };
    location.parse().ok().filter(is_whole)
}

/// Whether it is a URL of HTTP without a user's name in it.
pub(crate) fn is_whole(uri: &Uri) -> bool {
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    is_http
        && uri.authority().is_some_and(|authority| {
            !authority.as_str().contains('@') && !authority.host().is_empty()
        })
}

/// Whether what is sent there is not overheard: it is encrypted, or stays on a machine that `from`
/// is on already.
pub(crate) fn is_private(from: &Uri, to: &Uri) -> bool {
    to.scheme_str() == Some("https")
        || (is_loopback(from.host().unwrap_or_default())
            && is_loopback(to.host().unwrap_or_default()))
}

/// Whether two URLs are of one server.
pub(crate) fn is_same_server(one: &Uri, other: &Uri) -> bool {
    let server = |uri: &Uri| {
        let port = uri
            .port_u16()
            .or_else(|| if uri.scheme_str() == Some("http") { Some(80) } else { Some(443) });
        (uri.scheme_str().map(str::to_owned), uri.host().map(str::to_ascii_lowercase), port)
    };
    server(one) == server(other)
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let six = || {
        host.strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .and_then(|address| address.parse::<Ipv6Addr>().ok())
    };
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || six().is_some_and(|address| address.is_loopback())
}

/// The host of a URL, for texts.
pub(crate) fn host_of(uri: &Uri) -> String {
    uri.authority()
        .map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

/// A text as a part of a query.
pub(crate) fn encoded(text: &str) -> String {
    let is_free = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(
            |byte| {
                if is_free(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        let private =
            |from: &str, to: &str| is_private(&from.parse().unwrap(), &to.parse().unwrap());
        assert!(private("https://a.example/", "https://b.example/"));
        assert!(private("http://127.0.0.1:1/", "http://[::1]:2/"));
        assert!(!private("https://a.example/", "http://localhost/"));
        assert!(!private("http://localhost/", "http://a.example/"));
        assert!(!private("http://localhost/", "http://localhost.example/"));
    }

    #[test]
    fn locations_are_paths_or_whole() {
        let from: Uri = "https://a.example:5000/v2/x".parse().unwrap();
        let to = |text: &str| {
            location(&from, &Response::builder().header("location", text).body(()).unwrap())
        };
        assert_eq!(to("/v2/y?z=1").unwrap(), "https://a.example:5000/v2/y?z=1");
        assert_eq!(to("https://b.example/y").unwrap(), "https://b.example/y");
        for bad in ["//b.example/y", "y", "ftp://b.example/y", "https://user:word@b.example/y", ""]
        {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
