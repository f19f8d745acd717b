//! The rooms, put together.

use crate::config::{Config, HttpConfig};
use crate::terminal::SshShell;
use anyhow::{Result, anyhow};
use async_trait::async_trait;
use paygress_admin::Admin;
use paygress_cashu::{CashuWallet, Seed, WalletStore};
use paygress_cluster::guard::Allowed;
use paygress_core::Cluster;
use paygress_core::backend::responder::{self, ReplyTo, Responder};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_core::orders::{Backends, OrderService, Settings};
use paygress_store::db::Database;
use paygress_http::Transport;
use paygress_store::SqlStore;
use paygress_nostr::http_auth::HttpAuth;
use paygress_nostr::{Inbox, OfferPublisher, ReplyPublisher};
use paygress_oci::{ComponentFetcher, Registry, VerificationPolicy};
use paygress_policy::{COMPONENT_BYTES, Guard, PolicyEngine, Publisher};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// All rooms, and the doors not yet open.
pub struct App {
    /// The desk.
    pub orders: Arc<OrderService>,
    /// The policies.
    pub policies: Arc<Publisher>,
    /// Where their components come from.
    pub supply: Arc<ComponentFetcher>,
    /// The book.
    pub ledger: Arc<SqlStore>,
    /// The money.
    pub wallet: Arc<CashuWallet>,
    payout: Option<(String, Sat)>,
    nostr: Option<(Inbox, OfferPublisher)>,
    http: Option<Transport>,
    admin: Admin,
}

/// The way back, by the door that an order came through.
struct ResponseRouter {
    nostr: Option<Arc<ReplyPublisher>>,
}

#[async_trait]
impl Responder for ResponseRouter {
    async fn send(&self, to: &ReplyTo, answer: &Value) -> Result<(), String> {
        match (to.door, &self.nostr) {
            (responder::Transport::Http, _) => {
                paygress_http::PolledResponder.send(to, answer).await
            }
            (responder::Transport::Nostr, Some(post)) => post.send(to, answer).await,
            (responder::Transport::Nostr, None) => {
                Err("the Nostr door is closed; RUN_MODE=both opens it".to_owned())
            }
        }
    }
}

/// Where the components are if nothing else is said: beside the program, or where packages put
/// them.
#[must_use]
pub fn default_policies() -> PathBuf {
    let program = std::env::current_exe().ok();
    let beside = program
        .as_deref()
        .and_then(Path::parent)
        .into_iter()
        .flat_map(|bin| ["plugins", "../plugins", "../../plugins"].map(|path| bin.join(path)));
    beside
        .into_iter()
        .find(|path| path.join("images.wasm").exists())
        .unwrap_or_else(|| PathBuf::from("/usr/share/paygress/plugins"))
}

/// What the cluster would say of a template: a policy that renders another one is not put in force.
#[must_use]
pub fn guard(allowed: Allowed) -> Guard {
    Box::new(move |rendered, placement| {
        paygress_cluster::guard::check(rendered, placement, &allowed).map(drop)
    })
}

fn policies(config: &Config) -> Result<Arc<Publisher>> {
    let machine =
        PolicyEngine::start(Some(&config.policy_cache))?.guarded(guard(config.allowed.clone()));
    Ok(Arc::new(Publisher::open(machine, &config.policy_state, config.policy_folder())?))
}

/// Registries of policies, and whose are taken.
///
/// # Errors
/// The credentials cannot be read.
pub fn supply(trust: VerificationPolicy, credentials: Option<&Path>) -> Result<ComponentFetcher> {
    Ok(ComponentFetcher::new(Registry::new(credentials)?, Arc::new(trust), COMPONENT_BYTES))
}

/// The book and the money: in two files, or in one Postgres that replicas share.
///
/// # Errors
/// What cannot be opened, and what to do.
pub async fn books(config: &Config, access: OpenMode) -> Result<(SqlStore, CashuWallet)> {
    let (book, wallet_store) = match (&config.database, access) {
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
        Some(mnemonic) => Seed::of(mnemonic.expose())?,
        None => Seed::at(&config.wallet.with_extension("mnemonic"))?,
    };
    let settings = paygress_cashu::Settings {
        mints: config.mints.clone(),
        max_balance: config.max_balance,
        // Whoever knows the service's npub can lock a token to it.
        lock: Some(Secret::new(config.keys.secret_key().to_secret_hex())),
    };
    Ok((book, CashuWallet::open(wallet_store, seed, &settings).await?))
}

async fn open_http(
    config: &Config,
    http: &HttpConfig,
    orders: &Arc<OrderService>,
) -> Result<Transport> {
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
        shell: Arc::new(SshShell),
    };
    Ok(Transport::bind(settings, backends).await?)
}

/// How often the folder of policies is looked at.
const FOLDER_LOOK: Duration = Duration::from_secs(1);

/// Publishes what changes in the folder, until it fails.
async fn look_at_folder(policies: Arc<Publisher>) -> anyhow::Error {
    loop {
        tokio::time::sleep(FOLDER_LOOK).await;
        let policies = Arc::clone(&policies);
        if let Err(error) = tokio::task::spawn_blocking(move || policies.look_at_folder()).await {
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
    /// Opens everything that is ours: the ledger, the wallets, the policies. Talks to nobody yet.
    /// `override_backends` may put something else into a room; tests put faults there.
    ///
    /// # Errors
    /// What cannot be opened, and what to do.
    pub async fn build(
        config: &Config,
        cluster: Arc<dyn Cluster>,
        override_backends: impl FnOnce(Backends) -> Backends,
    ) -> Result<Self> {
        let (book, wallet) = books(config, OpenMode::ReadWrite).await?;
        let (ledger, wallet) = (Arc::new(book), Arc::new(wallet));
        let policies = policies(config)?;
        let policy = Arc::clone(policies.host());
        let nostr = paygress_nostr::Settings {
            keys: config.keys.clone(),
            relays: config.relays.clone(),
            private_relays: config.private_relays,
            name: config.name.clone(),
            about: config.about.clone(),
        };
        let (nostr, post) = match config.nostr {
            true => {
                let (inbox, connection, post) = Inbox::new(nostr, ledger.clone());
                (Some((inbox, OfferPublisher::new(connection))), Some(post))
            }
            false => (None, None),
        };
        let settings = Settings {
            ssh_host: config.ssh_host.clone(),
            container_port: config.ssh_port,
            ports: config.ports.clone(),
            sweep: config.sweep,
            refund_on_stop: config.refund_on_stop,
            refund_kept: config.refund_kept,
            suggested: config.suggested,
        };
        let responder = Arc::new(ResponseRouter { nostr: post });
        let orders = OrderService::new(
            settings,
            override_backends(Backends {
                wallet: wallet.clone(),
                policy,
                cluster,
                ledger: ledger.clone(),
                responder,
            }),
        );
        let http = match &config.http {
            Some(http) => Some(open_http(config, http, &orders).await?),
            None => None,
        };
        let supply = Arc::new(supply(config.trust.clone(), config.registry_auth.as_deref())?);
        let admin = Admin::bind(&config.admin_socket, Arc::clone(&policies), Arc::clone(&supply))?;
        Ok(Self {
            orders,
            policies,
            supply,
            ledger,
            wallet,
            payout: config.payout.clone(),
            nostr,
            http,
            admin,
        })
    }

    /// Where the HTTP door listens, if there is one.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Transport::address)
    }

    /// Finishes what an earlier process began, then opens the doors; runs until the future is
    /// dropped.
    ///
    /// # Errors
    /// When the doors cannot be opened.
    pub async fn run(self) -> Result<()> {
        let digests = paygress_core::Policy::current(&**self.policies.host()).digests();
        tracing::info!(
            images = digests.images,
            pricing = digests.pricing,
            duration = digests.duration,
            pod_template = digests.pod_template,
            "policies loaded"
        );
        self.orders.resume().await?;
        let watch = Arc::clone(&self.orders).watch();
        let admin = self.admin.run();
        let folder = look_at_folder(Arc::clone(&self.policies));
        let (orders, nostr) = (Arc::clone(&self.orders), self.nostr);
        let nostr = async move {
            let Some((inbox, shop)) = nostr else { return std::future::pending().await };
            tokio::select! {
                () = shop.run(Arc::clone(&orders)) => Err(anyhow!("the shop closed")),
                ended = inbox.run(Arc::clone(&orders)) => Ok(ended?),
            }
        };
        let http = async {
            match self.http {
                Some(door) => door.run().await,
                None => std::future::pending().await,
            }
        };
        let wallet = Arc::clone(&self.wallet);
        let payouts = async {
            match self.payout {
                Some((address, above)) => wallet.keep_paying_out(&address, above).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watch => Err(anyhow!("the cluster's watch ended")),
            ended = folder => Err(ended),
            () = admin => Err(anyhow!("the admin socket closed")),
            () = payouts => Err(anyhow!("the payouts ended")),
            () = http => Err(anyhow!("the HTTP door closed")),
            ended = nostr => ended,
        }
    }
}
