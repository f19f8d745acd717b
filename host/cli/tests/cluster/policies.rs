//! `Policy` resources: active, or refused with a reason.

use crate::support::command::text;
use crate::support::keys::{key, write_signed_policies};
use crate::support::testbed::{CLUSTER, Testbed, applied, apply, kubectl, root, wait_for};
use crate::{now, seconds};
use paygress_oci::Digest;
use paygress_oci::testing::{RequiredAuth, TestRegistry};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// `kubectl` where the service and its policies are.
fn beside_the_service(arguments: &[&str]) -> String {
    kubectl(&[&["-n", "ingress-system"], arguments].concat())
}

/// A `Policy` resource as an operator would apply it.
pub(crate) fn policy(name: &str, spec: Value) -> String {
    json!({"apiVersion": "paygress.dev/v1", "kind": "Policy", "metadata": {"name": name, "namespace": "ingress-system"}, "spec": spec})
        .to_string()
}

pub(crate) fn in_config_map(slot: &str, map: &str, settings: Value) -> Value {
    json!({"slot": slot, "source": {"configMap": {"name": map, "key": "policy.wasm"}}, "settings": settings})
}

/// Waits for a condition of a `Policy`, seen for the resource as it is now; gives its message.
pub(crate) fn condition(name: &str, kind: &str, status: &str, reason: &str) -> String {
    let mut seen = Value::Null;
    wait_for(
        &format!("{kind} of {name} to be {status}, {reason}"),
        Duration::from_secs(60),
        || {
            let policy = beside_the_service(&["get", "policy", name, "-o", "json"]);
            let policy: Value = serde_json::from_str(&policy).unwrap();
            let conditions = policy["status"]["conditions"].as_array().cloned().unwrap_or_default();
            seen = conditions
                .into_iter()
                .find(|condition| condition["type"] == kind)
                .unwrap_or_default();
            let current =
                policy["status"]["observedGeneration"] == policy["metadata"]["generation"];
            current && seen["status"] == status && seen["reason"] == reason
        },
    );
    seen["message"].as_str().unwrap().to_owned()
}

/// The policies of a test, gone with it.
pub(crate) struct Applied;

impl Drop for Applied {
    fn drop(&mut self) {
        beside_the_service(&["delete", "policies", "--all", "--wait"]);
        let delete = ["delete", "configmap", "pricing-policy", "images-policy"];
        beside_the_service(&[&delete[..], &["--ignore-not-found"]].concat());
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_policy_resource_is_put_in_force_and_a_broken_one_is_refused() {
    let _alone = CLUSTER.lock();
    let testbed = Testbed::start("policies", &[]);
    let _applied = Applied;
    for slot in ["pricing", "images"] {
        let component = root().join(format!("target/plugins/{slot}.wasm"));
        let file = format!("--from-file=policy.wasm={}", component.display());
        beside_the_service(&["create", "configmap", &format!("{slot}-policy"), &file]);
    }
    assert_eq!(lives(&testbed), 15, "3 sat net at 720 sat an hour");

    apply(&policy("pricing", pricing(360)));
    condition("pricing", "Active", "True", "InForce");
    assert_eq!(lives(&testbed), 30);
    let columns = beside_the_service(&["get", "policies"]);
    assert!(columns.contains("InForce") && columns.contains("Enforce"), "{columns}");

    // Broken: refused with a reason, and the active one goes on.
    apply(&policy("pricing", pricing(-1)));
    let why = condition("pricing", "Valid", "False", "Refused");
    assert!(why.contains("/sats_per_hour"), "{why}");
    assert_eq!(lives(&testbed), 30);
    another_component_or_none_is_refused();
    resources_are_put_in_force_together_or_not_at_all(&testbed);
    apply(&policy("second", pricing(90)));
    condition("second", "Active", "False", "SlotTaken");

    // Deleted: the component of the directory is active again.
    beside_the_service(&["delete", "policies", "--all", "--wait"]);
    wait_for("the default price to be back", Duration::from_secs(60), || lives(&testbed) == 15);
}

/// The seconds that a token buys, in fifteens.
fn lives(testbed: &Testbed) -> u64 {
    let token = testbed.token(4);
    let answer = testbed.ask(&json!({"cashu_token": token}));
    seconds(&answer, "expires_at").saturating_sub(now()).next_multiple_of(15)
}

fn pricing(rate: i64) -> Value {
    let tiers = json!([{"id": "tiny", "cpu_millicores": 100, "memory_mib": 64}]);
    in_config_map("pricing", "pricing-policy", json!({"sats_per_hour": rate, "tiers": tiers}))
}

fn another_component_or_none_is_refused() {
    let mut pinned = pricing(180);
    pinned["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    apply(&policy("pricing", pinned));
    assert!(condition("pricing", "Verified", "False", "Refused").contains("digest"));
    apply(&policy("pricing", in_config_map("pricing", "nowhere", json!({}))));
    assert!(condition("pricing", "Fetched", "False", "Unavailable").contains("nowhere"));
}

fn resources_are_put_in_force_together_or_not_at_all(testbed: &Testbed) {
    // The images slot is given the pricing component.
    apply(&policy("images", in_config_map("images", "pricing-policy", json!({}))));
    apply(&policy("pricing", pricing(180)));
    assert!(condition("images", "Valid", "False", "Refused").contains("pricing"));
    condition("pricing", "Active", "False", "Waiting");
    assert_eq!(lives(testbed), 30);
    let mut shadow = in_config_map("images", "images-policy", json!({}));
    shadow["mode"] = json!("Shadow");
    apply(&policy("images", shadow));
    condition("images", "Active", "False", "Shadow");
    condition("pricing", "Active", "True", "InForce");
    assert_eq!(lives(testbed), 60);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn kubernetes_itself_refuses_a_policy_that_its_schema_does_not_allow() {
    let _alone = CLUSTER.lock();
    let _applied = Applied;
    for spec in [
        json!({"slot": "prices", "source": {"oci": "registry.example/pricing:1"}}),
        json!({"slot": "pricing", "source": {}}),
        json!({"slot": "pricing", "source": {"oci": "registry.example/pricing:1"}}),
    ] {
        assert!(!applied(&policy("wrong", spec.clone())), "{spec}");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_policy_resource_may_name_an_artefact_and_is_verified() {
    let _alone = CLUSTER.lock();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = runtime.block_on(TestRegistry::open(RequiredAuth::None)).unwrap();
    let policies = tempfile::tempdir().unwrap();
    let (private, public) = key(policies.path(), "operator");
    write_signed_policies(policies.path(), &private);
    let testbed = Testbed::start(
        "artefacts",
        &[("POLICY_DIR", &policies.path().to_string_lossy()), ("POLICY_KEYS", &public)],
    );
    let _applied = Applied;
    let flat =
        root().join("target/plugins-examples/flat-price.wasm").to_string_lossy().into_owned();
    let named = |name: &str| format!("{}/policies/{name}", registry.host());
    let buys_flat = || {
        testbed.ask(&json!({"cashu_token": testbed.token(4), "tier": "flat"}))["error_type"]
            .is_null()
    };

    let unsigned = paygress(&["policy", "push", &flat, &named("unsigned:1")]);
    apply_artefact(&unsigned);
    assert!(condition("pricing", "Verified", "False", "Refused").contains("there is no signature"));
    let (other, _) = key(policies.path(), "unknown");
    apply_artefact(&paygress(&["policy", "push", &flat, &named("unknown:1"), "--sign", &other]));
    assert!(condition("pricing", "Verified", "False", "Refused").contains("known key"));
    let signed = paygress(&["policy", "push", &flat, &named("flat:1"), "--sign", &private]);
    apply_artefact(&signed.replace("flat:1", "elsewhere:1"));
    assert!(condition("pricing", "Fetched", "False", "Unavailable").contains("is not there"));
    assert!(!buys_flat(), "nothing of that became active");

    apply_artefact(&signed);
    condition("pricing", "Verified", "True", "Verified");
    condition("pricing", "Active", "True", "InForce");
    assert!(buys_flat());

    // Changed in the registry afterwards: another resource for it is refused, and the
    // active one goes on.
    let digest = Digest::of(&std::fs::read(&flat).unwrap());
    registry.replace_blob(&digest, b"something else");
    apply(&policy(
        "pricing",
        json!({"slot": "pricing", "source": {"oci": named("flat:1")}, "digest": digest.hex()}),
    ));
    assert!(condition("pricing", "Verified", "False", "Refused").contains("tampered"));
    assert!(buys_flat());
}

fn apply_artefact(reference: &str) {
    apply(&policy("pricing", json!({"slot": "pricing", "source": {"oci": reference}})));
}

/// What the program prints; it must succeed.
fn paygress(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    let output = command.args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}
