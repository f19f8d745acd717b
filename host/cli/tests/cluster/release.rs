//! The chart as operators have it: a release of Helm's, and an artifact of a registry.

use crate::chart::{chart, packaged, template};
use crate::support::testbed::{CLUSTER, Outside, Release, Ssh, helm, kubectl, output};
use crate::{PASSWORD, in_workloads};
use paygress_oci::testing::{RequiredAuth, TestRegistry};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// From the install to the first login.
const BOUND: Duration = Duration::from_secs(600);
/// What uninstalling leaves, and what it removes.
const LEFT: [&str; 5] = [
    "persistentvolumeclaim/paygress",
    "namespace/user-workloads",
    "customresourcedefinition/policies.paygress.dev",
    "validatingadmissionpolicybinding/paygress-customers",
    "pod/paygress-test",
];
const REMOVED: [&str; 5] = [
    "deployment/paygress",
    "service/paygress",
    "configmap/paygress-files",
    "clusterrole/paygress-capacity",
    "priorityclass/paygress",
];

fn beside_the_service(kind: &str) -> String {
    kubectl(&["-n", "ingress-system", "get", kind, "--ignore-not-found", "-o", "name"])
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_release_is_installed_tested_upgraded_and_uninstalled() {
    let _alone = CLUSTER.lock();
    // Pods reach this machine by the bridge.
    let outside = Outside::start("release", "10.88.0.1");
    let begun = Instant::now();
    let mut release = Release::install(&outside, 120);
    let report = release.test();
    assert!(report.contains("Succeeded") && report.contains(r#""ready":true"#), "{report}");

    let ask = |request: Value| outside.ask(&release.service.npub, &request);
    let token = outside.token(21);
    let answer =
        ask(json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": PASSWORD}));
    assert!(answer["error_type"].is_null(), "{answer}");
    assert_eq!(outside.state(&token), "SPENT");
    let port = u16::try_from(answer["node_port"].as_u64().unwrap()).unwrap();
    let ssh = Ssh { port, username: "alice", password: PASSWORD };
    assert_eq!(ssh.run("echo hello").0, "hello\n");
    let took = begun.elapsed();
    println!("installed, and the first pod sold and logged in to: {} s", took.as_secs());
    assert!(took < BOUND, "{took:?}");

    release.upgrade(&outside, 3_600);
    let pod = &answer["pod_name"];
    assert_eq!(ask(json!({"type": "status", "pod_name": pod}))["status"], "running");
    let refused = ask(json!({"cashu_token": outside.token(21), "pod_name": pod}));
    assert_eq!(
        refused["error_type"], "insufficient_payment",
        "a sat is a second now, and the least is a minute: {refused}"
    );

    release.uninstall();
    for kind in LEFT {
        assert_ne!(beside_the_service(kind), "", "{kind}");
    }
    for kind in REMOVED {
        assert_eq!(beside_the_service(kind), "", "{kind}");
    }
    assert_eq!(ssh.run("echo hello").0, "hello\n", "what was sold runs on");
    assert_ne!(in_workloads(&["get", "networkpolicies", "-o", "name"]), "", "behind its walls");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_chart_is_pushed_to_a_registry_and_is_the_same_from_there() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = runtime.block_on(TestRegistry::open(RequiredAuth::None)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let archive = packaged(directory.path());
    let version = archive.file_stem().unwrap().to_str().unwrap().strip_prefix("paygress-").unwrap();
    let charts = format!("oci://{}/charts", registry.host());
    output(&mut helm(&["push", &archive.to_string_lossy(), &charts, "--plain-http"]));
    assert!(registry.manifest("charts/paygress", version).is_some(), "{version}");
    let reference = format!("{charts}/paygress");
    let pulled = template(Path::new(&reference), &["--version", version, "--plain-http"]);
    assert_eq!(pulled, template(&chart(), &[]));
}
