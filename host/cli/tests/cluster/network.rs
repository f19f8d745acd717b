//! What pods reach, where kube-router enforces `k8s/base/network.yaml`. The testbed's pods have no
//! address of IPv6, since its bridge gives them none: what the policy says of those addresses is in
//! `manifests.rs`.

use crate::access::WithoutPorts;
use crate::node::{Namespace, listening};
use crate::support::testbed::{
    AdmissionParameters, CLUSTER, EgressOverlay, NetworkPolicies, Ssh, Testbed, apply, kubectl,
    node_address, root, wait_for, wait_until_ready,
};
use crate::{PASSWORD, in_workloads};
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;

const SERVER: &str = "paygress.local/ssh:1";
/// How long policies may take to be enforced, or not to be any more.
const ENFORCED: Duration = Duration::from_secs(90);
/// How long a probe pod may take, or the two that try the network.
const PROBES: Duration = Duration::from_secs(120);

const INTERNET: &str = "203.0.113.2";
/// Of each private range, of carriers' (100.64.0.0/10), of benchmarks', of protocols' and of 6to4's
/// relays, and where clouds have their metadata service.
const PRIVATE: &str = "10.200.0.9 172.31.255.9 192.168.77.9 100.64.77.9 198.18.0.9 192.0.0.9 \
                       192.88.99.9 169.254.169.254";
/// Of mail servers among each other, of the web, and of mail servers where senders log in.
const PORTS: [u16; 4] = [25, 80, 465, 587];

/// A server with these addresses and ports, in a network namespace beside the node.
struct Beyond {
    servers: Vec<Child>,
    _directory: TempDir,
}

impl Beyond {
    fn start() -> Self {
        Self::remove();
        ip("netns add beyond");
        ip("link add beyond type veth peer name uplink netns beyond");
        ip("address add 203.0.113.1/30 dev beyond");
        ip("link set beyond up");
        ip(&format!("-n beyond address add {INTERNET}/30 dev uplink"));
        ip("-n beyond link set uplink up");
        for address in PRIVATE.split(' ') {
            ip(&format!("-n beyond address add {address}/32 dev uplink"));
            ip(&format!("route add {address} via {INTERNET}"));
        }
        let directory = tempfile::tempdir().unwrap();
        let server = |port: u16| {
            let mut server = Command::new("nsenter");
            server.args(["--net=/var/run/netns/beyond", "busybox", "httpd", "-f", "-h"]);
            server.arg(directory.path()).args(["-p", &port.to_string()]).spawn().unwrap()
        };
        let servers = PORTS.map(server).into();
        let beyond = Self { servers, _directory: directory };
        wait_for("the servers beyond the cluster", Duration::from_secs(10), || {
            PORTS.iter().all(|port| TcpStream::connect((INTERNET, *port)).is_ok())
        });
        beyond
    }

    fn remove() {
        for arguments in [["link", "delete", "beyond"], ["netns", "delete", "beyond"]] {
            let _ = Command::new("ip").args(arguments).output();
        }
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        Self::remove();
    }
}

fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status().unwrap();
    assert!(status.success(), "ip {command}");
}

/// What answers at the port of DNS and at another one, where the cluster's DNS is, with a Service that
/// has ports of the nodes too.
struct Resolver {
    address: String,
    service: String,
    /// Of the other port.
    node_port: String,
}

const RESOLVER: [&str; 4] = ["-n", "kube-system", "pod/resolver", "service/resolver"];

impl Resolver {
    fn start() -> Self {
        let labels = json!({"app": "resolver"});
        let metadata = json!({"name": "resolver", "namespace": "kube-system", "labels": labels});
        let ports = json!([{"name": "dns", "port": 53}, {"name": "other", "port": 8080}]);
        let service = json!({"type": "NodePort", "selector": labels, "ports": ports});
        for (kind, spec) in [("Pod", &listening()), ("Service", &service)] {
            let object =
                json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec});
            apply(&object.to_string());
        }
        let [option, namespace, pod, service] = RESOLVER;
        wait_until_ready(namespace, "resolver");
        let field = |object: &str, path: &str| {
            kubectl(&[option, namespace, "get", object, "-o", &format!("jsonpath={{{path}}}")])
        };
        Self {
            address: field(pod, ".status.podIP"),
            service: field(service, ".spec.clusterIP"),
            node_port: field(service, ".spec.ports[1].nodePort"),
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        kubectl(&[&["delete", "--ignore-not-found", "--wait"], &RESOLVER[..]].concat());
    }
}

/// A pod that was sold.
struct Sold {
    ssh: Ssh<'static>,
    name: String,
    address: String,
}

impl Sold {
    fn buy(testbed: &Testbed) -> Self {
        Self::buy_tier(testbed, "tiny")
    }

    fn buy_tier(testbed: &Testbed, tier: &str) -> Self {
        let token = testbed.token(120);
        let order = json!({"cashu_token": token, "pod_spec_id": tier, "ssh_username": "alice", "ssh_password": PASSWORD});
        let answer = testbed.ask(&order);
        assert!(answer["error_type"].is_null(), "refused: {answer}");
        let port = u16::try_from(answer["node_port"].as_u64().unwrap()).unwrap();
        let job = format!("batch.kubernetes.io/job-name={}", answer["pod_name"].as_str().unwrap());
        let field = |path: &str| {
            let path = format!("jsonpath={{.items[0]{path}}}");
            in_workloads(&["get", "pods", "-l", &job, "-o", &path])
        };
        Self {
            ssh: Ssh { port, username: "alice", password: PASSWORD },
            name: field(".metadata.name"),
            address: field(".status.podIP"),
        }
    }

    /// The names of those of these addresses to which it can connect.
    fn reached<'a>(&self, addresses: &[(&'a str, String)]) -> Vec<&'a str> {
        let list: Vec<&str> = addresses.iter().map(|(_, address)| address.as_str()).collect();
        let command = format!("/bin/paygress-sshd reach {}", list.join(" "));
        let (printed, status) = self.ssh.run(&command);
        assert_eq!(status, Some(0), "{command}: {printed}");
        let is_reached = |address: &String| printed.lines().any(|line| line == address);
        let reached = addresses.iter().filter(|(_, address)| is_reached(address));
        reached.map(|(name, _)| *name).collect()
    }
}

/// What listens on the node, and its port. kube-router lets all pods to the ports that Services may
/// have.
fn daemon() -> (TcpListener, u16) {
    let listeners = std::iter::repeat_with(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let mut daemons = listeners.map(|listener| {
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    });
    daemons.find(|(_, port)| !(30_000..=32_767).contains(port)).unwrap()
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_that_were_sold_reach_the_internet_and_dns_and_nothing_else() {
    let _alone = CLUSTER.lock();
    NetworkPolicies::apply();
    let (_beyond, resolver, node) = (Beyond::start(), Resolver::start(), node_address());
    let testbed = Testbed::start("network", &[]);
    let (pod, neighbour) = (Sold::buy(&testbed), Sold::buy(&testbed));
    let (_listener, daemon) = daemon();
    let open = vec![
        ("DNS", format!("{}:53", resolver.address)),
        ("DNS by its Service", format!("{}:53", resolver.service)),
        ("the web", format!("{INTERNET}:80")),
        ("mail over TLS", format!("{INTERNET}:465")),
        ("mail with a login", format!("{INTERNET}:587")),
    ];
    let mut closed = vec![
        ("a mail server", format!("{INTERNET}:25")),
        ("its neighbour", format!("{}:2222", neighbour.address)),
        ("its neighbour by a port of the node", format!("{node}:{}", neighbour.ssh.port)),
        ("another port where DNS is", format!("{}:8080", resolver.address)),
        ("a Service", format!("{}:8080", resolver.service)),
        ("a node port of a Service", format!("{node}:{}", resolver.node_port)),
        ("the API server by its Service", "10.96.0.1:443".to_owned()),
        ("the API server at the node", "10.88.0.1:16443".to_owned()),
        ("the kubelet", format!("{node}:10250")),
        ("the kubelet at the bridge", "10.88.0.1:10250".to_owned()),
        ("a daemon of the node", format!("{node}:{daemon}")),
        ("a daemon of the node at the bridge", format!("10.88.0.1:{daemon}")),
    ];
    closed.extend(PRIVATE.split(' ').map(|address| (address, format!("{address}:80"))));
    let all = [&open[..], &closed[..]].concat();
    let names = |addresses: &[(&'static str, String)]| -> Vec<&'static str> {
        addresses.iter().map(|(name, _)| *name).collect()
    };

    let removed = NetworkPolicies::removed();
    let mut reached = Vec::new();
    wait_for("the policies to be gone", ENFORCED, || {
        reached = pod.reached(&all);
        reached.len() == all.len() || {
            println!("reached without a policy: {reached:?}");
            false
        }
    });
    assert_eq!(reached, names(&all), "without a policy");
    drop(removed);
    wait_for("the policies to be enforced", ENFORCED, || pod.reached(&closed).is_empty());
    assert_eq!(pod.reached(&all), names(&open));
    assert_eq!(neighbour.reached(&[("the other", format!("{}:2222", pod.address))]), [""; 0]);
}

/// As an operator has it who sells a tier that only reaches the web.
const WEB_ONLY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-only, namespace: user-workloads}
spec:
  podSelector: {matchLabels: {paygress-egress: web}}
  policyTypes: [Egress]
  egress:
    - ports: [{protocol: TCP, port: 80}, {protocol: TCP, port: 443}]
      to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]
"#;

/// That policy; gone with this.
struct WebOnly;

impl WebOnly {
    fn apply() -> Self {
        apply(WEB_ONLY);
        Self
    }
}

impl Drop for WebOnly {
    fn drop(&mut self) {
        in_workloads(&["delete", "networkpolicy", "web-only", "--ignore-not-found"]);
    }
}

/// A template may have the label; here the administrator sets it.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_with_the_label_reach_what_a_policy_for_it_allows() {
    let _alone = CLUSTER.lock();
    NetworkPolicies::apply();
    let (_beyond, resolver) = (Beyond::start(), Resolver::start());
    let testbed = Testbed::start("network-label", &[]);
    let (labelled, other) = (Sold::buy(&testbed), Sold::buy(&testbed));
    let all = [
        ("DNS", format!("{}:53", resolver.address)),
        ("the web", format!("{INTERNET}:80")),
        ("mail over TLS", format!("{INTERNET}:465")),
        ("the neighbour", format!("{}:2222", other.address)),
    ];
    let is_so = |expected: &[&str]| {
        wait_for(&expected.join(", "), ENFORCED, || labelled.reached(&all) == expected);
    };
    is_so(&["DNS", "the web", "mail over TLS"]);
    in_workloads(&["label", "pod", &labelled.name, "paygress-egress=web"]);
    is_so(&["DNS"]);
    let web_only = WebOnly::apply();
    is_so(&["DNS", "the web"]);
    drop(web_only);
    is_so(&["DNS"]);
    let [dns, web, mail, _] = all;
    assert_eq!(other.reached(&[dns, web, mail]), ["DNS", "the web", "mail over TLS"]);
}

/// Two tiers, of which one has an allow-list.
const ALLOW_LIST: &str = r#"
[policy.duration]
minimum_seconds = 5
[policy.pricing]
sats_per_hour = 720
tiers = [
    { id = "tiny", cpu_millicores = 100, memory_mib = 64 },
    { id = "mirror", cpu_millicores = 100, memory_mib = 64 },
]
[policy.pod-template.egress.mirror]
cidrs = ["203.0.113.2/32"]
ports = ["80/tcp"]
"#;

fn policies_of_leases() -> String {
    in_workloads(&["get", "networkpolicies", "-l", "app=paygress-ssh-pod", "-o", "name"])
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_of_a_tier_with_an_allow_list_reach_it_and_dns_and_nothing_else() {
    let _alone = CLUSTER.lock();
    NetworkPolicies::apply();
    let _overlay = EgressOverlay::apply();
    let (_beyond, resolver) = (Beyond::start(), Resolver::start());
    let testbed = Testbed::start_with("network-egress", ALLOW_LIST, &[]);
    let (listed, other) = (Sold::buy_tier(&testbed, "mirror"), Sold::buy(&testbed));
    let all = |neighbour: &Sold| {
        [
            ("DNS", format!("{}:53", resolver.address)),
            ("the mirror", format!("{INTERNET}:80")),
            ("another port of it", format!("{INTERNET}:465")),
            ("mail", format!("{INTERNET}:25")),
            ("the neighbour", format!("{}:2222", neighbour.address)),
            ("the API server", "10.96.0.1:443".to_owned()),
            ("a private network", "10.200.0.9:80".to_owned()),
        ]
    };
    let reached = |pod: &Sold, neighbour: &Sold, expected: &[&str]| {
        let all = all(neighbour);
        wait_for(&expected.join(", "), ENFORCED, || pod.reached(&all) == expected);
    };
    reached(&listed, &other, &["DNS", "the mirror"]);
    reached(&other, &listed, &["DNS", "the mirror", "another port of it"]);

    let policies = policies_of_leases();
    let lease = listed.name.split('-').take(3).collect::<Vec<_>>().join("-");
    assert_eq!(policies.lines().count(), 1, "{policies}");
    assert!(policies.contains(&lease), "{policies} is of {}", listed.name);
    in_workloads(&["delete", "jobs", "--all", "--wait"]);
    wait_for("the policy to be collected", ENFORCED, || policies_of_leases().is_empty());
}

/// Where NodeLocal DNS listens on each node.
const NODE_CACHE: &str = "169.254.20.10";
const NODE_CACHE_PORTS: [u16; 2] = [53, 5_353];
/// The address that it gives for every name.
const CACHED: [u8; 4] = [203, 0, 113, 77];

/// In the place of NodeLocal DNS, at its port and at another one; its address is gone with this.
struct NodeCache;

impl NodeCache {
    fn start() -> Self {
        Self::remove();
        ip(&format!("address add {NODE_CACHE}/32 dev lo"));
        for port in NODE_CACHE_PORTS {
            let socket = UdpSocket::bind((NODE_CACHE, port)).unwrap();
            std::thread::spawn(move || {
                let mut query = [0; 512];
                while let Ok((length, from)) = socket.recv_from(&mut query) {
                    let _ = socket.send_to(&Self::answer(&query[..length]), from);
                }
            });
        }
        Self
    }

    /// To a query for the IPv4 address of a name.
    fn answer(query: &[u8]) -> Vec<u8> {
        // An empty label ends the name; type and class follow.
        let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
        let question = &query[12..12 + name + 5];
        let (flags, counts) = ([0x81, 0x80], [0, 1, 0, 1, 0, 0, 0, 0]);
        // The question's name, type A, class IN, for a minute, four bytes.
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
        [&query[..2], &flags[..], &counts[..], question, &record[..], &CACHED[..]].concat()
    }

    fn remove() {
        let arguments = ["address", "delete", "169.254.20.10/32", "dev", "lo"];
        let _ = Command::new("ip").args(arguments).output();
    }
}

impl Drop for NodeCache {
    fn drop(&mut self) {
        Self::remove();
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_resolve_names_at_the_cache_of_their_node_and_reach_no_other_port_of_it() {
    let _alone = CLUSTER.lock();
    NetworkPolicies::apply();
    let (_cache, testbed) = (NodeCache::start(), Testbed::start("network-node-cache", &[]));
    let pod = Sold::buy(&testbed);
    let answers = |port: &u16| {
        let query = format!("timeout 3 nslookup -type=a cached.example {NODE_CACHE}:{port}");
        pod.ssh.run(&query).0.contains("203.0.113.77")
    };
    let is_so = |expected: &[u16]| {
        wait_for(&format!("answers from the ports {expected:?}"), ENFORCED, || {
            NODE_CACHE_PORTS.into_iter().filter(answers).collect::<Vec<_>>() == expected
        });
    };
    is_so(&[53]);
    let removed = NetworkPolicies::removed();
    is_so(&[53, 5_353]);
    // With another address in its place.
    apply(&NetworkPolicies::text().replace(NODE_CACHE, "192.0.2.10"));
    is_so(&[]);
    drop(removed);
    is_so(&[53]);
}

/// `k8s/base/network.yaml`, in namespaces of this test: it is about other pods' ways in as well.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_are_reached_at_the_ssh_port_alone() {
    let _alone = CLUSTER.lock();
    let (walled, dns) = (Namespace::create("walled"), Namespace::create("dns"));
    walled.start("pod", &listening());
    let neighbour = walled.start("neighbour", &listening());
    let resolver = dns.start("resolver", &listening());
    let [ssh, other] = [format!("{neighbour}:2222"), format!("{neighbour}:8080")];
    let (both, dns_port) = ([ssh, other.clone()], [format!("{resolver}:53")]);
    wait_for("both ports to be reached without a policy", ENFORCED, || {
        dns.reached("resolver", &both) == both
    });

    let policies = std::fs::read_to_string(root().join("k8s/base/network.yaml")).unwrap();
    apply(&policies.replace("user-workloads", "walled").replace("kube-system", "dns"));
    wait_for("the policies to be enforced", ENFORCED, || {
        walled.reached("pod", &both).is_empty()
            && dns.reached("resolver", std::slice::from_ref(&other)).is_empty()
    });
    wait_for("what the policies allow to be reached", ENFORCED, || {
        walled.reached("pod", &dns_port) == dns_port && dns.reached("resolver", &both) == both[..1]
    });
    only_the_gateway_connects(&dns, &both);
}

/// By `k8s/overlays/without-ports`, at the first of these addresses alone: the resolver is the gateway
/// while it has its label, and its namespace is that of the gateway.
fn only_the_gateway_connects(dns: &Namespace, both: &[String; 2]) {
    let built = WithoutPorts::build();
    let policy = built.named("NetworkPolicy", "customers-ingress").to_string();
    let policy = policy.replace("user-workloads", "walled");
    let reaches = |what: &str, expected: &[String]| {
        wait_for(what, ENFORCED, || dns.reached("resolver", both) == expected);
    };
    dns.kubectl(&["label", "pod", "resolver", "app=paygress-gateway"]);
    apply(&policy);
    reaches("a pod of another namespace to be refused", &[]);
    apply(&policy.replace("ingress-system", "dns"));
    reaches("the gateway to be let in, at the SSH port", &both[..1]);
    dns.kubectl(&["label", "pod", "resolver", "--overwrite", "app=another"]);
    reaches("a pod with another label to be refused", &[]);
}

/// Readiness, log and overview of a service whose pod has tried the network. Pods are sold before.
fn probed(name: &str) -> (Value, String, String) {
    let settings =
        [("SSH_SERVER_IMAGE", SERVER), ("POD_PROBE", "true"), ("POD_READY_SECONDS", "60")];
    let testbed = Testbed::start(name, &settings);
    wait_for("a probe pod", PROBES, || testbed.readyz()["ready"] == true);
    wait_for("what it reaches", PROBES, || testbed.log().contains("reaches"));
    (testbed.readyz(), testbed.log(), testbed.overview())
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn an_operator_sees_whether_pods_reach_the_cluster() {
    let _alone = CLUSTER.lock();
    let _set = AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)]);
    NetworkPolicies::apply();
    let (_, log, overview) = probed("network-enforced");
    assert!(!overview.contains("enforces NetworkPolicies"), "{overview}");
    let enforced = "reaches neither the API server nor a node, nor another probe pod";
    assert!(log.contains(enforced), "{log}");

    let removed = NetworkPolicies::removed();
    let (ready, log, overview) = probed("network-open");
    drop(removed);
    assert_eq!(ready["ready"], true, "pods are sold: {ready}");
    assert_eq!(ready["warnings"], Value::Null, "anybody may read it: {ready}");
    assert!(overview.contains("enforces NetworkPolicies"), "{overview}");
    let line = log.lines().filter(|line| line.contains("reaches what no customer may"));
    let lines: Vec<&str> = line.collect();
    let kubelet = format!("{}:10250", node_address());
    assert_eq!(lines.len(), 1, "once: {log}");
    assert!(lines[0].contains("10.96.0.1:443") && lines[0].contains(&kubelet), "{}", lines[0]);
    assert!(lines[0].contains(":2222"), "its neighbour's SSH port: {}", lines[0]);
}
