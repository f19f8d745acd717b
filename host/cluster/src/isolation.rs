//! Whether pods reach what no customer may: the init container of a pod of its own tries.
//!
//! It knows the API server by itself; the service names the kubelets, at all addresses of the nodes,
//! and the SSH port of another probe pod, as of a neighbour.
//! Where NetworkPolicies are not enforced it reaches one of them, and where nodes have public
//! addresses that the policy does not except it reaches these. Images of earlier versions, and
//! templates with a server of their own, try nothing.

use crate::objects::Objects;
use crate::ssh_server::INIT_CONTAINER;
use crate::status::{init_message, is_ready};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{EnvVar, Node, Pod};
use paygress_core::backend::cluster::{Neighbours, NetworkIsolation};
use paygress_core::model::units::Seconds;
use paygress_http_client::is_open;
use paygress_sshd::{MAX_ADDRESSES, REACH_VARIABLE, ReachReport, ReachTask};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// How long what enforces NetworkPolicies may take to learn of a pod.
const ENFORCED_WITHIN: u64 = 10;

/// What a probe pod has shown that has tried what no customer may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFindings {
    pub isolation: NetworkIsolation,
    /// What takes a connection of it.
    pub reached: Vec<SocketAddr>,
    /// The addresses of nodes that it was given.
    pub nodes: usize,
}

impl NetworkFindings {
    pub(crate) fn new(report: Option<ReachReport>, neighbours: Neighbours, nodes: usize) -> Self {
        let isolation = isolation(report.as_ref(), neighbours);
        Self { isolation, reached: report.map(|it| it.reached).unwrap_or_default(), nodes }
    }

    /// That of a pod which has tried nothing.
    pub(crate) fn unknown() -> Self {
        Self::new(None, Neighbours::NotStarted, 0)
    }

    /// Of what it has reached, the addresses that are public, as of nodes: `k8s/base/network.yaml` lets
    /// pods to these unless its operator adds them to `except`.
    #[must_use]
    pub fn public_addresses(&self) -> BTreeSet<IpNet> {
        let reached = self.reached.iter().map(|address| address.ip().to_canonical());
        reached.filter(|ip| is_open(*ip)).map(IpNet::from).collect()
    }
}

/// Lets the pod of these objects try these addresses.
pub(crate) fn try_addresses(
    objects: &mut Objects,
    addresses: Vec<SocketAddr>,
    ready_within: Seconds,
) {
    let template = objects.job.spec.as_mut().and_then(|job| job.template.spec.as_mut());
    let mut inits = template.into_iter().flat_map(|pod| pod.init_containers.iter_mut().flatten());
    let Some(init) = inits.find(|init| init.name == INIT_CONTAINER) else { return };
    // It is ready in time in any case.
    let seconds = (ready_within.0 / 4).min(ENFORCED_WITHIN);
    init.env.get_or_insert_default().push(EnvVar {
        name: REACH_VARIABLE.to_owned(),
        value: Some(ReachTask { seconds, addresses }.to_json()),
        ..EnvVar::default()
    });
}

/// The addresses of these nodes' kubelets, as many as one pod tries.
pub(crate) fn kubelets(nodes: &[Node]) -> Vec<SocketAddr> {
    nodes.iter().flat_map(kubelet).take(MAX_ADDRESSES).collect()
}

fn kubelet(node: &Node) -> Vec<SocketAddr> {
    let Some(status) = &node.status else { return Vec::new() };
    let endpoint = status.daemon_endpoints.as_ref().and_then(|it| it.kubelet_endpoint.as_ref());
    let Some(port) = endpoint.and_then(|it| u16::try_from(it.port).ok()) else { return Vec::new() };
    let addresses = status.addresses.iter().flatten();
    let ips = addresses.filter_map(|address| address.address.parse::<IpAddr>().ok());
    ips.map(|ip| SocketAddr::new(ip, port)).collect()
}

/// What the init container of this pod has reported; none: it has tried nothing.
pub(crate) fn report(pod: &Pod) -> Option<ReachReport> {
    init_message(pod).and_then(ReachReport::find)
}

/// Where the SSH server of this pod listens; nowhere unless it is ready.
pub(crate) fn listening(pod: &Pod, port: u16) -> Vec<SocketAddr> {
    let Some(status) = pod.status.as_ref().filter(|_| is_ready(pod)) else { return Vec::new() };
    let ips = status.pod_ips.iter().flatten().filter_map(|it| it.ip.parse::<IpAddr>().ok());
    ips.map(|ip| SocketAddr::new(ip, port)).collect()
}

fn isolation(report: Option<&ReachReport>, neighbours: Neighbours) -> NetworkIsolation {
    match report {
        None | Some(ReachReport { tried: 0, .. }) => NetworkIsolation::Unknown,
        Some(report) if report.reached.is_empty() => NetworkIsolation::Enforced(neighbours),
        Some(_) => NetworkIsolation::NotEnforced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::{Value, json};

    /// With these init containers.
    fn objects(inits: &Value) -> Objects {
        let pod = json!({"containers": [{"name": "ssh"}], "initContainers": inits});
        let spec = json!({"template": {"spec": pod}});
        let job: Job = serde_json::from_value(json!({"spec": spec})).unwrap();
        Objects { job, secret: Secret::default(), reply: None, services: Vec::new(), egress: None }
    }

    #[test]
    fn the_container_that_installs_the_server_tries_and_no_other() {
        let inits = json!([{"name": INIT_CONTAINER}, {"name": "paygress-reply"}]);
        for (ready_within, seconds) in [(120, 10), (60, 10), (15, 3), (1, 0)] {
            let mut made = objects(&inits);
            let node = "192.0.2.1:10250".parse().unwrap();
            try_addresses(&mut made, vec![node], Seconds(ready_within));
            let pod = serde_json::to_value(made.pod()).unwrap();
            let [init, reply] = [0_usize, 1].map(|at| &pod["spec"]["initContainers"][at]["env"]);
            let value: Value = serde_json::from_str(init[0]["value"].as_str().unwrap()).unwrap();
            assert_eq!(init[0]["name"], "PAYGRESS_REACH");
            assert_eq!(value, json!({"seconds": seconds, "addresses": ["192.0.2.1:10250"]}));
            assert_eq!(*reply, Value::Null, "the admission policy lets it have none");
        }
        // A template with a server of its own.
        let mut own = objects(&json!([]));
        try_addresses(&mut own, Vec::new(), Seconds(120));
        assert_eq!(own.pod(), objects(&json!([])).pod());
    }

    #[test]
    fn kubelets_are_tried_at_each_address_of_their_nodes() {
        let node = |addresses: &Value, endpoints: &Value| -> Node {
            let status = json!({"addresses": addresses, "daemonEndpoints": endpoints});
            serde_json::from_value(json!({"status": status})).unwrap()
        };
        let endpoints = json!({"kubeletEndpoint": {"Port": 10_250}});
        let addresses = json!([
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "ExternalIP", "address": "2001:db8::1"},
            {"type": "Hostname", "address": "node-1"},
        ]);
        let expected: Vec<SocketAddr> =
            ["10.0.0.1:10250", "[2001:db8::1]:10250"].map(|it| it.parse().unwrap()).to_vec();
        let known = node(&addresses, &endpoints);
        let unknown = [Node::default(), node(&addresses, &json!({}))];
        assert_eq!(kubelets(&[&unknown[..], std::slice::from_ref(&known)].concat()), expected);
        assert_eq!(kubelets(&vec![known; 100]).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_pod_that_has_tried_in_vain_is_isolated() {
        let pod = |message: &str| -> Pod {
            let ended = json!({"terminated": {"exitCode": 0, "message": message}});
            let init = json!({"name": INIT_CONTAINER, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": ended});
            serde_json::from_value(json!({"status": {"initContainerStatuses": [init]}})).unwrap()
        };
        let keys = "ssh-ed25519 AAAA\n";
        for (line, expected) in [
            (
                r#"paygress-reach {"tried":2,"reached":[]}"#,
                NetworkIsolation::Enforced(Neighbours::NoRoom),
            ),
            (
                r#"paygress-reach {"tried":2,"reached":["10.96.0.1:443"]}"#,
                NetworkIsolation::NotEnforced,
            ),
            (r#"paygress-reach {"tried":0,"reached":[]}"#, NetworkIsolation::Unknown),
            ("paygress-reach {}", NetworkIsolation::Unknown),
            // Of an earlier version.
            ("", NetworkIsolation::Unknown),
        ] {
            let found = report(&pod(&format!("{keys}{line}\n")));
            assert_eq!(isolation(found.as_ref(), Neighbours::NoRoom), expected, "{line}");
            assert_eq!(expected.warning().is_some(), line.contains("10.96.0.1"), "{line}");
        }
        let none = report(&Pod::default());
        assert_eq!(isolation(none.as_ref(), Neighbours::Tried), NetworkIsolation::Unknown);
    }

    /// As on a node whose address is in none of the networks that the policy closes.
    #[test]
    fn the_public_addresses_that_a_pod_reaches_are_known() {
        let reached = [
            "10.96.0.1:443",
            "192.0.2.2:10250",
            "192.0.2.2:2222",
            "[::ffff:203.0.113.7]:10250",
            "[fd00::1]:10250",
            "[2002:a00:1::1]:10250",
            "[2001:db8::1]:10250",
        ];
        let reached: Vec<SocketAddr> = reached.map(|it| it.parse().unwrap()).to_vec();
        let report = ReachReport { tried: 8, reached: reached.clone() };
        let found = NetworkFindings::new(Some(report), Neighbours::Tried, 4);
        assert_eq!((found.isolation, &found.reached), (NetworkIsolation::NotEnforced, &reached));
        let public: Vec<String> = found.public_addresses().iter().map(IpNet::to_string).collect();
        assert_eq!(public, ["192.0.2.2/32", "203.0.113.7/32", "2001:db8::1/128"]);
        // One that refuses, and one that does not answer: neither is reached.
        let report = ReachReport { tried: 2, reached: Vec::new() };
        let found = NetworkFindings::new(Some(report), Neighbours::Tried, 1);
        assert_eq!(found.isolation, NetworkIsolation::Enforced(Neighbours::Tried));
        assert!(found.public_addresses().is_empty());
        assert_eq!(NetworkFindings::unknown().isolation, NetworkIsolation::Unknown);
    }

    #[test]
    fn a_neighbour_is_tried_at_each_of_its_addresses_once_it_is_ready() {
        let pod = |ready: &str| -> Pod {
            let ips = json!([{"ip": "10.0.0.7"}, {"ip": "2001:db8::7"}, {"ip": ""}]);
            let ready = json!([{"type": "Ready", "status": ready}]);
            serde_json::from_value(json!({"status": {"podIPs": ips, "conditions": ready}})).unwrap()
        };
        let expected: Vec<SocketAddr> =
            ["10.0.0.7:2222", "[2001:db8::7]:2222"].map(|it| it.parse().unwrap()).to_vec();
        assert_eq!(listening(&pod("True"), 2_222), expected);
        assert!(listening(&pod("False"), 2_222).is_empty());
        assert!(listening(&Pod::default(), 2_222).is_empty());
    }
}
