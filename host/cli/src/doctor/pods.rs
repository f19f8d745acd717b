//! The policies, and probe pods of what they render. Both have stores of their own, which are gone
//! afterwards: those of a service that runs are not touched.

use super::limit::{LIMIT, within};
use super::report::{Area, Check, Group, Outcome};
use crate::app::{no_responder, open_policies, order_settings};
use crate::config::Config;
use anyhow::Result;
use paygress_cashu::{CashuWallet, Seed, WalletStore};
use paygress_cluster::{Kubernetes, NetworkFindings, PodRoot};
use paygress_core::backend::cluster::{
    ClusterFeatures, Neighbours, NetworkIsolation, ProbeProblem,
};
use paygress_core::error_chain;
use paygress_core::orders::{Backends, OrderService, ProbeFindings};
use paygress_policy::Publisher;
use paygress_store::SqlStore;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const COMPONENTS: Area = Area::new(Group::Policies, "components");
const START: Area = Area::new(Group::Pods, "start");
const NAMESPACES: Area = Area::new(Group::Pods, "user namespaces");
const NETWORK: Area = Area::new(Group::Pods, "network");

/// Pods that are launched one after the other at most: with and without root, with the server mounted
/// and copied, with the image's program, and two that try the network.
const PODS: u64 = 7;

pub(super) async fn checks(config: &Config, cluster: Option<&Arc<Kubernetes>>) -> Vec<Check> {
    let directory = match temporary_directory(config) {
        Ok(directory) => Arc::new(directory),
        Err(error) => {
            let text = format!("no temporary directory can be made: {error}");
            return vec![COMPONENTS.fail(text, "set TMPDIR to one that this user can write")];
        }
    };
    let opened = tokio::time::timeout(LIMIT, policies(config, &directory)).await;
    let (policies, check) = match opened {
        Ok(Ok(policies)) => {
            let text = format!("those of {} are valid", config.policies.display());
            (Some(policies), COMPONENTS.ok(text))
        }
        Ok(Err(error)) => {
            let text = error_chain(error.as_ref());
            let text: Vec<&str> = text.lines().map(str::trim).collect();
            (None, COMPONENTS.fail(text.join("; "), "correct POLICY_DIR or the [policy.…] tables"))
        }
        Err(_) => {
            let text = format!("not compiled within {} s", LIMIT.as_secs());
            (None, COMPONENTS.fail(text, "try again on a machine that is less busy"))
        }
    };
    let mut checks = vec![check];
    if let Some(cluster) = cluster {
        checks.extend(probes(config, cluster, policies.as_deref(), directory.path()).await);
    }
    checks
}

/// In a container with a read-only disk it is beside what the service compiles.
fn temporary_directory(config: &Config) -> std::io::Result<TempDir> {
    let beside = config.policy_cache.ancestors().skip(1).find(|path| path.is_dir());
    tempfile::tempdir().or_else(|error| match beside {
        Some(beside) => tempfile::tempdir_in(beside),
        None => Err(error),
    })
}

/// A directory below a temporary one, which is removed with the last of those who use it.
struct PolicyState {
    path: PathBuf,
    _below: Arc<TempDir>,
}

impl AsRef<Path> for PolicyState {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// As at the start of a service that has never run here. Policies are compiled to the end, also when
/// this check is given up.
async fn policies(config: &Config, directory: &Arc<TempDir>) -> Result<Arc<Publisher>> {
    let path = directory.path().join("policies");
    open_policies(config, None, PolicyState { path, _below: Arc::clone(directory) }).await
}

async fn probes(
    config: &Config,
    cluster: &Arc<Kubernetes>,
    policies: Option<&Publisher>,
    directory: &Path,
) -> Vec<Check> {
    if cluster.probe().is_none() {
        return vec![START.ok("not tried: --no-pods")];
    }
    let Some(policies) = policies else {
        return vec![START.warn("not tried, without policies", "correct the policies first")];
    };
    let seconds = config.ready_within.0.saturating_mul(PODS);
    let limit = Duration::from_secs(seconds).saturating_add(LIMIT.saturating_mul(3));
    let probed = async {
        match order_service(config, Arc::clone(cluster), policies, directory).await {
            Ok(orders) => match orders.probe_once().await {
                Some(findings) => found(config, findings, &cluster.network_findings()),
                None => Vec::new(),
            },
            Err(error) => vec![START.fail(error_chain(error.as_ref()), "try again")],
        }
    };
    within(START, limit, probed).await
}

/// With stores of its own, only to render a pod as an order would get it.
async fn order_service(
    config: &Config,
    cluster: Arc<Kubernetes>,
    policies: &Publisher,
    directory: &Path,
) -> Result<Arc<OrderService>> {
    let at = |name: &str| directory.join(name);
    let settings =
        paygress_cashu::Settings { mints: Vec::new(), max_balance: None, p2pk_secret_key: None };
    let seed = Seed::load_or_create(&at("wallet.mnemonic")).await?;
    let store = WalletStore::sqlite(&at("wallet.sqlite")).await?;
    let wallet = CashuWallet::open(store, seed, &settings).await?;
    let ledger = SqlStore::sqlite(&at("ledger.sqlite")).await?;
    let policy = Arc::clone(policies.host());
    let backends = Backends {
        wallet: Arc::new(wallet),
        policy,
        cluster: cluster.into(),
        ledger: Arc::new(ledger),
        responder: no_responder(),
    };
    Ok(OrderService::new(order_settings(config), backends))
}

/// What the probe pods mean.
fn found(config: &Config, findings: ProbeFindings, reach: &NetworkFindings) -> Vec<Check> {
    let problem = findings.problem;
    let started = match problem {
        None => START.ok("probe pods of the default image have started"),
        Some(ProbeProblem::NoUserNamespaces) => {
            START.ok("a probe pod of the default image has started, without root")
        }
        Some(problem) if problem.stops_sales() => START.message(Outcome::Fail, problem.message()),
        Some(problem) => START.message(Outcome::Warn, problem.message()),
    };
    let mut checks = vec![started];
    // Of a pod that has not started nothing else is known.
    if problem.is_none_or(|problem| !problem.stops_sales()) {
        checks.push(namespaces(config, findings));
        checks.push(network(reach));
    }
    checks
}

fn namespaces(config: &Config, findings: ProbeFindings) -> Check {
    match findings.problem {
        _ if config.root == PodRoot::Never => NAMESPACES.ok("not used: POD_ROOT=never"),
        _ if config.ssh_server_image.is_none() => {
            NAMESPACES.ok("not used: without SSH_SERVER_IMAGE customers are not root")
        }
        _ if findings.root => NAMESPACES.ok("customers are root of one"),
        Some(problem @ ProbeProblem::NoUserNamespaces) => {
            NAMESPACES.message(Outcome::Warn, problem.message())
        }
        Some(_) | None => NAMESPACES
            .warn("not known: no probe pod has started as root", "see above, and try again"),
    }
}

fn network(found: &NetworkFindings) -> Check {
    match found.isolation {
        NetworkIsolation::Enforced(_) if found.nodes == 0 => NETWORK.warn(
            "a probe pod does not reach the API server; nodes not tried: their addresses are not known",
            "apply k8s/base/capacity.yaml, and run this with the service's ServiceAccount",
        ),
        NetworkIsolation::Enforced(neighbours @ Neighbours::Tried) => {
            NETWORK.ok(neighbours.text())
        }
        NetworkIsolation::Enforced(neighbours @ Neighbours::NoRoom) => NETWORK.warn(
            neighbours.text(),
            "make room for two pods of the default tier, on nodes and in quotas, and try again",
        ),
        NetworkIsolation::Enforced(neighbours @ Neighbours::NotStarted) => {
            NETWORK.warn(neighbours.text(), "see what is above, and try again")
        }
        NetworkIsolation::NotEnforced => reached(found),
        NetworkIsolation::Unknown => NETWORK.warn(
            "not known: no probe pod has tried what pods reach",
            "set SSH_SERVER_IMAGE to the image of this version, which tries it, and make room for a pod of the default tier; or try by hand (docs/operating.md, \"Walls\")",
        ),
    }
}

/// Pods that reach what no customer may. For its operator, with the addresses.
fn reached(found: &NetworkFindings) -> Check {
    let message = found.isolation.warning().unwrap_or("pods are not isolated");
    let (text, remedy) = message.split_once(": ").unwrap_or((message, ""));
    let text = format!("{text}: {}", list(&found.reached));
    let public = found.public_addresses();
    if public.is_empty() {
        return NETWORK.fail(text, remedy);
    }
    let public = list(&public);
    NETWORK.fail(
        text,
        format!(
            "add {public} to `except` of k8s/base/network.yaml, which closes no public address by itself; if it is there, {remedy}"
        ),
    )
}

fn list<'a, T: Display + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    items.into_iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::config;

    /// What a pod of a cluster with a node has found.
    fn reach(isolation: NetworkIsolation, reached: &[&str]) -> NetworkFindings {
        let reached = reached.iter().map(|address| address.parse().unwrap()).collect();
        NetworkFindings { isolation, reached, nodes: 1 }
    }

    fn isolated() -> NetworkFindings {
        reach(NetworkIsolation::Enforced(Neighbours::Tried), &[])
    }

    fn findings(problem: Option<ProbeProblem>) -> ProbeFindings {
        ProbeFindings { problem, root: false }
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_all_that_is_shown() {
        for (problem, image, setting) in [
            (ProbeProblem::Image, "the default image cannot be pulled", "SSH_BASE_IMAGE"),
            (
                ProbeProblem::ServerImage,
                "the image of SSH_SERVER_IMAGE cannot be pulled",
                "name one",
            ),
        ] {
            let checks = found(&config(None, &[]), findings(Some(problem)), &isolated());
            let [check] = <[Check; 1]>::try_from(checks).unwrap();
            assert_eq!((check.area, check.outcome), ("start", Outcome::Fail));
            assert_eq!(check.text, image);
            let remedy = check.remedy.unwrap();
            assert!(
                remedy.contains("load it on the nodes") && remedy.contains(setting),
                "{remedy}"
            );
        }
    }

    #[test]
    fn a_server_that_refuses_the_login_is_a_failure_with_what_to_do() {
        let refused = findings(Some(ProbeProblem::Login));
        let checks = found(&config(None, &[]), refused, &isolated());
        let [check] = <[Check; 1]>::try_from(checks).unwrap();
        assert_eq!((check.area, check.outcome), ("start", Outcome::Fail));
        assert!(check.text.ends_with("its SSH server refuses its login"), "{}", check.text);
        let remedy = check.remedy.unwrap();
        for part in ["/run/paygress/login", "SSH_SERVER_IMAGE"] {
            assert!(remedy.contains(part), "{remedy}");
        }
    }

    #[test]
    fn nodes_without_user_namespaces_are_a_warning_where_customers_would_be_root() {
        let server = ("SSH_SERVER_IMAGE", "registry.example/ssh:1");
        let none = findings(Some(ProbeProblem::NoUserNamespaces));
        let root = ProbeFindings { root: true, problem: None };
        for (settings, findings, outcome, text) in [
            (vec![server], none, Outcome::Warn, "customers are not root"),
            (vec![server], root, Outcome::Ok, "customers are root of one"),
            (vec![server, ("POD_ROOT", "never")], none, Outcome::Ok, "POD_ROOT=never"),
            (vec![], none, Outcome::Ok, "without SSH_SERVER_IMAGE"),
        ] {
            let checks = found(&config(None, &settings), findings, &isolated());
            let check = checks.iter().find(|check| check.area == "user namespaces").unwrap();
            assert_eq!(check.outcome, outcome, "{checks:?}");
            assert!(check.text.contains(text), "{check:?}");
            let remedy = check.remedy.as_deref().unwrap_or_default();
            assert_eq!(remedy.contains("update the nodes"), outcome == Outcome::Warn, "{check:?}");
            assert!(checks.iter().any(|it| it.area == "start" && it.outcome == Outcome::Ok));
        }
    }

    #[test]
    fn pods_that_reach_the_api_server_are_a_failure_with_what_to_do() {
        let what = "customers' pods reach the API server, a node or each other";
        let plugin = "use a network plugin that enforces NetworkPolicies";
        for (addresses, begins) in [
            (&["10.96.0.1:443", "10.0.0.1:10250"][..], plugin),
            // A node whose address is public for the policy, and is not excepted.
            (&["10.96.0.1:443", "192.0.2.2:10250"][..], "add 192.0.2.2/32 to `except`"),
            (
                &["192.0.2.2:10250", "[2001:db8::1]:10250"][..],
                "add 192.0.2.2/32, 2001:db8::1/128 to `except`",
            ),
        ] {
            let check = network(&reach(NetworkIsolation::NotEnforced, addresses));
            assert_eq!(check.outcome, Outcome::Fail);
            assert_eq!(check.text, format!("{what}: {}", addresses.join(", ")));
            let remedy = check.remedy.unwrap();
            assert!(remedy.starts_with(begins), "{remedy}");
            assert!(
                remedy.contains(plugin) && remedy.contains("k8s/base/network.yaml"),
                "{remedy}"
            );
        }
        let unknown = network(&reach(NetworkIsolation::Unknown, &[]));
        assert_eq!(unknown.outcome, Outcome::Warn);
        let remedy = unknown.remedy.unwrap();
        assert!(remedy.contains("SSH_SERVER_IMAGE") && remedy.contains("make room"), "{remedy}");
    }

    #[test]
    fn nodes_that_were_not_tried_are_not_reported_as_closed() {
        let check = network(&NetworkFindings { nodes: 0, ..isolated() });
        assert_eq!(check.outcome, Outcome::Warn);
        assert!(!check.text.contains("nor a node"), "{}", check.text);
        assert!(check.remedy.unwrap().contains("k8s/base/capacity.yaml"));
        assert_eq!(network(&isolated()).outcome, Outcome::Ok);
    }

    #[test]
    fn neighbours_that_were_not_tried_are_named() {
        for (neighbours, outcome, end) in [
            (Neighbours::Tried, Outcome::Ok, "nor another probe pod"),
            (Neighbours::NoRoom, Outcome::Warn, "neighbours not tried: no room"),
            (Neighbours::NotStarted, Outcome::Warn, "the other probe pod does not start"),
        ] {
            let check = network(&reach(NetworkIsolation::Enforced(neighbours), &[]));
            assert_eq!(check.outcome, outcome, "{neighbours:?}");
            assert!(check.text.ends_with(end), "{}", check.text);
            assert_eq!(check.remedy.is_some(), outcome == Outcome::Warn, "{neighbours:?}");
        }
    }
}
