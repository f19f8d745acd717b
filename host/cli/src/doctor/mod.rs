//! `paygress doctor`: whether everything is there that the service needs, and what to do if not.
//! Nothing is changed, but for probe pods, and a message to nobody at each relay.
//!
//! ```text
//! config ─▶ host, policies ─▶ pods, cluster, gateway, mints, relays: concurrently, each with a limit ─▶ Report
//! ```
//!
//! What a check of a backend does is in the crate of the backend; here is what it means.

mod backup;
mod cluster;
mod gateway;
mod host;
mod limit;
mod mints;
mod pods;
mod relays;
mod report;
mod stores;

pub use report::{Check, Group, Outcome, Report};

use crate::config::{Config, Problems, UnknownVariable};
use crate::output::print_line;
use crate::serve::{cluster_settings, configured, unknown_variables};
use anyhow::{Context, Result};
use clap::Args;
use cluster::Connection;
use futures::FutureExt;
use futures::future::join_all;
use limit::{Checks, LIMIT, within};
use paygress_cluster::{Kubernetes, Settings};
use paygress_core::error_chain;
use report::Area;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

const CONFIGURATION: Area = Area::new(Group::Configuration, "settings");

#[derive(Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Launch no probe pods
    #[arg(long)]
    no_pods: bool,
    /// Leave out the cluster
    #[arg(long)]
    no_cluster: bool,
}

/// Runs `paygress doctor`.
///
/// # Errors
/// When it is interrupted. What is wrong is in the report.
pub async fn doctor(config: Option<&Path>, arguments: &Arguments) -> Result<ExitCode> {
    let mut checks = match configured(config) {
        Ok(config) => examined(&config, arguments).await?,
        Err(error) => problems(&error),
    };
    checks.extend(unknown_variables().iter().map(unknown));
    let report = Report::new(checks);
    match arguments.json {
        true => print_line(serde_json::to_string_pretty(&report)?),
        false => print_line(&report),
    }
    Ok(report.exit_code())
}

/// What keeps the service from starting.
fn problems(error: &anyhow::Error) -> Vec<Check> {
    let remedy = "see examples/paygress.toml, and \"Every setting\" in docs/operating.md";
    match error.downcast_ref::<Problems>() {
        Some(Problems(all)) => all.iter().map(|it| CONFIGURATION.fail(it, remedy)).collect(),
        None => vec![CONFIGURATION.fail(error_chain(error.as_ref()), remedy)],
    }
}

fn unknown(variable: &UnknownVariable) -> Check {
    let remedy = format!(
        "if {} is meant, rename the variable; as it is, it has no effect",
        variable.nearest
    );
    CONFIGURATION.warn(variable.to_string(), remedy)
}

/// How the cluster is reached, unless it is left out.
async fn connected(
    config: &Config,
    arguments: &Arguments,
) -> Option<Result<Arc<Kubernetes>, Box<Check>>> {
    if arguments.no_cluster {
        return None;
    }
    let settings = cluster_settings(config, &config.keys.public_key());
    let settings = Settings { probe: !arguments.no_pods, ..settings };
    let connected = Kubernetes::connect(config.kubeconfig.as_deref(), settings).await;
    Some(connected.map(Arc::new).map_err(|error| {
        Box::new(cluster::CONNECTION.fail(error.to_string(), "check KUBECONFIG and its context"))
    }))
}

/// Everything that is checked. Probe pods are removed in any case.
async fn examined(config: &Config, arguments: &Arguments) -> Result<Vec<Check>> {
    let cluster = connected(config, arguments).await;
    let reachable = cluster.as_ref().and_then(|cluster| cluster.as_ref().ok());
    let mut terminate = signal(SignalKind::terminate())?;
    let done = tokio::select! {
        checks = all(config, reachable) => Some(checks),
        _ = terminate.recv() => None,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            None
        }
    };
    if let Some(cluster) = reachable {
        cluster.remove_probes().await;
    }
    let mut checks = done.context("interrupted; no probe pod is left")?;
    if let Some(Err(unconnected)) = cluster {
        checks.push(*unconnected);
    }
    Ok(checks)
}

async fn all(config: &Config, cluster: Option<&Arc<Kubernetes>>) -> Vec<Check> {
    let served = host::is_served(&config.admin_socket).await;
    let mut all: Vec<Checks<'_>> = vec![
        async { vec![CONFIGURATION.ok("the configuration is valid")] }.boxed_local(),
        async move { host::checks(config, served) }.boxed_local(),
        within(stores::DATABASE, LIMIT, stores::checks(config)).boxed_local(),
        async move { vec![backup::check(config.backup_file.as_deref())] }.boxed_local(),
        policies_and_cluster(config, cluster).boxed_local(),
        gateway::checks(config, served).boxed_local(),
    ];
    all.extend(
        config
            .mints
            .iter()
            .map(|mint| within(mints::MINT, LIMIT, mints::checks(config, mint)).boxed_local()),
    );
    let relays = config.relays.iter().filter(|_| config.nostr);
    all.extend(
        relays
            .map(|relay| within(relays::RELAY, LIMIT, relays::checks(config, relay)).boxed_local()),
    );
    join_all(all).await.into_iter().flatten().collect()
}

/// The policies, and the cluster and probe pods if its API server answers.
async fn policies_and_cluster(config: &Config, cluster: Option<&Arc<Kubernetes>>) -> Vec<Check> {
    let (mut found, reached) = match cluster {
        Some(cluster) => match cluster::connection(config, cluster).await {
            Connection::Answers(checks) => (checks, Some(cluster)),
            Connection::Unavailable(check) => (vec![check], None),
        },
        None => (Vec::new(), None),
    };
    let mut all = reached.map_or_else(Vec::new, |cluster| cluster::checks(config, cluster));
    all.push(pods::checks(config, reached).boxed_local());
    found.extend(join_all(all).await.into_iter().flatten());
    found
}

#[cfg(test)]
mod testing {
    use crate::config::Config;

    /// Of this file, with these settings beside those that must be there.
    pub(super) fn config(file: Option<&str>, settings: &[(&str, &str)]) -> Config {
        let key = "1".repeat(64);
        let required = [
            ("NOSTR_PRIVATE_KEY", key.as_str()),
            ("NOSTR_RELAYS", "wss://a.example"),
            ("WHITELISTED_MINTS", "https://m.example"),
            ("SSH_HOST", "h.example"),
        ];
        let all = required.iter().chain(settings);
        let all = all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::read(file, all).unwrap()
    }
}
