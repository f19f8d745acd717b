//! The server, from binding to serving.

use crate::apps::AppProxy;
use crate::router::router;
use crate::sites::Sites;
use crate::state::{App, Backends, Settings};
use crate::{limits, server};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, or is not an address of this machine.
    #[error("the HTTP server cannot listen on {address}; set BIND_ADDR")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// What to listen on, the first that can be had: `[::]` is IPv4 too, and where there is no IPv6, IPv4
/// alone.
fn addresses(bind: SocketAddr) -> Vec<SocketAddr> {
    let mut addresses = vec![bind];
    if bind.is_ipv6() && bind.ip().is_unspecified() {
        addresses.push((Ipv4Addr::UNSPECIFIED, bind.port()).into());
    }
    addresses
}

/// The server: listening, and not yet serving.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    apps: Option<Arc<AppProxy>>,
}

impl HttpServer {
    /// Listens. Nobody is served yet.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bind(settings: Settings, mut backends: Backends) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address: settings.bind, source };
        let listener = TcpListener::bind(&addresses(settings.bind)[..]).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let apps = backends.apps.take();
        let app = Arc::new(App::new(settings, backends, address));
        let apps = apps.map(|backends| AppProxy::new(Arc::clone(&app), backends)).map(Arc::new);
        if let Some(apps) = &apps {
            app.orders.set_apps(apps.links());
        }
        Ok(Self { listener, address, app, apps })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        tracing::info!(address = %self.address, url = self.app.public_url, "HTTP server started");
        let sites = Sites::new(router(&self.app), self.apps.clone());
        let forget = async {
            let mut tick = tokio::time::interval(limits::FORGET_RATES);
            loop {
                tick.tick().await;
                self.app.rates.forget();
                if let Some(apps) = &self.apps {
                    apps.forget_rates();
                }
            }
        };
        let watch = async {
            match &self.apps {
                Some(apps) => apps.watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = server::serve(&self.listener, &sites, &self.app.settings.trusted_proxies) => {}
            () = forget => {}
            () = watch => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_family_is_served_where_there_is_one() {
        for (bind, expected) in [
            ("[::]:8080", &["[::]:8080", "0.0.0.0:8080"][..]),
            ("0.0.0.0:8080", &["0.0.0.0:8080"]),
            ("127.0.0.1:0", &["127.0.0.1:0"]),
            ("[::1]:0", &["[::1]:0"]),
        ] {
            let found: Vec<String> =
                addresses(bind.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{bind}");
        }
    }
}
