//! What becomes of the pods of a node that is lost.

use crate::pods;
use crate::support::testbed::{CLUSTER, FakeNodes, Testbed, is_left_out, wait_for};
use serde_json::json;
use std::time::Duration;

/// The cluster waits for 50 s until it calls a node unknown that does not report.
const LOSS: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_of_a_lost_node_is_paid_back_and_goes_when_its_node_is_back() {
    if is_left_out("a_pod_whose_node_is_lost… of the tests of orders, and node_loss.rs") {
        return;
    }
    let _alone = CLUSTER.lock();
    let allocatable =
        json!({"cpu": "1", "memory": "1Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    let mut nodes = FakeNodes::start(1, &allocatable);
    let testbed = Testbed::start("node-lost", &[("NODE_LOST_SECONDS", "10")]);
    let answer = testbed.ask(&json!({"cashu_token": testbed.token(121)}));
    let pod = answer["pod_name"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    assert_eq!(pods("jsonpath={.items[*].spec.nodeName}"), "fake-0");

    nodes.lose();
    wait_for("the end of the lease", LOSS, || testbed.log().contains("lease ended"));
    let (mut refund, mut n) = (None, 0);
    wait_for("the refund", Duration::from_secs(90), || {
        n += 1;
        // The same text in the same second is the same message, and is answered once.
        let status = testbed.ask(&json!({"type": "status", "pod_name": pod, "n": n}));
        assert_eq!(status["end_reason"], "node-lost", "{status}");
        refund = status["refund_token"].as_str().map(str::to_owned);
        refund.is_some()
    });
    assert_eq!(testbed.state(&refund.unwrap()), "UNSPENT");

    // Whether it runs nobody knows, until its node is back.
    wait_for("the pod to be marked for deletion", Duration::from_secs(60), || {
        !pods("jsonpath={.items[*].metadata.deletionTimestamp}").is_empty()
    });
    nodes.restore();
    wait_for("the pod to be gone", Duration::from_secs(120), || {
        pods("jsonpath={.items[*].metadata.name}").is_empty()
    });
}
