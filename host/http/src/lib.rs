//! `paygress-http`: a door. The same desk as behind Nostr, for who has a browser or `curl`.
//!
//! ```text
//! socket ─▶ server.rs ─▶ gate.rs ─▶ asked.rs ─▶ orders.rs ─▶ desk.submit
//!   connections,   rate per address,  who asks (identity.rs),    │     ▲
//!   timeouts       headers, metrics   what pays (payment.rs)     ▼     │ pods.rs, events.rs, terminal.rs
//!                                                     problem.rs: RFC 9457
//! ```
//!
//! - `server.rs`: the socket: how many connections, how slow they may be.
//! - `keyed_limit.rs`: how many of something each one has.
//! - `middleware.rs`: what every request passes: rate limits, security headers, CORS, counting.
//! - `extract.rs`: a request with its body, its customer and its token; `identity.rs`: bearer
//!   tokens and NIP-98.
//! - `orders.rs`: buying; `payment.rs`: payment requests (NUT-18, NUT-24) and `/auth`.
//! - `pods.rs`: looking and stopping; `events.rs`: progress; `terminal.rs`: a shell in the browser.
//! - `operator.rs`, `metrics.rs`: the operator's view.
//! - `openapi.rs`: OpenAPI; `assets.rs`: the page, whose files are in `../web`.
//!
//! No rule about orders is here: the desk has them all. This is the only room that knows axum.

mod assets;
mod events;
mod extract;
mod identity;
mod keyed_limit;
mod limits;
mod metrics;
mod middleware;
mod openapi;
mod operator;
mod orders;
mod payment;
mod pods;
mod problem;
mod server;
mod terminal;

pub use identity::bearer_key;
pub use ipnet::IpNet;
pub use openapi::openapi;

use async_trait::async_trait;
use axum::Router;
use keyed_limit::KeyedLimit;
use metrics::Metrics;
use middleware::Rates;
use paygress_core::backend::http_auth::Nip98Verifier;
use paygress_core::backend::responder::{ReplyTo, Responder};
use paygress_core::backend::terminal::Shell;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Customer;
use paygress_core::orders::OrderService;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub bind: SocketAddr,
    /// What the world calls us: `https://host[:port]`, without a slash at the end. NIP-98
    /// signatures and payment requests name it. None: `http://` and the address that is listened
    /// on.
    pub public_url: Option<String>,
    /// The service's name, for the page.
    pub name: String,
    /// What bearer tokens are derived with; see [`bearer_key`].
    pub bearer_key: Secret,
    /// What the operator shows; none: there is no operator's view.
    pub operator_token: Option<Secret>,
    /// Addresses whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call us; none by default.
    pub cors_origins: Vec<String>,
    /// Requests of one address a minute.
    pub requests_per_minute: u32,
}

/// The rooms that the door leads to.
pub struct Backends {
    /// The desk.
    pub orders: Arc<OrderService>,
    /// Who reads signatures.
    pub verifier: Arc<dyn Nip98Verifier>,
    /// Who opens terminals.
    pub shell: Arc<dyn Shell>,
}

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not ours.
    #[error("the HTTP door cannot listen on {0}: {1}; set BIND_ADDR")]
    Bind(SocketAddr, std::io::Error),
}

/// What every handler sees.
pub(crate) struct App {
    settings: Settings,
    public_url: String,
    orders: Arc<OrderService>,
    verifier: Arc<dyn Nip98Verifier>,
    shell: Arc<dyn Shell>,
    rates: Rates,
    metrics: Metrics,
    streams: Arc<Semaphore>,
    streams_of: KeyedLimit<Customer>,
    terminals: Arc<Semaphore>,
    terminals_of: KeyedLimit<Customer>,
    stops_of: KeyedLimit<Customer>,
    ready: Mutex<Option<(Instant, Vec<&'static str>)>>,
}

/// The door: listening, and not yet open.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

impl HttpServer {
    /// Listens. Nobody is served yet.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bind(settings: Settings, backends: Backends) -> Result<Self, Error> {
        let failed = |error| Error::Bind(settings.bind, error);
        let listener = TcpListener::bind(settings.bind).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = App {
            public_url: settings.public_url.clone().unwrap_or_else(|| format!("http://{address}")),
            orders: backends.orders,
            verifier: backends.verifier,
            shell: backends.shell,
            rates: Rates::new(settings.requests_per_minute),
            metrics: Metrics::new(),
            streams: Arc::new(Semaphore::new(limits::STREAMS)),
            streams_of: KeyedLimit::default(),
            terminals: Arc::new(Semaphore::new(limits::TERMINALS)),
            terminals_of: KeyedLimit::default(),
            stops_of: KeyedLimit::default(),
            ready: Mutex::default(),
            settings,
        };
        Ok(Self { listener, address, app: Arc::new(app) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        tracing::info!(address = %self.address, url = self.app.public_url, "HTTP door open");
        let router = router(&self.app);
        let forget = async {
            let mut tick = tokio::time::interval(limits::FORGET_RATES);
            loop {
                tick.tick().await;
                self.app.rates.forget();
            }
        };
        tokio::select! {
            () = server::serve(&self.listener, &router, &self.app.settings.trusted_proxies) => {}
            () = forget => {}
        }
    }
}

fn router(app: &Arc<App>) -> Router {
    let (api, _) = openapi::api().split_for_parts();
    middleware::layer(api.merge(assets::routes()), app).with_state(Arc::clone(app))
}

/// The way back of orders that came over HTTP: their answers wait in the ledger until they are
/// fetched.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolledResponder;

#[async_trait]
impl Responder for PolledResponder {
    async fn send(&self, _: &ReplyTo, _: &Value) -> Result<(), String> {
        Ok(())
    }
}
