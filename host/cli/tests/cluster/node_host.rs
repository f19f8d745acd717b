//! Customers log in at the node of their pod (`SSH_HOST_FROM=node`).

use crate::in_workloads;
use crate::support::testbed::{CLUSTER, FakeNodes, Testbed, kubectl};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What makes a service look for the host of each pod, and give it as it is: nobody has the other.
pub(crate) const FROM_NODE: [(&str, &str); 2] =
    [("SSH_HOST_FROM", "node"), ("SSH_HOST", "192.0.2.1")];

/// The host that the real node's annotation names, until this is dropped.
pub(crate) struct NodeHost;

impl NodeHost {
    pub(crate) fn name(host: &str) -> Self {
        let annotation = format!("paygress.dev/ssh-host={host}");
        kubectl(&["annotate", "node", "testbed", "--overwrite", &annotation]);
        Self
    }
}

impl Drop for NodeHost {
    fn drop(&mut self) {
        kubectl(&["annotate", "node", "testbed", "paygress.dev/ssh-host-"]);
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_is_reached_at_its_node_as_long_as_it_lives() {
    let _alone = CLUSTER.lock();
    let named = NodeHost::name("localhost");
    let testbed = Testbed::start("node-host", &FROM_NODE);
    let buy = || {
        let answer = testbed.ask(&json!({"cashu_token": testbed.token(121)}));
        assert_eq!(answer["error_type"], Value::Null, "{}", answer["message"]);
        answer
    };
    let first = buy();
    assert_eq!(first["ssh_host"], "localhost");
    let command = first["instructions"][0].as_str().unwrap();
    assert!(command.starts_with("ssh -p ") && command.ends_with("@localhost"), "{command}");

    // What no host is called is passed over: the cluster's own address is the next.
    drop(named);
    let _broken = NodeHost::name("-oProxyCommand=reboot");
    let own = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    let own = kubectl(&["get", "node", "testbed", "-o", own]);
    let second = buy();
    assert_eq!(second["ssh_host"], own.split(' ').next().unwrap(), "{own}");
    assert!(testbed.log().contains("a node's annotation or address is not used"));

    for (pod, host) in [(&first, "localhost"), (&second, own.split(' ').next().unwrap())] {
        let status = testbed.ask(&json!({"type": "status", "pod_name": pod["pod_name"]}));
        assert_eq!(status["ssh_host"], host, "as it was sold: {status}");
    }
}

/// The nodes are kwok's, and each has room for one pod.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn each_pod_is_reached_at_its_own_node() {
    let _alone = CLUSTER.lock();
    let allocatable =
        json!({"cpu": "150m", "memory": "1Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    let _nodes = FakeNodes::start(2, &allocatable);
    let host = |node: &str| format!("{node}.example.com");
    let expected = ["fake-0", "fake-1"].map(|node| {
        let annotation = format!("paygress.dev/ssh-host={}", host(node));
        kubectl(&["annotate", "node", node, &annotation]);
        host(node)
    });
    let testbed = Testbed::start("node-hosts", &FROM_NODE);
    let hosts = [(), ()].map(|()| {
        let answer = testbed.ask(&json!({"cashu_token": testbed.token(121)}));
        assert_eq!(answer["error_type"], Value::Null, "{}", answer["message"]);
        let job = format!("batch.kubernetes.io/job-name={}", answer["pod_name"].as_str().unwrap());
        let path = "jsonpath={.items[0].spec.nodeName}";
        let node = in_workloads(&["get", "pods", "-l", &job, "-o", path]);
        assert_eq!(answer["ssh_host"], host(&node), "{node}");
        host(&node)
    });
    assert_eq!(BTreeSet::from(hosts), BTreeSet::from(expected), "a pod on each");
}
