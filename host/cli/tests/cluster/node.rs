//! What the node does for pods: walls around their network, and a root that is nobody outside.

use crate::support::testbed::{CLUSTER, applied, apply, kubectl, root, wait_for};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;

/// A namespace without the admission policy. It is gone with this, and its pods too.
pub(crate) struct Namespace(&'static str);

impl Namespace {
    pub(crate) fn create(name: &'static str) -> Self {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply(&namespace.to_string());
        Self(name)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["-n", self.0], arguments].concat())
    }

    /// Starts a pod, waits until it is ready, and returns its address.
    pub(crate) fn start(&self, name: &str, spec: &Value) -> String {
        let metadata = json!({"name": name, "namespace": self.0});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        // A new namespace has no service account for a moment.
        let pod = pod.to_string();
        wait_for("the namespace to take a pod", Duration::from_secs(30), || applied(&pod));
        self.kubectl(&["wait", "pod", name, "--for=condition=Ready", "--timeout=60s"]);
        self.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"])
    }

    /// What this prints in a pod.
    fn shell(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Those of these addresses (`host:port`) to which a pod can connect.
    fn reached(&self, pod: &str, addresses: &[String]) -> Vec<String> {
        // At once: what is refused takes its time.
        let script = format!(
            "for to in {}; do (nc -w 2 ${{to%:*}} ${{to#*:}} </dev/null >/dev/null 2>&1 && echo $to) & done; wait",
            addresses.join(" ")
        );
        let printed = self.shell(pod, &script);
        let is_reached = |address: &&String| printed.lines().any(|line| line == address.as_str());
        addresses.iter().filter(is_reached).cloned().collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", self.0, "--ignore-not-found"]);
    }
}

/// A pod that listens at the port for DNS, that for SSH and another.
fn listening() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "ssh",
            "image": "paygress.local/ssh:1",
            "command": ["sh", "-c", "for port in 53 8080 2222; do httpd -h /home -p $port; done; exec sleep 3600"],
            "readinessProbe": {"tcpSocket": {"port": 2222}, "periodSeconds": 1},
            "securityContext": {"runAsUser": 0},
        }],
    })
}

const INTERNET: &str = "203.0.113.2";
const PRIVATE: &str = "172.31.255.9";
/// As clouds have their metadata service.
const LINK_LOCAL: &str = "169.254.77.77";

/// A server with these addresses, in a network namespace beside the node.
struct Beyond {
    server: Child,
    _directory: TempDir,
}

impl Beyond {
    fn start() -> Self {
        Self::remove();
        for command in [
            "netns add beyond",
            "link add beyond type veth peer name uplink netns beyond",
            "address add 203.0.113.1/30 dev beyond",
            "link set beyond up",
            format!("-n beyond address add {INTERNET}/30 dev uplink").as_str(),
            format!("-n beyond address add {PRIVATE}/32 dev uplink").as_str(),
            format!("-n beyond address add {LINK_LOCAL}/32 dev uplink").as_str(),
            "-n beyond link set uplink up",
            format!("route add {PRIVATE} via {INTERNET}").as_str(),
            format!("route add {LINK_LOCAL} via {INTERNET}").as_str(),
        ] {
            let status = Command::new("ip").args(command.split(' ')).status().unwrap();
            assert!(status.success(), "ip {command}");
        }
        let directory = tempfile::tempdir().unwrap();
        let mut server = Command::new("nsenter");
        server.args(["--net=/var/run/netns/beyond", "busybox", "httpd", "-f", "-p", "80", "-h"]);
        let server = server.arg(directory.path()).spawn().unwrap();
        let beyond = Self { server, _directory: directory };
        wait_for("the server beyond the cluster", Duration::from_secs(10), || {
            TcpStream::connect((INTERNET, 80)).is_ok()
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
        let _ = self.server.kill();
        let _ = self.server.wait();
        Self::remove();
    }
}

/// `k8s/base/network.yaml`, in namespaces of this test.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_reach_the_internet_and_dns_and_are_reached_at_the_ssh_port() {
    let _alone = CLUSTER.lock();
    let _beyond = Beyond::start();
    let (walled, dns) = (Namespace::create("walled"), Namespace::create("dns"));
    walled.start("pod", &listening());
    let neighbour = walled.start("neighbour", &listening());
    let resolver = dns.start("resolver", &listening());
    let open = [format!("{resolver}:53"), format!("{INTERNET}:80")];
    let closed = [
        format!("{neighbour}:2222"),
        format!("{neighbour}:8080"),
        format!("{resolver}:8080"),
        // The API server and the kubelet.
        "10.96.0.1:443".to_owned(),
        "10.88.0.1:16443".to_owned(),
        "10.88.0.1:10250".to_owned(),
        format!("{PRIVATE}:80"),
        format!("{LINK_LOCAL}:80"),
    ];
    let all = [&open[..], &closed[..]].concat();
    assert_eq!(walled.reached("pod", &all), all, "without a policy");

    let policies = std::fs::read_to_string(root().join("k8s/base/network.yaml")).unwrap();
    apply(&policies.replace("user-workloads", "walled").replace("kube-system", "dns"));
    let [ssh, other] = [format!("{neighbour}:2222"), format!("{neighbour}:8080")];
    wait_for("the policies to be enforced", Duration::from_secs(30), || {
        walled.reached("pod", &closed).is_empty()
            && dns.reached("resolver", std::slice::from_ref(&other)).is_empty()
    });
    assert_eq!(walled.reached("pod", &all), open);
    assert_eq!(dns.reached("resolver", &[ssh.clone(), other]), [ssh]);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn root_of_a_user_namespace_is_nobody_on_the_node() {
    let _alone = CLUSTER.lock();
    let namespace = Namespace::create("rooted");
    let mut spec = listening();
    spec["hostUsers"] = json!(false);
    namespace.start("pod", &spec);
    let owned = namespace.shell("pod", "id -u; touch /tmp/a; chown 1234 /tmp/a; stat -c %u /tmp/a");
    assert_eq!(owned, "0\n1234\n", "it is root inside");
    let map = namespace.shell("pod", "cat /proc/self/uid_map");
    let map: Vec<u64> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(matches!(map[..], [0, outside, 65_536] if outside >= 65_536), "{map:?}");
    for refused in ["mount -t tmpfs none /home", "mknod /tmp/disk b 254 0"] {
        let script = format!("{refused} 2>/dev/null || echo refused");
        assert_eq!(namespace.shell("pod", &script), "refused\n", "{refused}");
    }
}
