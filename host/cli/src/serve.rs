//! `paygress serve`.

use crate::config::Config;
use crate::house::House;
use crate::resources::ResourceKeeper;
use anyhow::{Context, Result, anyhow};
use paygress_cluster::{Kubernetes, Policies, Settings};
use paygress_core::Cluster;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// The configuration in this file and the environment.
///
/// # Errors
/// All that is wrong with it.
pub fn configured(file: Option<&Path>) -> Result<Config> {
    let text = file
        .map(|path| std::fs::read_to_string(path).with_context(|| format!("the config file {} cannot be read", path.display())))
        .transpose()?;
    Ok(Config::read(text.as_deref(), std::env::vars())?)
}

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
        // Customers are refused politely until it is back; restarting would not bring it back sooner.
        tracing::error!(%error, namespace = config.namespace, "the cluster does not let us see our Jobs yet");
    }
    let house = House::build(&config, Arc::new(cluster), |rooms| rooms).await?;
    let resources = match &config.policy_namespace {
        Some(namespace) => Some(Policies::connect(config.kubeconfig.as_deref(), namespace).await?),
        None => None,
    };
    let keeper = Arc::new(ResourceKeeper::new(Arc::clone(&house.policies), Arc::clone(&house.supply)));
    let resources = async {
        match resources {
            Some(resources) => resources.watch(keeper).await,
            None => std::future::pending().await,
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = house.run() => ended,
        () = resources => Err(anyhow!("the watch over Policy resources ended")),
        _ = terminate.recv() => stop(),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and_then(|()| stop()),
    }
}

/// Nothing needs to be saved: whatever state an order is in, it is in the ledger, and `Desk::resume` goes on from there.
fn stop() -> Result<()> {
    tracing::info!("stopping; orders under way go on at the next start");
    Ok(())
}
