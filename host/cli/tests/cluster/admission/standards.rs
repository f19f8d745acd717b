//! The Pod Security Standards, which a namespace may enforce whose pods have no port of the nodes.

use super::root::{allow_root, root_pod};
use super::{Attacker, SOON, patched, pod};
use crate::support::testbed::{CLUSTER, Standard, wait_for};
use serde_json::{Value, json};

fn without_port(pod: Value) -> Value {
    patched(pod, "/spec/containers/0", &json!({"ports": [{"containerPort": 2222}]}))
}

/// `hostUsers: false` does not make root `restricted`, which wants no capabilities of anybody.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_without_a_port_meet_a_standard_that_forbids_ports() {
    let _alone = CLUSTER.lock();
    let _set = allow_root();
    let attacker = Attacker::new();
    let pods = [pod(), without_port(pod()), without_port(root_pod())];
    for (level, expected) in [
        ("privileged", [true, true, true]),
        ("baseline", [false, true, true]),
        ("restricted", [false, true, false]),
    ] {
        let _enforced = Standard::enforce(level);
        for (pod, is_accepted) in pods.iter().zip(expected) {
            wait_for(&format!("{level}, {is_accepted}: {pod}"), SOON, || {
                match attacker.dry_run("pods", pod) {
                    Ok(()) => is_accepted,
                    Err(text) => !is_accepted && text.contains("violates PodSecurity"),
                }
            });
        }
    }
}
