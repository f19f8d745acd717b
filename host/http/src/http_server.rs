//! The server, from binding to serving.

use crate::apps::AppProxy;
use crate::router::{overflow_router, router};
use crate::sites::Sites;
use crate::state::{App, Backends, Settings};
use crate::{limits, server};
use paygress_core::listen_addresses;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, or is not an address of this machine.
    #[error("the HTTP server cannot listen on {address}; set BIND_ADDR")]
    Bind { address: SocketAddr, source: std::io::Error },
    /// The same of a gateway's.
    #[error("the gateway's HTTP server cannot listen on {address}; set GATEWAY_HTTP_LISTEN")]
    BindGateway { address: SocketAddr, source: std::io::Error },
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
        let listener =
            TcpListener::bind(&listen_addresses(settings.bind)[..]).await.map_err(failed)?;
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

    /// Serves until `stop` is over, and then until the requests that are under way are answered, for some
    /// seconds at the most. Who waits for an order that takes longer gets 202 with where it goes on.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        tracing::info!(address = %self.address, url = self.app.public_url, "HTTP server started");
        let sites = Sites::new(router(&self.app), self.apps.clone());
        let overflow = overflow_router(&self.app, self.apps.as_ref().map(|apps| apps.domain()));
        let proxies = &self.app.settings.trusted_proxies;
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
        let stopping = &self.app.stopping;
        let stop = async {
            stop.await;
            stopping.begin();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = server::serve_until(&self.listener, &sites, &overflow, proxies, stopping) => {}
            () = forget => {}
            () = watch => {}
            () = stop => {}
        }
    }
}
