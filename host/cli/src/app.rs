//! The service: the backends, the order service and the transports, wired together.

use crate::compiler::compiler;
use crate::config::{Config, GatewayProcess, HttpConfig, Payout};
use crate::gateway::{self, OpenGateway};
use crate::terminal::SshShell;
use anyhow::{Context, Result, anyhow, bail, ensure};
use async_trait::async_trait;
use paygress_admin::AdminServer;
use paygress_cashu::{CashuWallet, Seed, WalletStore};
use paygress_cluster::guard::Allowed;
use paygress_core::Cluster;
use paygress_core::backend::pod_streams::PodStreams;
use paygress_core::backend::responder::{PodReply, ReplyTo, Responder, SendError};
use paygress_core::live_leases::LiveLeases;
use paygress_core::model::secret::Secret;
use paygress_core::orders::{Backends, OrderService, Settings};
use paygress_core::protocol::{PodAccessDetails, Response};
use paygress_http::{AppBackends, HttpServer};
use paygress_nostr::http_auth::HttpAuth;
use paygress_nostr::{Inbox, OfferPublisher, ReplyPublisher, ServiceReceipts};
use paygress_oci::{ComponentFetcher, Registry, RegistryOptions, VerificationPolicy};
use paygress_policy::{COMPONENT_BYTES, PolicyEngine, Publisher, TemplateGuard};
use paygress_sshd::is_set;
use paygress_store::SqlStore;
use paygress_store::db::Database;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Everything opened, and nothing served yet.
pub struct App {
    pub orders: Arc<OrderService>,
    pub policies: Arc<Publisher>,
    /// Fetches components from registries.
    pub fetcher: Arc<ComponentFetcher>,
    pub ledger: Arc<SqlStore>,
    pub wallet: Arc<CashuWallet>,
    payout: Option<Payout>,
    nostr: Option<(Inbox, OfferPublisher)>,
    http: Option<HttpServer>,
    gateway: Option<OpenGateway>,
    admin: AdminServer,
}

/// Sends a response through the transport that the order came through.
struct ResponseRouter {
    nostr: Option<Arc<ReplyPublisher>>,
    /// Whether pods write to customers of Nostr by themselves.
    reply_from_pod: bool,
}

#[async_trait]
impl Responder for ResponseRouter {
    async fn send(&self, to: &ReplyTo, response: &Response) -> Result<(), SendError> {
        match (to.transport.as_str(), &self.nostr) {
            (paygress_http::TRANSPORT, _) => {
                paygress_http::PolledResponder.send(to, response).await
            }
            (paygress_nostr::TRANSPORT, Some(replies)) => replies.send(to, response).await,
            (paygress_nostr::TRANSPORT, None) => {
                Err(SendError::recipient("the Nostr transport is off; set RUN_MODE=both"))
            }
            (other, _) => Err(SendError::recipient(format!("no transport has the name {other}"))),
        }
    }

    async fn pod_reply(&self, to: &ReplyTo, details: PodAccessDetails) -> Option<PodReply> {
        let replies = self.nostr.as_ref().filter(|_| self.reply_from_pod)?;
        match to.transport.as_str() {
            paygress_nostr::TRANSPORT => replies.pod_reply(to, details).await,
            _ => None,
        }
    }
}

/// Of a service that takes no orders.
pub(crate) fn no_responder() -> Arc<dyn Responder> {
    Arc::new(ResponseRouter { nostr: None, reply_from_pod: false })
}

/// The template guard: a policy whose template it rejects is not activated.
#[must_use]
pub fn guard(allowed: Allowed) -> TemplateGuard {
    Box::new(move |rendered, placement| {
        paygress_cluster::guard::check(rendered, placement, &allowed).map(drop).map_err(Into::into)
    })
}

/// Compiles and activates the policies, which takes seconds.
async fn policies(config: &Config) -> Result<Arc<Publisher>> {
    open_policies(config, Some(config.policy_cache.clone()), config.policy_state.clone()).await
}

/// The same with what was compiled, and what was active, elsewhere. `state` is held until all are
/// compiled, also if nobody waits for it any more.
pub(crate) async fn open_policies(
    config: &Config,
    cache: Option<PathBuf>,
    state: impl AsRef<Path> + Send + 'static,
) -> Result<Arc<Publisher>> {
    let (guard, directory) = (guard(config.allowed.clone()), config.policy_dir());
    let access = config.access.modes().clone();
    let open = move || {
        let engine = PolicyEngine::start(cache.as_deref())?
            .with_compiler(compiler())
            .with_snapshots()
            .with_access(access)
            .with_template_guard(guard);
        Ok(Arc::new(Publisher::open(engine, state.as_ref(), directory)?))
    };
    tokio::task::spawn_blocking(open).await?
}

/// Fetches components from registries and verifies their signatures.
///
/// # Errors
/// The credentials cannot be read.
pub async fn fetcher(
    verification: VerificationPolicy,
    registries: &RegistryOptions,
) -> Result<ComponentFetcher> {
    let registry = Registry::open(registries.clone()).await?;
    Ok(ComponentFetcher::new(registry, Arc::new(verification), COMPONENT_BYTES))
}

/// Opens ledger and wallet: two files, or one Postgres that replicas share.
///
/// # Errors
/// What cannot be opened, and what to do.
pub async fn open_stores(config: &Config, mode: OpenMode) -> Result<(SqlStore, CashuWallet)> {
    let (ledger, wallet_store) = match (&config.database, mode) {
        (Some(url), _) => {
            let database =
                Database::postgres(url, &[SqlStore::SCHEMA, WalletStore::SCHEMA]).await?;
            (SqlStore::new(database.clone()), WalletStore::new(database))
        }
        (None, OpenMode::ReadWrite) => {
            (SqlStore::sqlite(&config.ledger).await?, WalletStore::sqlite(&config.wallet).await?)
        }
        // The service may be running.
        (None, OpenMode::ReadOnly) => (
            SqlStore::new(Database::sqlite_read_only(&config.ledger, SqlStore::SCHEMA).await?),
            WalletStore::sqlite(&config.wallet).await?,
        ),
    };
    let seed = match &config.mnemonic {
        Some(mnemonic) => Seed::from_mnemonic(mnemonic.expose())?,
        None => Seed::load_or_create(&config.wallet.with_extension("mnemonic")).await?,
    };
    let settings = paygress_cashu::Settings {
        mints: config.mints.clone(),
        max_balance: config.max_balance,
        // The public half is the service's npub: customers know it.
        p2pk_secret_key: Some(Secret::new(config.keys.secret_key().to_secret_hex())),
    };
    Ok((ledger, CashuWallet::open(wallet_store, seed, &settings).await?))
}

/// The Nostr transport, if it is on, and the way back to its customers.
fn open_nostr(
    config: &Config,
    ledger: &Arc<SqlStore>,
) -> Option<((Inbox, OfferPublisher), Arc<ReplyPublisher>)> {
    let settings = paygress_nostr::Settings {
        keys: config.keys.clone(),
        relays: config.relays.clone(),
        private_relays: config.private_relays,
        name: config.name.clone(),
        about: config.about.clone(),
    };
    config.nostr.then(|| {
        let (inbox, connection, replies) = Inbox::new(settings, ledger.clone());
        ((inbox, OfferPublisher::new(connection, ledger.clone())), replies)
    })
}

pub(crate) fn order_settings(config: &Config) -> Settings {
    Settings {
        ssh_host: config.ssh_host.clone(),
        container_port: config.ssh_port,
        access: config.access.clone(),
        sweep: config.sweep,
        refund_on_stop: config.refund_on_stop,
        refund_fees: config.refund_fees,
        refund_kept: config.refund_kept,
        capture: config.capture,
        suggested: config.suggested,
        end_notices: config.end_notices.clone(),
    }
}

/// What serves the HTTP ports of pods, if they are to be served.
fn app_backends(
    http: &HttpConfig,
    ledger: &Arc<SqlStore>,
    streams: Option<&Arc<dyn PodStreams>>,
) -> Result<Option<AppBackends>> {
    let Some(domain) = http.apps_domain.clone() else { return Ok(None) };
    let streams = streams.context("APPS_DOMAIN: there is no way to the pods of this cluster")?;
    Ok(Some(AppBackends {
        domain,
        leases: Arc::new(LiveLeases::new(ledger.clone())),
        streams: Arc::clone(streams),
        used_codes: ledger.clone(),
    }))
}

async fn open_http(
    config: &Config,
    http: &HttpConfig,
    orders: &Arc<OrderService>,
    apps: Option<AppBackends>,
) -> Result<HttpServer> {
    let settings = paygress_http::Settings {
        bind: http.bind,
        public_url: http.public_url.clone(),
        name: config.name.clone(),
        bearer_key: paygress_http::bearer_key(&Secret::new(
            config.keys.secret_key().to_secret_hex(),
        )),
        operator_token: http.operator_token.clone(),
        trusted_proxies: http.trusted_proxies.clone(),
        cors_origins: http.cors_origins.clone(),
        requests_per_minute: http.requests_per_minute,
    };
    let backends = paygress_http::Backends {
        orders: Arc::clone(orders),
        verifier: Arc::new(HttpAuth),
        shell: Arc::new(SshShell { needs_host_keys: config.ssh_server_image.is_some() }),
        apps,
    };
    Ok(HttpServer::bind(settings, backends).await?)
}

async fn open_admin(
    config: &Config,
    policies: &Arc<Publisher>,
    orders: &Arc<OrderService>,
    fetcher: &Arc<ComponentFetcher>,
) -> Result<AdminServer> {
    let (policies, orders, fetcher) =
        (Arc::clone(policies), Arc::clone(orders), Arc::clone(fetcher));
    Ok(AdminServer::bind(config.admin_socket.clone(), policies, orders, fetcher).await?)
}

/// The gateway, if it is on and this process is to serve it. Answers name it in any case.
async fn open_gateway(
    config: &Config,
    orders: &OrderService,
    ledger: &Arc<SqlStore>,
    streams: Option<Arc<dyn PodStreams>>,
) -> Result<Option<OpenGateway>> {
    let Some(settings) = &config.gateway else { return Ok(None) };
    if settings.process == GatewayProcess::Own {
        orders.set_gateway(gateway::of_other_process(config, settings).await?);
        return Ok(None);
    }
    let streams = streams.context("the gateway has no way to the pods of this cluster")?;
    let opened = OpenGateway::open(config, settings, ledger.clone(), streams).await?;
    orders.set_gateway(opened.info());
    Ok(Some(opened))
}

/// Serves the gateway, if there is one, until `stop` is `true`, and until its clients know of it.
async fn serve_gateway(
    gateway: Option<OpenGateway>,
    ends: watch::Receiver<()>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    match gateway {
        Some(gateway) => gateway.serve(Some(ends), stop.clone()).await,
        None => is_set(&mut stop).await,
    }
    ended(&stop, "the gateway")
}

/// That a part of the service ended is an error, unless the service is being stopped.
fn ended(stop: &watch::Receiver<bool>, part: &str) -> Result<()> {
    let is_stopped = *stop.borrow() || stop.has_changed().is_err();
    ensure!(is_stopped, "{part} ended");
    Ok(())
}

/// Serves both transports until `stop` is `true`, and until requests that are under way are answered.
async fn serve_transports(
    orders: Arc<OrderService>,
    nostr: Option<(Inbox, OfferPublisher)>,
    http: Option<HttpServer>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let (mut stops_nostr, mut stops_http) = (stop.clone(), stop.clone());
    let nostr = async {
        let stopped = is_set(&mut stops_nostr);
        match nostr {
            Some((inbox, offers)) => tokio::select! {
                () = offers.run(Arc::clone(&orders)) => bail!("publishing offers ended"),
                ended = inbox.run_until(Arc::clone(&orders), stopped) => ended?,
            },
            None => stopped.await,
        }
        ended(&stop, "the inbox")
    };
    let http = async {
        let stopped = is_set(&mut stops_http);
        match http {
            Some(server) => server.run_until(stopped).await,
            None => stopped.await,
        }
        ended(&stop, "the HTTP server")
    };
    tokio::try_join!(nostr, http).map(drop)
}

/// How often the directory of policies is polled.
const POLICY_DIR_POLL: Duration = Duration::from_secs(1);

/// Publishes what changes in the directory, until it fails.
async fn poll_policy_dir(policies: Arc<Publisher>) -> anyhow::Error {
    loop {
        tokio::time::sleep(POLICY_DIR_POLL).await;
        let policies = Arc::clone(&policies);
        if let Err(error) = tokio::task::spawn_blocking(move || policies.poll_policy_dir()).await {
            return error.into();
        }
    }
}

/// How the stores are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// By the service, alone.
    ReadWrite,
    /// By a command, beside the service.
    ReadOnly,
}

impl App {
    /// Opens ledger, wallet and policies. Makes no request yet. `override_backends` may replace
    /// backends; tests inject faults there.
    ///
    /// # Errors
    /// What cannot be opened, and what to do.
    pub async fn build(
        config: &Config,
        cluster: impl Into<Cluster>,
        override_backends: impl FnOnce(Backends) -> Backends,
    ) -> Result<Self> {
        let (ledger, wallet) = open_stores(config, OpenMode::ReadWrite).await?;
        let (ledger, wallet) = (Arc::new(ledger), Arc::new(wallet));
        let policies = policies(config).await?;
        let policy = Arc::clone(policies.host());
        let (nostr, replies) = open_nostr(config, &ledger).unzip();
        let responder =
            Arc::new(ResponseRouter { nostr: replies, reply_from_pod: config.reply_from_pod });
        let cluster: Cluster = cluster.into();
        let streams = cluster.features.pod_streams();
        let orders = OrderService::new(
            order_settings(config),
            override_backends(Backends {
                wallet: wallet.clone(),
                policy,
                cluster,
                ledger: ledger.clone(),
                responder,
            }),
        );
        if config.receipts {
            orders.set_receipts(Arc::new(ServiceReceipts::new(config.keys.clone())));
        }
        let http = match &config.http {
            Some(http) => {
                let apps = app_backends(http, &ledger, streams.as_ref())?;
                Some(open_http(config, http, &orders, apps).await?)
            }
            None => None,
        };
        let gateway = open_gateway(config, &orders, &ledger, streams).await?;
        let fetcher = Arc::new(fetcher(config.verification.clone(), &config.registries).await?);
        let admin = open_admin(config, &policies, &orders, &fetcher).await?;
        Ok(Self {
            orders,
            policies,
            fetcher,
            ledger,
            wallet,
            payout: config.payout.clone(),
            nostr,
            http,
            gateway,
            admin,
        })
    }

    /// The address of the HTTP server, if there is one.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::address)
    }

    /// Finishes what an earlier process began, then serves until the future is dropped.
    ///
    /// # Errors
    /// When a transport cannot be served.
    pub async fn run(self) -> Result<()> {
        // Held until then.
        let (_stop, stopped) = watch::channel(false);
        Box::pin(self.run_until(stopped)).await
    }

    /// The same until `stop` is `true` or its sender is dropped. Then new connections of HTTP are
    /// refused, requests that are under way are answered, the clients of the gateway learn why their
    /// sessions end, and within 20 seconds nothing is left.
    ///
    /// # Errors
    /// When a transport cannot be served.
    pub async fn run_until(mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let digests = paygress_core::Policy::current(&**self.policies.host()).digests();
        tracing::info!(
            images = digests.images.as_str(),
            pricing = digests.pricing.as_str(),
            duration = digests.duration.as_str(),
            pod_template = digests.pod_template.as_str(),
            "policies loaded"
        );
        tokio::select! {
            () = is_set(&mut stop) => return Ok(()),
            resumed = self.orders.resume() => resumed?,
        }
        let gateway = serve_gateway(self.gateway.take(), self.orders.lease_ends(), stop.clone());
        tokio::try_join!(gateway, Box::pin(self.serve_orders(stop))).map(drop)
    }

    /// Serves everything but the gateway, until `stop` as in [`App::run_until`], and until requests over
    /// HTTP are answered: what they wait for goes on meanwhile.
    async fn serve_orders(self, stop: watch::Receiver<bool>) -> Result<()> {
        let watch = Arc::clone(&self.orders).watch();
        let admin = self.admin.run();
        let policy_dir = poll_policy_dir(Arc::clone(&self.policies));
        let transports = serve_transports(Arc::clone(&self.orders), self.nostr, self.http, stop);
        let (wallet, ledger) = (Arc::clone(&self.wallet), Arc::clone(&self.ledger));
        let payouts = async {
            match self.payout {
                Some(Payout { address, above }) => {
                    wallet.run_payout_loop(&*ledger, &address, above).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watch => Err(anyhow!("watching the cluster ended")),
            ended = policy_dir => Err(ended),
            () = admin => Err(anyhow!("the admin socket closed")),
            () = payouts => Err(anyhow!("the payouts ended")),
            ended = transports => ended,
        }
    }
}
