//! Nodes that kwok plays.

use super::{Daemon, admin_kubeconfig, apply, kubectl, kubectl_command, root, state, wait_for};
use crate::support::secrets;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The annotation by which kwok knows its nodes, and their label.
const FAKE: &str = "kwok.x-k8s.io/node";

/// Nodes that [kwok](https://kwok.sigs.k8s.io) plays, and no others that take pods: what runs on
/// them is ready at once and uses nothing. The real node takes pods again once this is dropped.
pub struct FakeNodes {
    kwok: Option<Daemon>,
}

impl FakeNodes {
    /// So many nodes, each with this for pods.
    pub fn start(nodes: usize, allocatable: &Value) -> Self {
        remove_pods();
        let fake = Self { kwok: Some(Daemon::start(&mut kwok(), &log())) };
        kubectl(&["cordon", "testbed"]);
        for number in 0..nodes {
            let name = format!("fake-{number}");
            let labels =
                json!({FAKE: "fake", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
            let metadata = json!({"name": name, "labels": labels, "annotations": {FAKE: "fake"}});
            let status = json!({"allocatable": allocatable, "capacity": allocatable});
            let node =
                json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status});
            apply(&node.to_string());
        }
        wait_for("the fake nodes to take pods", Duration::from_secs(60), || {
            ready_nodes().iter().filter(|node| node["spec"]["taints"].is_null()).count() == nodes
        });
        fake
    }

    /// They report nothing any more, nor do their pods.
    pub fn lose(&mut self) {
        self.kwok = None;
    }

    /// They are back, with what they had.
    pub fn restore(&mut self) {
        self.kwok.get_or_insert_with(|| Daemon::start(&mut kwok(), &log()));
    }
}

impl Drop for FakeNodes {
    fn drop(&mut self) {
        // While kwok still ends its pods.
        self.restore();
        remove_pods();
        kubectl(&["delete", "nodes", "-l", FAKE, "--ignore-not-found"]);
        kubectl(&["uncordon", "testbed"]);
    }
}

fn kwok() -> Command {
    let mut command = Command::new(state().join("bin/kwok"));
    command.arg("--config").arg(state().join("bin/kwok.yaml"));
    command.arg("--kubeconfig").arg(admin_kubeconfig());
    command.arg("--manage-all-nodes=false");
    command.arg(format!("--manage-nodes-with-annotation-selector={FAKE}=fake"));
    command.arg("--node-lease-duration-seconds=40");
    command
}

fn log() -> PathBuf {
    let logs = root().join("target/e2e");
    std::fs::create_dir_all(&logs).unwrap();
    logs.join("kwok.log")
}

/// The nodes that are ready and not cordoned.
pub fn ready_nodes() -> Vec<Value> {
    let mut nodes = items(&["get", "nodes", "-o", "json"]);
    nodes.retain(|node| {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let is_ready = conditions
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        is_ready && node["spec"]["unschedulable"] != true
    });
    nodes
}

/// The objects that this `kubectl get` lists.
pub fn items(arguments: &[&str]) -> Vec<Value> {
    let list: Value = serde_json::from_str(&kubectl(arguments)).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Removes the customers' pods, and waits until they are gone: until then they hold their place.
/// Fails if one has logged a secret.
pub fn remove_pods() {
    let logs = logs_of_pods();
    let job = ["-n", "user-workloads", "delete", "jobs", "--all", "--cascade=foreground"];
    kubectl(&[&job[..], &["--wait", "--timeout=120s"]].concat());
    wait_for("the customers' pods to be gone", Duration::from_secs(60), || {
        items(&["-n", "user-workloads", "get", "pods", "-o", "json"]).is_empty()
    });
    if !thread::panicking() {
        secrets::assert_none("a log of customers' pods", &logs);
    }
}

/// What the customers' pods have logged that are there; nothing where all nodes are fake. Of a
/// container that has not started it is the reason.
fn logs_of_pods() -> String {
    let of_customers = |command: &[&str]| {
        let label = ["-l", "app=paygress-ssh-pod"];
        kubectl(&[&["-n", "user-workloads"][..], command, &label].concat())
    };
    let real = ["get", "pods", "-o", "name", "--field-selector=spec.nodeName=testbed"];
    if of_customers(&real).is_empty() {
        return String::new();
    }
    of_customers(&["logs", "--all-containers", "--tail=-1", "--ignore-errors"])
}

/// Thousands of customers' pods, which are removed when this is dropped: by the API server, since
/// `kubectl` would delete one after the other.
pub struct ManyPods;

impl ManyPods {
    const JOBS: &str = "/apis/batch/v1/namespaces/user-workloads/jobs?propagationPolicy=Background";
    const REMOVED_WITHIN: Duration = Duration::from_secs(1_800);
    const AGAIN: Duration = Duration::from_secs(2);

    fn are_gone() -> bool {
        let mut listing =
            kubectl_command(&["-n", "user-workloads", "get", "jobs,pods", "-o", "name"]);
        listing.output().is_ok_and(|listed| listed.status.success() && listed.stdout.is_empty())
    }
}

impl Drop for ManyPods {
    fn drop(&mut self) {
        let begun = Instant::now();
        // It may panic already. A request deletes as many as it can within a minute.
        while !Self::are_gone() && begun.elapsed() < Self::REMOVED_WITHIN {
            let mut deletion = kubectl_command(&["delete", "--raw", Self::JOBS]);
            let _ = deletion.stdout(Stdio::null()).stderr(Stdio::null()).status();
            thread::sleep(Self::AGAIN);
        }
    }
}
