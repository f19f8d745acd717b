//! The cluster: rights, rules, ports and clock. Probe pods are in `pods.rs`.

use super::host::{ClockOf, clock};
use super::limit::{Checks, LIMIT, within};
use super::report::{Area, Check, Group};
use crate::config::Config;
use futures::FutureExt;
use futures::future::join_all;
use paygress_cluster::connection::RequestError;
use paygress_cluster::{
    AdmissionFinding, AdmissionOutcome, HostPorts, Kubernetes, PodRoute, RIGHTS, Right,
    RightPurpose,
};
use paygress_core::backend::cluster::{ClusterError, ClusterHealth};
use paygress_core::error_chain;
use paygress_core::model::access::{AccessMode, AccessModes};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub(super) const CONNECTION: Area = Area::new(Group::Cluster, "connection");
const PERMISSIONS: Area = Area::new(Group::Cluster, "permissions");
const ADMISSION: Area = Area::new(Group::Cluster, "admission");
const SECURITY: Area = Area::new(Group::Cluster, "pod security");
const NETWORK: Area = Area::new(Group::Cluster, "network policy");
const PORTS: Area = Area::new(Group::Cluster, "ports");

/// The node ports of an API server without `--service-node-port-range`.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Ports that a line names.
const NAMED_PORTS: usize = 10;
/// What to do about an API server that does not answer.
const REACH: &str = "check KUBECONFIG, and that the API server is reached from here";

/// Whether the API server answers.
pub(super) enum Connection {
    /// Maybe only that a right is missing.
    Answers(Vec<Check>),
    /// Every other check of the cluster would fail by the same cause.
    Unavailable(Check),
}

/// What needs an API server that answers.
pub(super) fn checks<'a>(config: &'a Config, cluster: &'a Arc<Kubernetes>) -> Vec<Checks<'a>> {
    vec![
        within(PERMISSIONS, LIMIT, permissions(config, cluster)).boxed_local(),
        within(ADMISSION, LIMIT, admission(config, cluster)).boxed_local(),
        within(SECURITY, LIMIT, pod_security(config, cluster)).boxed_local(),
        within(NETWORK, LIMIT, network_policies(cluster)).boxed_local(),
        within(PORTS, LIMIT, ports(config, cluster)).boxed_local(),
    ]
}

fn failed(area: Area, error: &RequestError) -> Check {
    area.fail(error_chain(error), REACH)
}

/// Its requests have limits of their own.
pub(super) async fn connection(config: &Config, cluster: &Kubernetes) -> Connection {
    let listed = match cluster.check().await {
        Ok(()) => CONNECTION.ok(format!("the Jobs of {} are listed", config.namespace)),
        Err(error @ ClusterError::Unavailable(_)) => {
            return Connection::Unavailable(CONNECTION.fail(error_chain(&error), REACH));
        }
        Err(error) => CONNECTION
            .fail(error_chain(&error), "check KUBECONFIG and POD_NAMESPACE; apply k8s/base"),
    };
    let offset = cluster.clock().await.ok().flatten();
    let offset = offset.map(|ahead| clock(ClockOf::ApiServer, ahead));
    Connection::Answers(std::iter::once(listed).chain(offset).collect())
}

/// Where a right is needed; none: it is not.
enum Needed<'a> {
    In(&'a str),
    InAll,
}

fn needed<'a>(config: &'a Config, right: &Right) -> Option<Needed<'a>> {
    match right.purpose {
        RightPurpose::Leases => Some(Needed::In(&config.namespace)),
        RightPurpose::Gateway => (leads_to_pods(config) && config.route != PodRoute::PodNetwork)
            .then_some(Needed::In(&config.namespace)),
        RightPurpose::Egress => has_egress(config).then_some(Needed::In(&config.namespace)),
        RightPurpose::Capacity => Some(Needed::InAll),
        RightPurpose::Policies => config.policy_namespace.as_deref().map(Needed::In),
    }
}

/// Whether it carries customers to pods: to SSH by the gateway, or to HTTP ports.
fn leads_to_pods(config: &Config) -> bool {
    let serves_apps = config.http.as_ref().is_some_and(|http| http.apps_domain.is_some());
    config.gateway.is_some() || serves_apps
}

/// Whether the settings of the pod template name what pods connect to, as the default one reads
/// them. What another template does is not known.
fn has_egress(config: &Config) -> bool {
    let settings = config.policy_settings.get("pod-template");
    let tiers = settings.and_then(|settings| settings.get("egress")?.as_object());
    tiers.is_some_and(|tiers| !tiers.is_empty())
}

async fn permissions(config: &Config, cluster: &Kubernetes) -> Vec<Check> {
    let reviewed = RIGHTS.iter().filter_map(|right| Some((right, needed(config, right)?)));
    let reviewed = join_all(reviewed.map(|(right, needed)| async move {
        let namespace = match needed {
            Needed::In(namespace) => Some(namespace),
            Needed::InAll => None,
        };
        (right, namespace, cluster.denied_verbs(right, namespace).await)
    }))
    .await;
    let verbs: usize = reviewed.iter().map(|(right, ..)| right.verbs.len()).sum();
    let wrong: Vec<Check> = reviewed
        .into_iter()
        .filter_map(|(right, namespace, denied)| match denied {
            Ok(denied) if denied.is_empty() => None,
            Ok(denied) => Some(missing(right, namespace, &denied)),
            Err(error) => Some(failed(PERMISSIONS, &error)),
        })
        .collect();
    match wrong.is_empty() {
        true => {
            vec![PERMISSIONS.ok(format!("all {verbs} verbs that the service uses are granted"))]
        }
        false => wrong,
    }
}

fn missing(right: &Right, namespace: Option<&str>, denied: &[&str]) -> Check {
    let place = namespace.map_or_else(|| "the whole cluster".to_owned(), str::to_owned);
    let text = format!("may not {} {} in {place}", denied.join(", "), right.resource);
    let remedy = format!(
        "apply k8s/{}, and run this with the service's ServiceAccount",
        right.purpose.file()
    );
    match right.purpose {
        // Only quotas are counted then.
        RightPurpose::Capacity => PERMISSIONS.warn(text, remedy),
        RightPurpose::Leases
        | RightPurpose::Gateway
        | RightPurpose::Egress
        | RightPurpose::Policies => PERMISSIONS.fail(text, remedy),
    }
}

async fn admission(config: &Config, cluster: &Kubernetes) -> Vec<Check> {
    let mut findings = Vec::from(cluster.try_admission().await);
    if has_egress(config) {
        // Where the right is missing, that is named.
        findings.extend(cluster.try_egress_admission().await);
    }
    let wrong: Vec<Check> = findings.iter().filter_map(|it| not_enforced(config, it)).collect();
    if !wrong.is_empty() {
        return wrong;
    }
    let is_untried = |it: &AdmissionFinding| matches!(it.outcome, AdmissionOutcome::Untried);
    let untried = findings.iter().filter(|it| is_untried(it)).map(|it| it.policy);
    let untried: Vec<&str> = untried.collect();
    vec![ADMISSION.ok(match untried.as_slice() {
        [] => "what it must refuse is refused".to_owned(),
        names => format!(
            "what it must refuse is refused; there is no pod to try {} with",
            names.join(", ")
        ),
    })]
}

fn not_enforced(config: &Config, finding: &AdmissionFinding) -> Option<Check> {
    let policy = finding.policy;
    match &finding.outcome {
        AdmissionOutcome::Enforced | AdmissionOutcome::Untried => None,
        AdmissionOutcome::NotEnforced => Some(ADMISSION.fail(
            format!("ValidatingAdmissionPolicy {policy} does not refuse what it must"),
            format!(
                "apply k8s/{}: the policy and its binding, with the action Deny and the namespace {}; run this with the service's ServiceAccount",
                finding.file(),
                config.namespace
            ),
        )),
        AdmissionOutcome::Failed(error) => Some(ADMISSION.fail(
            format!("whether {policy} is enforced is not known: {}", error_chain(error)),
            format!(
                "apply k8s/{} of this version, and run this with the service's ServiceAccount",
                finding.file()
            ),
        )),
    }
}

async fn pod_security(config: &Config, cluster: &Kubernetes) -> Vec<Check> {
    match cluster.host_ports().await {
        Ok(found) => vec![security_for(config.access.modes(), found)],
        Err(error) => vec![SECURITY.fail(
            format!("what the namespace enforces is not known: {}", error_chain(&error)),
            "apply k8s/base of this version, and run this with the service's ServiceAccount",
        )],
    }
}

/// Compares the ways that `ACCESS` sells with what the namespace lets pods have.
fn security_for(access: &AccessModes, found: HostPorts) -> Check {
    match (access.contains(AccessMode::HostPort), found) {
        (true, HostPorts::Permitted) => {
            SECURITY.ok("the namespace lets pods have host ports, which ACCESS names")
        }
        (false, HostPorts::Forbidden) => {
            SECURITY.ok("the namespace forbids host ports, and ACCESS names none")
        }
        (true, HostPorts::Forbidden) => SECURITY.fail(
            "ACCESS names host-port, and the namespace's Pod Security Standard forbids host ports: each order for one is refused",
            "take host-port out of ACCESS, or label the namespace pod-security.kubernetes.io/enforce=privileged",
        ),
        (false, HostPorts::Permitted) => SECURITY.warn(
            "ACCESS names no host-port, and the namespace lets pods have host ports",
            "label the namespace pod-security.kubernetes.io/enforce=baseline: k8s/overlays/without-ports does it with ACCESS=gateway, and k8s/overlays/without-host-ports with ACCESS=node-port",
        ),
    }
}

/// Where they may not be listed, as with the service's own rights, the probe pod alone shows whether
/// they are there.
async fn network_policies(cluster: &Kubernetes) -> Vec<Check> {
    listed_policies(cluster.network_policies().await)
}

fn listed_policies(listed: Result<Option<BTreeSet<String>>, RequestError>) -> Vec<Check> {
    match listed {
        Ok(None) => Vec::new(),
        Ok(Some(names)) if names.is_empty() => vec![NETWORK.fail(
            "no NetworkPolicy is there: customers' pods reach everything",
            "apply k8s/base/network.yaml",
        )],
        Ok(Some(names)) => {
            let names: Vec<String> = names.into_iter().collect();
            vec![NETWORK.ok(format!("there: {}", names.join(", ")))]
        }
        Err(error) => vec![failed(NETWORK, &error)],
    }
}

async fn ports(config: &Config, cluster: &Kubernetes) -> Vec<Check> {
    let Some(ports) = config.access.ports() else { return Vec::new() };
    if !config.access.modes().contains(AccessMode::HostPort) {
        return node_ports(ports).into_iter().collect();
    }
    match cluster.host_ports_of_others(ports).await {
        // The missing right is named.
        Ok(None) => Vec::new(),
        Ok(Some(taken)) => vec![taken_ports(&taken)],
        Err(error) => vec![failed(PORTS, &error)],
    }
}

/// Without host ports each port of the range is to be a node port.
fn node_ports(range: &RangeInclusive<u16>) -> Option<Check> {
    let (first, last) = (range.start(), range.end());
    if NODE_PORTS.contains(first) && NODE_PORTS.contains(last) {
        return None;
    }
    let text = format!(
        "ACCESS names node-port, and of the range {first} to {last} some ports are no node ports, unless the API server has another range of them"
    );
    Some(PORTS.warn(
        text,
        "set SSH_PORT_RANGE_START and SSH_PORT_RANGE_END within the cluster's node ports, 30000 to 32767 by default",
    ))
}

fn taken_ports(taken: &BTreeSet<u16>) -> Check {
    if taken.is_empty() {
        return PORTS.ok("no other pod has a port of the range");
    }
    let named: Vec<String> = taken.iter().take(NAMED_PORTS).map(u16::to_string).collect();
    PORTS.warn(
        format!("other pods have {} port(s) of the range: {}", taken.len(), named.join(", ")),
        "set SSH_PORT_RANGE_START and SSH_PORT_RANGE_END to a range that is free on the nodes; until then pods get other ports or nodes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;
    use crate::doctor::testing::config;
    use serde_json::Value;
    use std::path::Path;

    /// What the roles in this file grant: group, resource and verb.
    fn granted(file: &str) -> BTreeSet<[String; 3]> {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s");
        let text = std::fs::read_to_string(manifests.join(file)).unwrap();
        let objects = text.split("\n---\n").map(|it| serde_saphyr::from_str::<Value>(it).unwrap());
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        let mut granted = BTreeSet::new();
        for object in objects {
            for rule in object["rules"].as_array().into_iter().flatten() {
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        for verb in texts(&rule["verbs"]) {
                            granted.insert([group.clone(), resource.clone(), verb]);
                        }
                    }
                }
            }
        }
        granted
    }

    #[test]
    fn what_is_reviewed_is_what_the_manifests_grant() {
        for file in [
            "base/rbac.yaml",
            "base/capacity.yaml",
            "base/policies.yaml",
            "overlays/egress/rbac.yaml",
        ] {
            let rights = RIGHTS.iter().filter(|right| right.purpose.file() == file);
            let reviewed: BTreeSet<[String; 3]> = rights
                .flat_map(|right| {
                    right
                        .verbs
                        .iter()
                        .map(move |verb| [right.group, right.resource, *verb].map(str::to_owned))
                })
                .collect();
            assert!(!reviewed.is_empty());
            assert_eq!(reviewed, granted(file), "{file}");
        }
    }

    #[test]
    fn the_api_server_forwards_for_a_gateway_and_for_http_ports() {
        let forward = RIGHTS.iter().find(|right| right.resource == "pods/portforward").unwrap();
        for (setting, is_needed) in [
            (("SSH_PORT", "2222"), false),
            (("APPS_DOMAIN", "apps.example"), true),
            (("GATEWAY_SSH_LISTEN", "127.0.0.1:2222"), true),
        ] {
            let served = [("RUN_MODE", "both"), ("PUBLIC_URL", "https://pods.example"), setting];
            let config = config(None, &served);
            assert_eq!(needed(&config, forward).is_some(), is_needed, "{setting:?}");
        }
    }

    #[test]
    fn network_policies_are_made_where_the_template_has_egress() {
        let egress = RIGHTS.iter().find(|right| right.purpose == RightPurpose::Egress).unwrap();
        for (file, is_needed) in [
            ("", false),
            ("[policy.pod-template.egress]\n", false),
            ("[policy.pod-template.egress.basic]\nports = [\"443/tcp\"]\n", true),
        ] {
            let config = config(Some(file), &[]);
            assert_eq!(needed(&config, egress).is_some(), is_needed, "{file}");
        }
        let check = missing(egress, Some("user-workloads"), &["create"]);
        assert_eq!(check.text, "may not create networkpolicies in user-workloads");
        assert!(check.remedy.unwrap().contains("k8s/overlays/egress/rbac.yaml"));
    }

    #[test]
    fn what_the_namespace_enforces_is_compared_with_what_is_sold() {
        let modes = |modes: Vec<AccessMode>| AccessModes::new(modes).unwrap();
        let ports = modes(vec![AccessMode::HostPort, AccessMode::Gateway]);
        let gateway = modes(vec![AccessMode::Gateway]);
        for (access, found, outcome) in [
            (&ports, HostPorts::Permitted, Outcome::Ok),
            (&ports, HostPorts::Forbidden, Outcome::Fail),
            (&gateway, HostPorts::Forbidden, Outcome::Ok),
            (&gateway, HostPorts::Permitted, Outcome::Warn),
        ] {
            let check = security_for(access, found);
            assert_eq!(check.outcome, outcome, "{check:?}");
            assert_eq!(check.remedy.is_some(), outcome != Outcome::Ok);
        }
    }

    #[test]
    fn ports_that_are_no_node_ports_are_a_warning() {
        for (range, expected) in [
            (30_000..=32_767, None),
            (20_000..=20_049, Some(Outcome::Warn)),
            (29_999..=30_010, Some(Outcome::Warn)),
            (32_000..=32_768, Some(Outcome::Warn)),
        ] {
            let outcome = node_ports(&range).map(|check| check.outcome);
            assert_eq!(outcome, expected, "{range:?}");
        }
    }

    #[test]
    fn network_policies_are_named_and_a_namespace_without_one_fails() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let apply = "apply k8s/base/network.yaml";
        for (listed, expected) in [
            (Ok(None), None),
            (
                Ok(Some(names(&[]))),
                Some((
                    Outcome::Fail,
                    "no NetworkPolicy is there: customers' pods reach everything",
                    Some(apply),
                )),
            ),
            (
                Ok(Some(names(&["egress", "customers"]))),
                Some((Outcome::Ok, "there: customers, egress", None)),
            ),
            (
                Err(RequestError::TimedOut),
                Some((Outcome::Fail, "no answer from the API server within 15 s", Some(REACH))),
            ),
        ] {
            let checks = listed_policies(listed);
            let found: Vec<_> = checks
                .iter()
                .map(|check| (check.outcome, check.text.as_str(), check.remedy.as_deref()))
                .collect();
            assert_eq!(found, Vec::from_iter(expected));
        }
    }

    #[test]
    fn ports_of_other_pods_are_a_warning_that_names_ten_of_them() {
        for (taken, outcome, text) in [
            (BTreeSet::new(), Outcome::Ok, "no other pod has a port of the range"),
            (
                BTreeSet::from([30_005, 30_000]),
                Outcome::Warn,
                "other pods have 2 port(s) of the range: 30000, 30005",
            ),
            (
                (30_000..30_011).collect(),
                Outcome::Warn,
                "other pods have 11 port(s) of the range: 30000, 30001, 30002, 30003, 30004, 30005, 30006, 30007, 30008, 30009",
            ),
        ] {
            let check = taken_ports(&taken);
            assert_eq!((check.outcome, check.text.as_str()), (outcome, text));
            assert_eq!(check.remedy.is_some(), outcome == Outcome::Warn);
        }
    }

    #[test]
    fn a_verb_that_is_missing_is_named() {
        let [jobs, .., configmaps] = &RIGHTS;
        let check = missing(jobs, Some("user-workloads"), &["delete"]);
        assert_eq!(check.text, "may not delete jobs in user-workloads");
        assert!(check.remedy.unwrap().contains("k8s/base/rbac.yaml"));
        let check = missing(configmaps, None, &["get"]);
        assert!(check.remedy.unwrap().contains("k8s/base/policies.yaml"));
    }
}
