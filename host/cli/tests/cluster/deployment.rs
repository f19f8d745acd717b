//! The service in the cluster, as its manifests deploy it.

use crate::access::Shell;
use crate::machines::LoginKey;
use crate::policies::{Applied, condition, in_config_map, policy};
use crate::support::secrets;
use crate::support::testbed::{
    AuditLog, CLUSTER, Deployed, MinikubeSteps, Outside, Ssh, apply, kubectl, root, wait_for,
};
use crate::support::web::Web;
use crate::{PASSWORD, in_workloads, pods};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::runtime::Runtime;

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_manifests_of_the_service_are_what_a_cluster_takes() {
    let overlay = root().join("k8s/overlays/cluster");
    // What the service and the admission policy must both have is written once.
    let manifests = kubectl(&["kustomize", &overlay.to_string_lossy()]);
    for (setting, value) in [("SSH_PORT_RANGE_START", "20000"), ("SSH_PORT_RANGE_END", "20049")] {
        let line = format!("  {setting}: \"{value}\"\n");
        assert_eq!(manifests.matches(&line).count(), 2, "{line}");
    }
    let applied = kubectl(&["apply", "--dry-run=server", "-k", &overlay.to_string_lossy()]);
    for object in [
        "deployment.apps/paygress",
        "service/paygress",
        "resourcequota/customers",
        "validatingadmissionpolicy",
        "persistentvolumeclaim/paygress",
    ] {
        assert!(applied.contains(object), "{object} is missing: {applied}");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_steps_for_minikube_lead_to_a_login() {
    let _alone = CLUSTER.lock();
    // Pods reach this machine by the bridge.
    let outside = Outside::start("minikube", "10.88.0.1");
    let steps = MinikubeSteps::follow(&outside);
    let get = |object: &str, field: &str| {
        let field = format!("jsonpath={{{field}}}");
        kubectl(&["-n", "ingress-system", "get", object, "-o", &field])
    };
    let of_pod = ".spec.template.spec.containers[0].envFrom[0].configMapRef.name";
    let settings = format!("configmap/{}", get("deployment/paygress", of_pod));
    assert_eq!(get(&settings, ".data.RUN_MODE"), "http");

    let token = outside.token(21);
    let order = json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": PASSWORD});
    let web = Web::new(steps.address);
    let answer = Runtime::new().unwrap().block_on(web.spawn(order)).good();
    secrets::add_fields(&answer);
    assert_eq!(answer["ssh_host"], "127.0.0.1", "{answer}");
    let port = u16::try_from(answer["ssh_port"].as_u64().unwrap()).unwrap();
    let ssh = Ssh { port, username: "alice", password: PASSWORD };
    assert_eq!(ssh.run("echo hello").0, "hello\n");
}

/// The service where operators run it: its image, its rights, its volume, its probes; and what it
/// keeps over a restart.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_service_runs_in_the_cluster_as_its_manifests_say() {
    let _alone = CLUSTER.lock();
    // Pods reach this machine by the bridge.
    let outside = Outside::start("deployment", "10.88.0.1");
    let mut deployed = Deployed::start(&outside);
    let ask = |request: Value| outside.ask(&deployed.npub, &request);
    let token = outside.token(21);
    let answer =
        ask(json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": PASSWORD}));
    assert!(answer["error_type"].is_null(), "{answer}");
    assert_eq!(outside.state(&token), "SPENT");
    let ssh = Ssh {
        port: u16::try_from(answer["node_port"].as_u64().unwrap()).unwrap(),
        username: "alice",
        password: PASSWORD,
    };
    assert_eq!(ssh.run("echo hello").0, "hello\n");
    only_the_service_has_a_priority();

    let _applied = Applied;
    let file =
        format!("--from-file=policy.wasm={}", root().join("target/plugins/pricing.wasm").display());
    kubectl(&["-n", "ingress-system", "create", "configmap", "pricing-policy", &file]);
    apply(&policy(
        "pricing",
        in_config_map("pricing", "pricing-policy", json!({"sats_per_hour": 3_600})),
    ));
    condition("pricing", "Active", "True", "InForce");
    let history = deployed.paygress(&["policy", "history"]);
    assert!(
        history.lines().count() == 2 && history.contains("start") && history.contains("resource"),
        "{history}"
    );

    deployed.restart();
    assert_eq!(deployed.paygress(&["policy", "history"]), history, "it is the same revision");
    assert_eq!(ask(json!({"type": "status", "pod_name": answer["pod_name"]}))["status"], "running");
    let refused = ask(json!({"cashu_token": outside.token(21), "pod_name": answer["pod_name"]}));
    assert_eq!(
        refused["error_type"], "insufficient_payment",
        "a sat is a second now, and the least is a minute: {refused}"
    );
    // Beside the service, with its rights, where the disk is read-only.
    let report = deployed.paygress(&["doctor"]);
    assert!(report.contains("a service runs") && report.contains(" 0 fail"), "{report}");
    let audit = deployed.paygress(&["ledger", "audit"]);
    assert!(!audit.contains("missing"), "{audit}");
    its_gateway_leads_to_pods(&outside, &mut deployed);
}

/// What the service has requested of the API server since then.
fn requested(log: &AuditLog) -> String {
    std::io::read_to_string(log.reader()).unwrap()
}

/// A pod without a port is sold, and reached by each way from the service's pod: by the network that
/// both have, with the NetworkPolicies of the overlays.
fn its_gateway_leads_to_pods(outside: &Outside, deployed: &mut Deployed) {
    // The node has no room for one more.
    let delete = ["-n", "user-workloads", "delete", "jobs", "--all", "--cascade=foreground"];
    kubectl(&delete);
    deployed.add_gateway(outside);
    let (key, token) = (LoginKey::new(), outside.token(601));
    let log = AuditLog::begin();
    let order =
        json!({"cashu_token": token, "ssh_username": "alice", "ssh_public_key": key.public()});
    let mut answer = Value::Null;
    wait_for("the place of the probe pods", Duration::from_secs(180), || {
        answer = outside.ask(&deployed.npub, &order);
        answer["error_type"] != "resource_unavailable"
    });
    assert_eq!(answer["error_type"], Value::Null, "{}", answer["message"]);
    assert_eq!(answer["root"], true, "{answer}");
    // Otherwise that there are none of another kind would say nothing.
    assert!(requested(&log).contains("/namespaces/user-workloads/jobs"));
    let job = format!("batch.kubernetes.io/job-name={}", answer["pod_name"].as_str().unwrap());
    let ports = "jsonpath={.items[*].spec.containers[*].ports[*].hostPort}";
    assert_eq!(in_workloads(&["get", "pods", "-l", &job, "-o", ports]), "");

    let ways = answer["access"].as_array().unwrap();
    let kinds: Vec<&Value> = ways.iter().map(|way| &way["type"]).collect();
    assert_eq!(kinds, ["jump-host", "iroh"]);
    let shell = Shell { key: &key };
    for way in ways {
        // A new pod's policies may not be enforced yet: then the first one goes by the API server.
        wait_for("a login by the network of pods", Duration::from_secs(90), || {
            let log = AuditLog::begin();
            let shown = shell.run(way, "echo $USER is here; id -u");
            assert_eq!(shown, "alice is here\n0\n", "{way}");
            !requested(&log).contains("/portforward")
        });
    }
}

/// So the scheduler never evicts the service for a customer's pod, and the service evicts none.
fn only_the_service_has_a_priority() {
    let priority = "jsonpath={.items[*].spec.priority} {.items[*].spec.preemptionPolicy}";
    let service = ["-n", "ingress-system", "get", "pod", "-l", "app=paygress", "-o", priority];
    assert_eq!(kubectl(&service), "1000000 Never");
    assert_eq!(pods(priority), "0 PreemptLowerPriority");
}
