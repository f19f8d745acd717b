//! `paygress serve`.

use crate::app::App;
use crate::config::{Config, Reader, part};
use crate::resources::PolicyReconciler;
use anyhow::{Context, Result, anyhow};
use paygress_cluster::{Kubernetes, Policies, Settings};
use paygress_core::Cluster;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// The configuration in this file and the environment.
///
/// # Errors
/// All that is wrong with it.
pub fn configured(file: Option<&Path>) -> Result<Config> {
    Ok(Config::read(text(file)?.as_deref(), std::env::vars())?)
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

/// How long customers wait at the start for a registry that is slow.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// Serves on a Kubernetes cluster until it is told to stop.
///
/// # Errors
/// What keeps it from serving, and what to do.
pub async fn serve(config: Config) -> Result<()> {
    let key = config.keys.public_key();
    tracing::info!(npub = paygress_nostr::npub(&key), "this service");
    // A label's value, short and this key's own.
    let instance = key.to_hex().chars().take(16).collect();
    let settings = Settings {
        namespace: config.namespace.clone(),
        instance,
        ready_within: config.ready_within,
        ttl: config.ttl,
        allowed: config.allowed.clone(),
    };
    let cluster = Kubernetes::connect(config.kubeconfig.as_deref(), settings).await?;
    if let Err(error) = cluster.check().await {
        // Customers are refused politely until it is back; restarting would not bring it back
        // sooner.
        tracing::error!(%error, namespace = config.namespace, "the cluster does not let us see our Jobs yet");
    }
    let app = App::build(&config, Arc::new(cluster), |backends| backends).await?;
    let resources = match &config.policy_namespace {
        Some(namespace) => Some(Policies::connect(config.kubeconfig.as_deref(), namespace).await?),
        None => None,
    };
    let keeper =
        Arc::new(PolicyReconciler::new(Arc::clone(&app.policies), Arc::clone(&app.supply)));
    // What they wish for decides from the first order on.
    if let Some(resources) = &resources
        && timeout(FIRST_LOOK, resources.look(&*keeper)).await.is_err()
    {
        tracing::error!(
            "the Policy resources cannot be had in time; until they can be, what was in force last decides, or POLICY_DIR"
        );
    }
    let resources = async {
        match resources {
            Some(resources) => resources.watch(keeper).await,
            None => std::future::pending().await,
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = app.run() => ended,
        () = resources => Err(anyhow!("the watch over Policy resources ended")),
        _ = terminate.recv() => stop(),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and_then(|()| stop()),
    }
}

/// Nothing needs to be saved: whatever state an order is in, it is in the ledger, and
/// `OrderService::resume` goes on from there.
fn stop() -> Result<()> {
    tracing::info!("stopping; orders under way go on at the next start");
    Ok(())
}
