//! What every handler shares.

use crate::health::ReadinessCache;
use crate::limits;
use crate::qr::QrCodes;
use crate::rate_limit::RequestRates;
use crate::request_metrics::RequestMetrics;
use crate::stopping::Stopping;
use ipnet::IpNet;
use paygress_core::backend::http_auth::Nip98Verifier;
use paygress_core::backend::pod_streams::PodStreams;
use paygress_core::backend::store::MessageLog;
use paygress_core::backend::terminal::Shell;
use paygress_core::keyed_limit::KeyedLimit;
use paygress_core::live_leases::LiveLeases;
use paygress_core::model::apps_domain::AppsDomain;
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use paygress_core::orders::OrderService;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub bind: SocketAddr,
    /// The URL that customers use: `https://host[:port]`, without a slash at the end. NIP-98
    /// signatures and payment requests name it. None: `http://` and the address that is listened
    /// on.
    pub public_url: Option<String>,
    /// The service's name, for the page.
    pub name: String,
    /// What bearer tokens are derived with; see [`crate::bearer_key`].
    pub bearer_key: Secret,
    /// The operator's bearer token; none: there is no operator's view.
    pub operator_token: Option<Secret>,
    /// Addresses whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call the API; none by default.
    pub cors_origins: Vec<String>,
    /// Requests of one address a minute.
    pub requests_per_minute: u32,
}

/// What the transport needs of the other crates.
pub struct Backends {
    pub orders: Arc<OrderService>,
    pub verifier: Arc<dyn Nip98Verifier>,
    pub shell: Arc<dyn Shell>,
    /// What serves the HTTP ports of pods; none: they are not served.
    pub apps: Option<AppBackends>,
}

/// What it takes to serve the HTTP ports of pods.
pub struct AppBackends {
    /// Each pod has a name below it.
    pub domain: AppsDomain,
    pub leases: Arc<LiveLeases>,
    pub streams: Arc<dyn PodStreams>,
    /// Which codes of links were used: all replicas share it.
    pub used_codes: Arc<dyn MessageLog>,
}

pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) public_url: String,
    pub(crate) orders: Arc<OrderService>,
    pub(crate) verifier: Arc<dyn Nip98Verifier>,
    pub(crate) shell: Arc<dyn Shell>,
    pub(crate) rates: RequestRates,
    pub(crate) metrics: RequestMetrics,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) streams_of: KeyedLimit<Customer>,
    pub(crate) terminals: Arc<Semaphore>,
    pub(crate) terminals_of: KeyedLimit<Customer>,
    pub(crate) stops_of: KeyedLimit<Customer>,
    pub(crate) qr_codes: QrCodes,
    pub(crate) ready: ReadinessCache,
    pub(crate) stopping: Stopping,
}

impl App {
    pub(crate) fn new(settings: Settings, backends: Backends, address: SocketAddr) -> Self {
        Self {
            public_url: settings.public_url.clone().unwrap_or_else(|| format!("http://{address}")),
            orders: backends.orders,
            verifier: backends.verifier,
            shell: backends.shell,
            rates: RequestRates::new(settings.requests_per_minute),
            metrics: RequestMetrics::new(),
            streams: Arc::new(Semaphore::new(limits::STREAMS)),
            streams_of: KeyedLimit::default(),
            terminals: Arc::new(Semaphore::new(limits::TERMINALS)),
            terminals_of: KeyedLimit::default(),
            stops_of: KeyedLimit::default(),
            qr_codes: QrCodes::default(),
            ready: ReadinessCache::default(),
            stopping: Stopping::default(),
            settings,
        }
    }
}
