//! The API server is away for a while: a proxy before it refuses. Orders are refused before they
//! are paid, pods are kept, and what has ended meanwhile is recorded afterwards.

use crate::pods;
use crate::support::testbed::{CLUSTER, Proxy, Testbed, wait_for};
use serde_json::json;
use std::time::Duration;

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn while_the_api_server_is_away_pods_are_kept_and_nothing_is_taken() {
    let _alone = CLUSTER.lock();
    let kubeconfig = Testbed::kubeconfig_of_the_service();
    let api_server = Proxy::before_the_api_server(kubeconfig.path());
    let path = kubeconfig.path().to_str().unwrap();
    let testbed = Testbed::start("api-server-away", &[("KUBECONFIG", path)]);
    // Five seconds a sat, less the mint's fee: one outlives the outage, the other does not.
    let kept = testbed.ask(&json!({"cashu_token": testbed.token(121)}));
    let kept = kept["pod_name"].as_str().unwrap_or_else(|| panic!("{kept}")).to_owned();
    let over = testbed.ask(&json!({"cashu_token": testbed.token(7)}));
    let over = over["pod_name"].as_str().unwrap_or_else(|| panic!("{over}")).to_owned();
    let uid = pods("jsonpath={.items[?(@.status.phase=='Running')].metadata.uid}");

    api_server.refuse();
    let token = testbed.token(5);
    let refused = testbed.ask(&json!({"cashu_token": token}));
    assert_eq!(refused["error_type"], "backend_error", "{refused}");
    assert_eq!(testbed.state(&token), "UNSPENT");
    wait_for("the service to be not ready", Duration::from_secs(30), || {
        testbed.readyz().to_string().contains("the cluster does not answer")
    });
    wait_for("the end of a pod that nobody can report", Duration::from_secs(60), || {
        let running = pods("jsonpath={.items[?(@.status.phase=='Running')].metadata.uid}");
        running.split_whitespace().count() == 1 && uid.contains(running.trim())
    });
    let ends = |log: &str| log.matches("lease ended").count();
    assert_eq!(ends(&testbed.log()), 0, "an end was guessed");

    api_server.pass();
    wait_for("the end of the lease", Duration::from_secs(90), || ends(&testbed.log()) == 1);
    let status = |pod: &str, n: u32| {
        let status = testbed.ask(&json!({"type": "status", "pod_name": pod, "n": n}));
        status["status"].as_str().unwrap_or_else(|| panic!("{status}")).to_owned()
    };
    assert_eq!((status(&over, 1).as_str(), status(&kept, 2).as_str()), ("ended", "running"));
    let sold = testbed.ask(&json!({"cashu_token": token}));
    assert!(sold["pod_name"].is_string(), "{sold}");
}
