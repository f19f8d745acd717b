//! `paygress serve` and `paygress gateway`.

use crate::app::App;
use crate::config::{self, Config, GatewayProcess, Reader, UnknownVariable, part};
use crate::gateway::StandaloneGateway;
use crate::open_files;
use anyhow::{Context, Result, anyhow, ensure};
use paygress_cluster::{Kubernetes, PodRoot, Settings};
use paygress_core::backend::cluster::{CapacitySource, ClusterHealth};
use paygress_core::model::secret::Secret;
use paygress_pod_nostr::{NostrContact, ServiceContact};
use paygress_policy_controller::{Controller, PolicyReconciler};
use paygress_store::SqlStore;
use paygress_store::db::Database;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// The configuration in this file and the environment.
///
/// # Errors
/// Everything that is wrong with it.
pub fn configured(file: Option<&Path>) -> Result<Config> {
    Ok(Config::read(text(file)?.as_deref(), std::env::vars())?)
}

/// The variables of the environment that look like settings, and are none.
#[must_use]
pub fn unknown_variables() -> Vec<UnknownVariable> {
    config::unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// The part of the configuration that a command needs.
pub(crate) fn configured_in_part<T>(
    file: Option<&Path>,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<T> {
    Ok(part(text(file)?.as_deref(), std::env::vars(), read)?)
}

fn text(file: Option<&Path>) -> Result<Option<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .with_context(|| format!("the config file {} cannot be read", path.display()))
    };
    file.map(read).transpose()
}

/// How long the start may be delayed by a slow registry.
const FIRST_RECONCILIATION: Duration = Duration::from_secs(30);

/// What pods know of the service: what its offers say too.
fn contact(config: &Config, key: &paygress_nostr::PublicKey) -> ServiceContact {
    let nostr = config.nostr.then(|| NostrContact {
        npub: paygress_nostr::npub(key),
        relays: config.relays.iter().map(ToString::to_string).collect(),
    });
    ServiceContact { nostr, url: config.http.as_ref().and_then(|http| http.public_url.clone()) }
}

pub(crate) fn cluster_settings(config: &Config, key: &paygress_nostr::PublicKey) -> Settings {
    // A label's value, short and this key's own.
    let instance = key.to_hex().chars().take(16).collect();
    Settings {
        namespace: config.namespace.clone(),
        instance,
        ready_within: config.ready_within,
        ttl: config.ttl,
        allowed: config.allowed.clone(),
        extra_capacity: config.extra_capacity.clone(),
        ssh_server_image: config.ssh_server_image.clone(),
        ssh_server_volume: config.ssh_server_volume,
        host_key_seed: Secret::new(config.keys.secret_key().to_secret_hex()),
        contact: Some(contact(config, key)),
        root: config.root,
        run_image: config.run_image,
        probe: config.probe,
        reply_from_pod: config.reply_from_pod,
        ssh_host_from: config.ssh_host_from,
        node_lost_after: config.node_lost_after,
        route: config.route,
        access: config.access.modes().clone(),
    }
}

async fn connect(config: &Config, key: &paygress_nostr::PublicKey) -> Result<Kubernetes> {
    let settings = cluster_settings(config, key);
    if config.ssh_server_image.is_some() && config.root == PodRoot::Auto && !config.probe {
        tracing::warn!("POD_PROBE=false: only a probe pod finds out whether customers may be root");
    }
    let cluster = Kubernetes::connect(config.kubeconfig.as_deref(), settings).await?;
    if let Err(error) = cluster.check().await {
        // Orders are refused until it is back; a restart would not help.
        tracing::error!(%error, namespace = config.namespace, "the Jobs of this namespace cannot be listed yet");
    }
    // Begins its watches, so that the log of the start has the rights that are missing.
    drop(cluster.capacity().await);
    Ok(cluster)
}

/// Waits for the next SIGTERM or Ctrl-C.
async fn stopped_by(terminate: &mut Signal) -> Result<()> {
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Serves on a Kubernetes cluster until it is stopped. A second signal ends it at once.
///
/// # Errors
/// What keeps it from serving, and what to do.
pub async fn serve(config: Config) -> Result<()> {
    open_files::raise_limit(open_files::needed_by_service(&config));
    let key = config.keys.public_key();
    tracing::info!(npub = paygress_nostr::npub(&key), "service key");
    let cluster = connect(&config, &key).await?;
    let app = App::build(&config, Arc::new(cluster), |backends| backends).await?;
    let controller = match &config.policy_namespace {
        Some(namespace) => {
            let reconciler =
                PolicyReconciler::new(Arc::clone(&app.policies), Arc::clone(&app.fetcher));
            let kubeconfig = config.kubeconfig.as_deref();
            Some(Controller::connect(kubeconfig, namespace, Arc::new(reconciler)).await?)
        }
        None => None,
    };
    // They decide from the first order on.
    if let Some(controller) = &controller
        && timeout(FIRST_RECONCILIATION, controller.reconcile_once()).await.is_err()
    {
        tracing::error!(
            "the Policy resources are not applied in time; until they are, the last active policies decide, or those of POLICY_DIR"
        );
    }
    let controller = async {
        match controller {
            Some(controller) => controller.run().await,
            None => std::future::pending().await,
        }
    };
    let (stop, stopped) = watch::channel(false);
    let mut served = Box::pin(app.run_until(stopped));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = &mut served => return ended,
        () = controller => return Err(anyhow!("the watch of the Policy resources ended")),
        stopped = stopped_by(&mut terminate) => stopped?,
    }
    // Nothing needs to be saved: every order is in the ledger, and `OrderService::resume` continues it.
    tracing::info!("stopping; orders under way go on at the next start, or in another replica");
    stop.send_replace(true);
    tokio::select! {
        ended = served => ended,
        again = stopped_by(&mut terminate) => again,
    }
}

/// Serves the gateway alone until it is stopped, beside services with the same configuration.
///
/// # Errors
/// What keeps it from serving, and what to do.
pub async fn serve_gateway(config: Config) -> Result<()> {
    let settings = config
        .gateway
        .as_ref()
        .context("nothing of the gateway is on; set GATEWAY_SSH_LISTEN or GATEWAY_IROH")?;
    ensure!(
        settings.process == GatewayProcess::Own,
        "GATEWAY_IN_SERVICE is true: `paygress serve` serves the gateway; set it to false for both"
    );
    open_files::raise_limit(open_files::needed_by_gateway());
    let url = config
        .database
        .as_ref()
        .context("the leases of a SQLite file are the service's; set DATABASE_URL, or GATEWAY_IN_SERVICE to true and run no `paygress gateway`")?;
    let database = Database::postgres(url, &[SqlStore::SCHEMA]).await?;
    let ledger = Arc::new(SqlStore::new(database));
    let cluster_settings = cluster_settings(&config, &config.keys.public_key());
    let cluster = Kubernetes::connect(config.kubeconfig.as_deref(), cluster_settings).await?;
    let gateway = StandaloneGateway::open(&config, settings, ledger, Arc::new(cluster)).await?;
    let (stop, stopped) = watch::channel(false);
    let mut served = Box::pin(gateway.serve(stopped));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = &mut served => return Err(anyhow!("the gateway ended")),
        stopped = stopped_by(&mut terminate) => stopped?,
    }
    tracing::info!("stopping; clients are disconnected");
    stop.send_replace(true);
    tokio::select! {
        () = served => Ok(()),
        again = stopped_by(&mut terminate) => again,
    }
}
