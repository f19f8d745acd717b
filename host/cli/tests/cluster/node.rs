//! What the node does for pods: namespaces of tests, and a root that is nobody outside.

use crate::support::testbed::{CLUSTER, apply, kubectl, wait_for, wait_until_ready};
use serde_json::{Value, json};
use std::time::Duration;

/// A namespace without the admission policy. It is gone with this, and its pods too.
pub(crate) struct Namespace(&'static str);

impl Namespace {
    pub(crate) fn create(name: &'static str) -> Self {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply(&namespace.to_string());
        Self(name)
    }

    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["-n", self.0], arguments].concat())
    }

    /// Starts a pod, waits until it is ready, and returns its address.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, spec: &Value) -> String {
        let metadata = json!({"name": name, "namespace": self.0});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        // A new namespace has none for a moment, and takes no pod until then.
        wait_for("the namespace to have a service account", Duration::from_secs(60), || {
            !self.kubectl(&["get", "serviceaccounts", "-o", "name"]).is_empty()
        });
        apply(&pod.to_string());
        wait_until_ready(self.0, name);
        self.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"])
    }

    /// What this prints in a pod.
    #[track_caller]
    fn shell(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Those of these addresses (`host:port`) to which a pod can connect.
    pub(crate) fn reached(&self, pod: &str, addresses: &[String]) -> Vec<String> {
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
        kubectl(&["delete", "namespace", self.0, "--ignore-not-found", "--timeout=180s"]);
    }
}

/// A pod that listens at the port for DNS, that for SSH and another.
pub(crate) fn listening() -> Value {
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
