//! The operator's parameters: the ConfigMap `paygress-admission`.

use super::{Attacker, Created, SOON, merge, patched, pod, service};
use crate::support::testbed::{AdmissionParameters, CLUSTER, apply, wait_for};
use serde_json::{Value, json};

/// Each parameter, and what is accepted with it and refused without it.
fn allowed() -> Vec<(&'static str, &'static str, Value)> {
    let gpu = json!({"resources": {"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}}});
    let terms = json!([{"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]);
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    vec![
        ("POD_DEVICES=example.com/gpu", "/spec/containers/0", gpu),
        (
            "POD_CPU_OVERCOMMIT=3",
            "/spec/containers/0",
            json!({"resources": {"requests": {"cpu": "34m"}}}),
        ),
        (
            "POD_MEMORY_OVERCOMMIT=2",
            "/spec/containers/0",
            json!({"resources": {"requests": {"memory": "32Mi"}}}),
        ),
        ("POD_RUNTIME_CLASSES=other", "/spec", json!({"runtimeClassName": "other"})),
        (
            "POD_TOLERATIONS=x, example.com/gpu",
            "/spec",
            json!({"tolerations": [{"key": "example.com/gpu", "operator": "Exists"}]}),
        ),
        ("POD_NODE_LABELS=pool", "/spec", json!({"nodeSelector": {"pool": "leases"}})),
        ("POD_NODE_LABELS=x=y,pool=leases", "/spec", json!({"nodeSelector": {"pool": "leases"}})),
        ("POD_NODE_LABELS=pool", "/spec", json!({"affinity": affinity})),
        ("POD_PRIORITY_CLASSES=other", "/spec", json!({"priorityClassName": "other"})),
        (
            "POD_IMAGE_PULL_SECRETS=registry",
            "/spec",
            json!({"imagePullSecrets": [{"name": "registry"}]}),
        ),
        (
            "POD_ANNOTATIONS=example.com/x",
            "/metadata",
            json!({"annotations": {"example.com/x": "y"}}),
        ),
        (
            "SSH_PORT=22",
            "/spec/containers/0",
            json!({"ports": [{"containerPort": 22, "hostPort": 20500}]}),
        ),
        (
            "SSH_PORT_RANGE_END=21001",
            "/spec/containers/0",
            json!({"ports": [{"containerPort": 2222, "hostPort": 21001}]}),
        ),
    ]
}

/// The part of the refusal that names the parameter.
fn why(parameter: &str) -> &str {
    if parameter.starts_with("SSH_PORT") { "one host port, for SSH_PORT" } else { parameter }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn what_the_operator_names_is_accepted() {
    let _alone = CLUSTER.lock();
    let _created = Created(&["runtimeclass/other", "priorityclass/other"]);
    let attacker = Attacker::new();
    for (kind, group, more) in [
        ("RuntimeClass", "node.k8s.io", json!({"handler": "runc"})),
        ("PriorityClass", "scheduling.k8s.io", json!({"value": 0})),
    ] {
        let mut class = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "other"}});
        merge(&mut class, more);
        apply(&class.to_string());
    }
    let allowed = allowed();
    for (parameter, place, patch) in &allowed {
        let (name, value) = parameter.split_once('=').unwrap();
        let wanted = patched(pod(), place, patch);
        wait_for("the refusal without it", SOON, || {
            let refused = attacker.dry_run("pods", &wanted);
            refused
                .is_err_and(|text| text.contains("paygress-customers") && text.contains(why(name)))
        });
        let _set = AdmissionParameters::set(&[(name, value)]);
        wait_for(parameter, SOON, || attacker.dry_run("pods", &wanted).is_ok());
    }
    println!("{} parameters allow what they name", allowed.len());
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn requests_are_at_least_the_operators_part_of_the_limits() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let requests = |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
    let least = patched(pod(), "/spec/containers/0", &requests("34m", "32Mi"));
    let (cpu, memory) = ("POD_CPU_OVERCOMMIT", "POD_MEMORY_OVERCOMMIT");
    let _set = AdmissionParameters::set(&[(cpu, "3"), (memory, "2")]);
    attacker.is_refused(
        "pods",
        &least,
        "/spec/containers/0",
        &[
            (requests("33m", "32Mi"), cpu),
            (requests("0", "32Mi"), cpu),
            (requests("34m", "31Mi"), memory),
        ],
    );
    let _without = AdmissionParameters::without(&[cpu, memory]);
    wait_for("the refusal without them", SOON, || {
        attacker.dry_run("pods", &least).is_err_and(|text| text.contains(cpu))
    });
    attacker.dry_run("pods", &pod()).unwrap();
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_node_port_is_one_of_the_range() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let _set = AdmissionParameters::set(&[
        ("SSH_PORT_RANGE_START", "31100"),
        ("SSH_PORT_RANGE_END", "31199"),
    ]);
    let node_port = |more: Value| {
        let mut port = json!({"name": "ssh", "port": 22, "targetPort": 2222, "nodePort": 31150});
        merge(&mut port, more);
        let local = json!({"externalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack"});
        let mut spec = json!({"type": "NodePort", "ports": [port]});
        merge(&mut spec, local);
        spec
    };
    let accepted = patched(service(), "/spec", &node_port(json!({})));
    wait_for("the range", SOON, || attacker.dry_run("services", &accepted).is_ok());
    let why = "from 31100 to 31199";
    attacker.is_refused(
        "services",
        &accepted,
        "/spec",
        &[
            (node_port(json!({"nodePort": 31099})), why),
            (node_port(json!({"nodePort": 31200})), why),
            (node_port(json!({"targetPort": 22})), why),
            (node_port(json!({"protocol": "UDP"})), why),
        ],
    );
}

/// Whoever makes the pod or the Service.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn ports_that_are_not_sold_are_refused() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let ports = |ports: Value| patched(pod(), "/spec/containers/0", &json!({"ports": ports}));
    let without = ports(json!([{"containerPort": 2222}]));
    let host_port = ports(json!([{"containerPort": 2222, "hostPort": 31150}]));
    let port = json!([{"name": "ssh", "port": 22, "targetPort": 2222, "nodePort": 31150}]);
    let node_port = patched(service(), "/spec", &json!({"type": "NodePort", "ports": port}));
    let range = [("SSH_PORT_RANGE_START", "31100"), ("SSH_PORT_RANGE_END", "31199")];
    for (access, of_host, of_nodes) in [
        ("gateway", false, false),
        ("host-port, gateway", true, false),
        ("node-port", false, true),
        ("host-port,node-port", true, true),
    ] {
        let _set = AdmissionParameters::set(&[&[("ACCESS", access)], &range[..]].concat());
        for (kind, object, is_sold, why) in [
            ("pods", &host_port, of_host, "ACCESS has no host-port"),
            ("services", &node_port, of_nodes, "ACCESS has no node-port"),
        ] {
            wait_for(access, SOON, || match attacker.dry_run(kind, object) {
                Ok(()) => is_sold,
                Err(text) => !is_sold && text.contains(why),
            });
        }
        attacker.dry_run("pods", &without).unwrap();
    }
    let _without = AdmissionParameters::without(&["ACCESS"]);
    wait_for("the default", SOON, || attacker.dry_run("pods", &pod()).is_ok());
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn without_parameters_nothing_is_accepted() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let is_accepted = |kind, object: &Value| attacker.dry_run(kind, object).is_ok();
    wait_for("the parameters", SOON, || is_accepted("pods", &pod()));
    let _set = AdmissionParameters::removed();
    for (kind, object) in [("pods", pod()), ("services", service())] {
        wait_for("the refusal", SOON, || !is_accepted(kind, &object));
    }
}
