//! Root: only of a user namespace, where it is nobody on the node.

use super::{Attacker, Row, SOON, merge, patched, pod};
use crate::support::testbed::{AdmissionParameters, CLUSTER, wait_for};
use serde_json::{Value, json};

/// What root does not get.
const DROPPED: [&str; 4] = ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SETFCAP"];

/// The parameter without which no pod is root.
pub(super) fn allow_root() -> AdmissionParameters {
    AdmissionParameters::set(&[("SSH_SERVER_IMAGE", "paygress.local/ssh:1")])
}

/// A pod of root as the service makes it.
pub(crate) fn root_pod() -> Value {
    let pod = patched(pod(), "/spec", &json!({"hostUsers": false}));
    let user = json!({"runAsNonRoot": false, "runAsUser": 0, "runAsGroup": 0});
    let pod = patched(pod, "/spec/securityContext", &user);
    let mut container =
        json!({"allowPrivilegeEscalation": true, "capabilities": {"drop": DROPPED}});
    merge(&mut container, user);
    patched(pod, "/spec/containers/0/securityContext", &container)
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn root_of_a_user_namespace_is_accepted_and_root_of_the_node_is_not() {
    let _alone = CLUSTER.lock();
    let _set = allow_root();
    let attacker = Attacker::new();
    let rows: Vec<Row> = vec![
        (json!({"hostUsers": null}), "without root"),
        (json!({"hostUsers": true}), "hostUsers"),
    ];
    attacker.is_refused("pods", &root_pod(), "/spec", &rows);
    // Each step of it alone.
    let without = patched(root_pod(), "/spec", &json!({"hostUsers": null}));
    let context = "/spec/containers/0/securityContext";
    for (place, patch) in [
        ("/spec/securityContext", pod()["spec"]["securityContext"].clone()),
        (context, pod()["spec"]["containers"][0]["securityContext"].clone()),
    ] {
        let mut half = without.clone();
        *half.pointer_mut(place).unwrap() = patch;
        let refused = attacker.dry_run("pods", &half).unwrap_err();
        let is_rule = ["without root", "no privileges"].iter().any(|why| refused.contains(why));
        assert!(is_rule, "{place}: {refused}");
    }
    // A pod that is not root may have a user namespace too.
    let namespaced = patched(pod(), "/spec", &json!({"hostUsers": false}));
    assert_eq!(attacker.dry_run("pods", &namespaced), Ok(()));
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn root_of_a_user_namespace_gets_no_capability_beyond_the_runtimes() {
    let _alone = CLUSTER.lock();
    let _set = allow_root();
    let attacker = Attacker::new();
    let why = "no privileges and no capabilities";
    let mut rows: Vec<Row> = vec![
        (json!({"privileged": true}), why),
        (json!({"capabilities": null}), why),
        (json!({"capabilities": {"add": ["SYS_ADMIN"]}}), why),
        (json!({"capabilities": {"add": ["NET_RAW"]}}), why),
        (json!({"seccompProfile": {"type": "Unconfined"}}), "seccomp"),
        (json!({"appArmorProfile": {"type": "Unconfined"}}), "AppArmor"),
        (json!({"procMount": "Unmasked"}), "procMount"),
    ];
    for kept in DROPPED {
        let drop: Vec<&str> = DROPPED.into_iter().filter(|name| *name != kept).collect();
        rows.push((json!({"capabilities": {"drop": drop}}), why));
    }
    attacker.is_refused("pods", &root_pod(), "/spec/containers/0/securityContext", &rows);
    let rows: Vec<Row> = vec![
        (json!({"fsGroup": 0}), "without root"),
        (json!({"supplementalGroups": [0]}), "without root"),
        (json!({"seccompProfile": {"type": "Unconfined"}}), "seccomp"),
        (json!({"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 0"}]}), "sysctls"),
    ];
    attacker.is_refused("pods", &root_pod(), "/spec/securityContext", &rows);
    // Nor any of the node's parts.
    let rows: Vec<Row> = vec![
        (
            json!({"volumes": [{"name": "login", "emptyDir": {}}, {"name": "tmp", "hostPath": {"path": "/"}}]}),
            "volumes",
        ),
        (json!({"shareProcessNamespace": true}), "shareProcessNamespace"),
    ];
    attacker.is_refused("pods", &root_pod(), "/spec", &rows);
}

/// Then the service makes none, and no probe pod shows that root would be nobody on the node.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn without_the_operators_server_nobody_is_root() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    {
        let _set = allow_root();
        wait_for("the parameter", SOON, || attacker.dry_run("pods", &root_pod()).is_ok());
    }
    wait_for("its end", SOON, || attacker.dry_run("pods", &root_pod()).is_err());
    let refused = attacker.dry_run("pods", &root_pod()).unwrap_err();
    assert!(refused.contains("SSH_SERVER_IMAGE"), "{refused}");
    // A pod that is not root needs no parameter.
    let namespaced = patched(pod(), "/spec", &json!({"hostUsers": false}));
    assert_eq!(attacker.dry_run("pods", &namespaced), Ok(()));
}

/// Also whoever has the service's token.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn where_the_operator_forbids_root_nobody_is_root() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let _allowed = allow_root();
    wait_for("the parameter", SOON, || attacker.dry_run("pods", &root_pod()).is_ok());
    {
        let _never = AdmissionParameters::set(&[("POD_ROOT", "never")]);
        wait_for("the refusal", SOON, || {
            attacker.dry_run("pods", &root_pod()).is_err_and(|text| text.contains("POD_ROOT"))
        });
        let namespaced = patched(pod(), "/spec", &json!({"hostUsers": false}));
        assert_eq!(attacker.dry_run("pods", &namespaced), Ok(()));
    }
    // A ConfigMap of before.
    let _without = AdmissionParameters::without(&["POD_ROOT"]);
    wait_for("the default", SOON, || attacker.dry_run("pods", &root_pod()).is_ok());
}
