//! The proxies that the environment names, and connections through them.
//!
//! A connection through a proxy is a tunnel (`CONNECT`), for http URLs too: the proxy sees the
//! server's name and port, and nothing of what is sent in it. The proxy resolves the name, so that only
//! the rules about URLs hold there (`url.rs`, `redirect.rs`), and not those about addresses
//! (`resolver.rs`): what is reachable is for the proxy to decide, and the operator has chosen it.

use crate::address::{NotPublic, Reach};
use crate::resolver::Resolver;
use crate::tls::https_or_http;
use crate::url::{host, is_loopback, is_private};
use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower_service::Service;

/// The first that is set counts.
const HTTPS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const HTTP: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// A variable that does not name a usable proxy. Its value is not repeated: it may have a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("{0} is not the URL of a proxy: write http://host:port or https://host:port")]
    InvalidUrl(&'static str),
    #[error("{variable}: {scheme} proxies are not supported here: use one of http or https")]
    Scheme { variable: &'static str, scheme: String },
}

/// Which proxy is used for which URL.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    bypassed: Vec<Bypass>,
}

/// A proxy as it was configured, and as it is connected to.
#[derive(Clone)]
struct Proxy {
    url: Uri,
    target: Intercept,
}

/// Servers that are connected to without a proxy.
#[derive(Clone, Debug)]
struct Bypass {
    port: Option<u16>,
    hosts: Arc<Matcher>,
}

// The URL may have a password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host(&self.url))
    }
}

impl Proxies {
    /// Those of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case.
    pub fn from_env() -> Result<Self, ProxyError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`from_env`](Self::from_env), with the variables that this function returns.
    pub fn from_variables(
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ProxyError> {
        let no_proxy = first(&NO_PROXY, &variable).map(|(_, value)| value).unwrap_or_default();
        let entries = no_proxy.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        Ok(Self {
            https: Proxy::of(&HTTPS, &variable)?,
            http: Proxy::of(&HTTP, &variable)?,
            bypassed: entries.map(Bypass::parse).collect(),
        })
    }

    /// Everything for which [`from_variables`](Self::from_variables) fails, which stops at the
    /// first.
    #[must_use]
    pub fn problems(variable: impl Fn(&'static str) -> Option<String>) -> Vec<ProxyError> {
        let proxies = [&HTTPS, &HTTP].map(|names| Proxy::of(names, &variable));
        let mut problems: Vec<_> = proxies.into_iter().filter_map(Result::err).collect();
        // ALL_PROXY is of both.
        problems.dedup();
        problems
    }

    /// The proxy for a URL, as it was configured: with its user and password, if it has them.
    #[must_use]
    pub fn url_for(&self, to: &Uri) -> Option<&Uri> {
        self.proxy_for(to).map(|proxy| &proxy.url)
    }

    /// This machine is never reached through a proxy: it would be another machine there.
    fn proxy_for(&self, to: &Uri) -> Option<&Proxy> {
        let proxy = match to.scheme_str() {
            Some("https") => self.https.as_ref(),
            Some("http") => self.http.as_ref(),
            _ => None,
        }?;
        let is_direct = is_loopback(to.host()?) || self.bypassed.iter().any(|each| each.has(to));
        (!is_direct).then_some(proxy)
    }
}

/// The first of these variables that has a value.
fn first(
    names: &[&'static str],
    variable: impl Fn(&'static str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let given = |name| variable(name).filter(|value| !value.trim().is_empty());
    names.iter().find_map(|&name| Some((name, given(name)?)))
}

impl Proxy {
    /// The one that the first of these variables names.
    fn of(
        names: &[&'static str],
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyError> {
        first(names, variable).map(|(name, value)| Self::parse(name, value.trim())).transpose()
    }

    fn parse(variable: &'static str, value: &str) -> Result<Self, ProxyError> {
        let invalid = || ProxyError::InvalidUrl(variable);
        let text = match value.contains("://") {
            true => value.to_owned(),
            false => format!("http://{value}"),
        };
        let url: Uri = text.parse().map_err(|_| invalid())?;
        let scheme = url.scheme_str().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return Err(ProxyError::Scheme { variable, scheme: scheme.to_owned() });
        }
        if url.host().is_none_or(str::is_empty) {
            return Err(invalid());
        }
        let target = Matcher::builder().all(&text).build().intercept(&url).ok_or_else(invalid)?;
        Ok(Self { url, target })
    }
}

impl Bypass {
    /// An entry of `NO_PROXY`: a name (with all names below it), an address, a network or `*`, and
    /// maybe a port.
    fn parse(entry: &str) -> Self {
        let with_port = entry.rsplit_once(':').and_then(|(hosts, port)| {
            let is_plain = !hosts.contains(':') || hosts.ends_with(']');
            Some((hosts, port.parse::<u16>().ok()?)).filter(|_| is_plain)
        });
        let (hosts, port) = with_port.map_or((entry, None), |(hosts, port)| (hosts, Some(port)));
        let hosts = hosts.strip_prefix("*.").unwrap_or(hosts).trim_matches(['[', ']']);
        // It matches all that it would not send to its proxy.
        let matcher = Matcher::builder().all("http://proxy.invalid").no(hosts).build();
        Self { port, hosts: Arc::new(matcher) }
    }

    fn has(&self, to: &Uri) -> bool {
        self.port.is_none_or(|port| port == self::port(to)) && self.hosts.intercept(to).is_none()
    }
}

/// The library does not name it.
pub(crate) type TunnelError = <Tunnel<HttpsConnector<HttpConnector>> as Service<Uri>>::Error;

/// There is no tunnel through a proxy.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} cannot be used")]
pub(crate) struct ProxyFailure {
    /// Its host and port.
    pub(crate) proxy: String,
    pub(crate) source: TunnelError,
}

/// Connects to a server, or to a proxy and through it to the server. TLS with the server is the
/// caller's.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConnector {
    reach: Reach,
    tcp: HttpConnector<Resolver>,
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Arc<Proxies>,
}

/// Connections for HTTP/1.1 to what is within `reach`, or through the proxies.
pub(crate) fn connector(
    timeout: Duration,
    tls: ClientConfig,
    proxies: Arc<Proxies>,
    reach: Reach,
) -> HttpsConnector<ProxyConnector> {
    let tcp = with_timeout(HttpConnector::new_with_resolver(Resolver::new(reach)), timeout);
    // The operator has chosen it, wherever it is.
    let to_proxy = https_or_http(tls.clone(), with_timeout(HttpConnector::new(), timeout));
    https_or_http(tls, ProxyConnector { reach, tcp, to_proxy, proxies })
}

fn with_timeout<R>(mut tcp: HttpConnector<R>, timeout: Duration) -> HttpConnector<R> {
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(timeout));
    tcp.set_nodelay(true);
    tcp
}

type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for ProxyConnector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(Proxy { url, target }) = self.proxies.proxy_for(&to) else {
            // What is an address already is not resolved.
            if self.reach == Reach::Public && is_private(to.host().unwrap_or_default()) {
                let refused: Result<Connection, BoxError> = Err(NotPublic.into());
                return Box::pin(std::future::ready(refused));
            }
            let connecting = self.tcp.call(to);
            return Box::pin(async { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        let mut tunnel = Tunnel::new(target.uri().clone(), self.to_proxy.clone());
        if let Some(authorization) = target.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let (proxy, connecting) = (host(url), tunnel.call(with_port(to)));
        Box::pin(
            async move { connecting.await.map_err(|source| ProxyFailure { proxy, source }.into()) },
        )
    }
}

fn port(url: &Uri) -> u16 {
    let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
    url.port_u16().unwrap_or(default)
}

/// The URL with its port: the tunnel's default is that of https.
fn with_port(url: Uri) -> Uri {
    let authority = format!("{}:{}", url.host().unwrap_or_default(), port(&url)).parse();
    let Ok(authority) = authority else { return url };
    let mut parts = url.clone().into_parts();
    parts.authority = Some(authority);
    Uri::from_parts(parts).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect_error::classify;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(given, _)| *given == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_variables_decide_by_scheme_and_server() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")];
        let all = [("ALL_PROXY", "https://a"), ("HTTPS_PROXY", "")];
        let except = |entries| [("https_proxy", "http://s:1"), ("NO_PROXY", entries)];
        for (variables, url, expected) in [
            (&both[..], "https://mint.example/", Some("http://s:1/")),
            (&both, "http://mint.example/", Some("http://p:2/")),
            (&both, "http://localhost:3338/", None),
            (&both, "https://127.0.0.1/", None),
            (&both, "https://[::1]:5000/", None),
            (&both, "https://[fd00::1]:5000/", Some("http://s:1/")),
            (&all, "https://mint.example/", Some("https://a/")),
            (&all, "http://mint.example/", Some("https://a/")),
            (&[], "https://mint.example/", None),
            (&except("example"), "https://mint.example/", None),
            (&except(".example"), "https://mint.example/", None),
            (&except("*.example,"), "https://mint.example/", None),
            (&except("MINT.example"), "https://mint.example/", None),
            (&except("int.example"), "https://mint.example/", Some("http://s:1/")),
            (&except("a, mint.example"), "https://mint.example/", None),
            (&except("mint.example:443"), "https://mint.example/", None),
            (&except("mint.example:444"), "https://mint.example/", Some("http://s:1/")),
            (&except("10.0.0.0/8"), "https://10.1.2.3:5000/", None),
            (&except("fd00::/8"), "https://[fd00::1]:5000/", None),
            (&except("[fd00::1]:5000"), "https://[fd00::1]:5000/", None),
            (&except("fd00::1"), "https://[fd00::2]/", Some("http://s:1/")),
            (&except("*"), "https://mint.example/", None),
        ] {
            let proxies = proxies(variables).unwrap();
            let proxy = proxies.url_for(&url.parse().unwrap()).map(ToString::to_string);
            assert_eq!(proxy.as_deref(), expected, "{variables:?} {url}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_without_its_password() {
        for (value, expected) in [
            ("socks5://user:secret@s:1", "HTTPS_PROXY: socks5 proxies are not supported"),
            ("http://", "HTTPS_PROXY is not the URL of a proxy"),
            ("http://user:secret@", "HTTPS_PROXY is not the URL of a proxy"),
            ("http://a b:secret", "HTTPS_PROXY is not the URL of a proxy"),
        ] {
            let error = proxies(&[("HTTPS_PROXY", value)]).unwrap_err().to_string();
            assert!(error.starts_with(expected) && !error.contains("secret"), "{value}: {error}");
        }
        let good = proxies(&[("HTTPS_PROXY", "http://user:secret@s:1")]).unwrap();
        assert!(!format!("{good:?}").contains("secret"));
        let reported = |variables: &[(&str, &str)]| {
            let found = Proxies::problems(|name| {
                let found = variables.iter().find(|(given, _)| *given == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            found.len()
        };
        assert_eq!(reported(&[("ALL_PROXY", "socks5://s")]), 1);
        assert_eq!(reported(&[("HTTPS_PROXY", "socks5://s"), ("http_proxy", "ftp://s")]), 2);
        assert_eq!(reported(&[("HTTPS_PROXY", "http://s"), ("ALL_PROXY", "https://s")]), 0);
        // A variable that another one stands before is not used, and not an error.
        let unused = [("ALL_PROXY", "socks5://s"), ("HTTPS_PROXY", "s:1"), ("HTTP_PROXY", "s:1")];
        proxies(&unused).unwrap();
    }

    /// The system's resolver takes `127.1` for an address, as it takes a name that leads there.
    #[tokio::test]
    async fn what_leads_to_a_private_address_is_connected_to_only_if_all_is_within_reach() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for (reach, host, is_reached) in [
            (Reach::Any, "127.1", true),
            (Reach::Any, "127.0.0.1", true),
            (Reach::Public, "127.1", false),
            (Reach::Public, "127.0.0.1", false),
            (Reach::Public, "localhost", false),
        ] {
            let (tls, proxies) = (crate::tls::tls_config().unwrap(), Arc::default());
            let mut connector = connector(Duration::from_secs(5), tls, proxies, reach);
            let connected = connector.call(format!("http://{host}:{port}/").parse().unwrap()).await;
            let error = connected.err().map(|error| classify(&*error));
            match is_reached {
                true => assert!(error.is_none(), "{host}: {error:?}"),
                false => assert!(
                    matches!(error, Some(crate::ConnectError::PrivateAddress)),
                    "{host}: {error:?}"
                ),
            }
        }
    }

    #[test]
    fn a_tunnel_is_to_the_ports_of_the_url() {
        for (url, expected) in [
            ("http://a.example/x", "http://a.example:80/x"),
            ("https://a.example/", "https://a.example:443/"),
            ("https://[fd00::1]:5/", "https://[fd00::1]:5/"),
        ] {
            assert_eq!(with_port(url.parse().unwrap()).to_string(), expected);
        }
    }
}
