//! The HTTP server.

use super::reader::Reader;
use paygress_core::model::apps_domain::AppsDomain;
use paygress_core::model::secret::Secret;
use paygress_http::IpNet;
use paygress_http_client::is_http_url;
use std::net::{IpAddr, SocketAddr};

/// A shorter token can be guessed.
const OPERATOR_CHARS: usize = 24;

/// The HTTP server.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The address that it listens on.
    pub bind: SocketAddr,
    pub public_url: Option<String>,
    pub operator_token: Option<Secret>,
    /// Whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Whose pages may call it.
    pub cors_origins: Vec<String>,
    /// Requests of one address.
    pub requests_per_minute: u32,
    /// Below which pods have names for their HTTP ports; none: these are not served.
    pub apps_domain: Option<AppsDomain>,
}

impl HttpConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let requests = reader.number("REQUESTS_PER_MINUTE", 1..=1_000_000);
        let public_url = reader.public_url();
        Self {
            bind: reader.bind_address(),
            apps_domain: reader.apps_domain(public_url.as_deref()),
            public_url,
            operator_token: reader.operator_token(),
            trusted_proxies: reader.trusted_proxies(),
            cors_origins: reader.cors_origins(),
            requests_per_minute: requests
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(1),
        }
    }
}

/// The host, and the port if there is one, of an HTTP URL that has nothing else.
fn host(url: &str) -> Option<&str> {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let is_whole = !host.contains(['/', '?', '#', '@', ' ', '*']);
    (is_whole && url.parse().is_ok_and(|url| is_http_url(&url))).then_some(host)
}

impl Reader {
    fn bind_address(&mut self) -> SocketAddr {
        self.text_or_default("BIND_ADDR").parse().unwrap_or_else(|_| {
            self.problem("BIND_ADDR: must be address:port, [::]:8080 for instance");
            SocketAddr::from(([127, 0, 0, 1], 8080))
        })
    }

    fn public_url(&mut self) -> Option<String> {
        let url = self.text("PUBLIC_URL")?.trim_end_matches('/').to_owned();
        if host(&url).is_none() {
            self.problem("PUBLIC_URL: must be https://host[:port], without a path");
        }
        Some(url)
    }

    fn apps_domain(&mut self, public_url: Option<&str>) -> Option<AppsDomain> {
        let text = self.text("APPS_DOMAIN")?;
        let Ok(domain) = AppsDomain::parse(&text) else {
            self.problem("APPS_DOMAIN: must be a name such as apps.example.com, without *. and without a port");
            return None;
        };
        // Pods would be where the service's own page is.
        if public_url.and_then(host).is_some_and(|host| domain.contains(host)) {
            self.problem(
                "APPS_DOMAIN: must not be the host of PUBLIC_URL, nor a domain that it is in",
            );
        }
        Some(domain)
    }

    fn operator_token(&mut self) -> Option<Secret> {
        let token = self.text("OPERATOR_TOKEN").map(Secret::new)?;
        if token.expose().len() < OPERATOR_CHARS {
            self.problem(format!(
                "OPERATOR_TOKEN: must have {OPERATOR_CHARS} characters at least; make one with `openssl rand -hex 32`"
            ));
        }
        Some(token)
    }

    fn trusted_proxies(&mut self) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for text in self.names("TRUSTED_PROXIES") {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            match text.parse::<IpNet>().or_else(|_| address()) {
                Ok(network) => networks.push(network),
                Err(_) => self.problem(format!(
                    "TRUSTED_PROXIES: {text} is neither an address nor a network; write 10.0.0.0/8"
                )),
            }
        }
        networks
    }

    fn cors_origins(&mut self) -> Vec<String> {
        let origins = self.names("CORS_ORIGINS");
        for origin in &origins {
            if host(origin).is_none() {
                self.problem(format!(
                    "CORS_ORIGINS: {origin} is no origin; write https://host[:port]"
                ));
            }
        }
        origins
    }
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn urls_of_servers_have_a_host_and_nothing_else() {
        for good in ["a.example", "127.0.0.1:8080", "[2001:db8::1]"] {
            assert_eq!(host(&format!("https://{good}")), Some(good));
            assert_eq!(host(&format!("http://{good}")), Some(good));
        }
        for bad in [
            "a.example",
            "https://",
            "https://:443",
            "https://a.example/",
            "https://a.example?x",
            "https://user@a.example",
            "https://*.example",
            "https://127.1",
            "https://a.example:99999",
        ] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }
}
