//! `paygress gateway` as a Deployment beside that of the service.

use super::process::{GIVEN_UP, WAYS, sessions};
use super::session::Pod;
use crate::machines::LoginKey;
use crate::support::testbed::{CLUSTER, DeployedGateway, Outside, sized, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// How long two probe pods may take, and policies until they are enforced for a new pod.
const SOON: Duration = Duration::from_secs(180);

fn buy(outside: &Outside, service: &DeployedGateway) -> Pod {
    let (key, token) = (LoginKey::new(), outside.token(21));
    let order =
        json!({"cashu_token": token, "ssh_username": "alice", "ssh_public_key": key.public()});
    let mut answer = Value::Null;
    wait_for("the place of the probe pods", SOON, || {
        answer = outside.ask(service.npub(), &order);
        answer["error_type"] != "resource_unavailable"
    });
    assert_eq!(answer["error_type"], Value::Null, "{}", answer["message"]);
    assert_eq!(outside.state(&token), "SPENT");
    Pod { answer, key, namespace: None }
}

/// By each way of the first answer, whichever pod the gateway is by then.
fn log_in(pod: &Pod) {
    for way in WAYS {
        wait_for(&format!("a login by {}", way.as_str()), SOON, || {
            let done = pod.try_run(&pod.client(way), "echo $USER is here");
            done.status.success() && done.stdout == b"alice is here\n"
        });
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_gateway_of_a_deployment_outlives_the_service_and_comes_back_as_it_was() {
    let _alone = CLUSTER.lock();
    // Pods reach this machine by the bridge.
    let outside = Outside::start("gateway-deployment", "10.88.0.1");
    let deployed = DeployedGateway::start(&outside);
    let pod = buy(&outside, &deployed);
    log_in(&pod);
    let mut open = sessions(&pod);

    // In the short form `process` shows it.
    if sized(false, true) {
        deployed.restart_service();
        for session in &mut open {
            session.echoes(b"still here");
        }
        let status = json!({"type": "status", "pod_name": pod.name()});
        assert_eq!(outside.ask(deployed.npub(), &status)["status"], "running");
    }

    deployed.delete_gateway_pod();
    for (way, session) in WAYS.into_iter().zip(open) {
        let shown = session.end(GIVEN_UP);
        println!("{}: ended: {shown}", way.as_str());
    }
    // The keys are of a Secret: the same ticket, address and host keys are good.
    log_in(&pod);
}
