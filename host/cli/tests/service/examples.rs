//! Every example of a policy is accepted by the host and passes its suite.

use paygress_cluster::guard::{Allowed, check};
use paygress_core::backend::policy::{Placement, Rendered, Slot};
use paygress_policy::{CallResult, Harness, Output, PolicyEngine, read_component};
use paygress_policy_tools::TestCase;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn passes(example: &str) {
    let suite = root().join("examples/policies").join(example).join("suite.yaml");
    let allowed = [("POD_DEVICES", "nvidia.com/gpu"), ("POD_TOLERATIONS", "nvidia.com/gpu")];
    let output = Command::new(env!("CARGO_BIN_EXE_paygress"))
        .args(["policy", "test"])
        .arg(suite)
        .env_clear()
        .envs(allowed)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{example}: {}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_examples_in_rust_pass_their_suites() {
    let examples = [
        "coupons",
        "daily-budget",
        "fair-share",
        "first-hour",
        "flat-price",
        "gpu-template",
        "node-port",
        "price-table",
        "regions",
        "signed-images",
        "surge-price",
        "web-of-trust",
    ];
    examples.into_iter().for_each(passes);
}

#[test]
fn the_setting_that_allows_a_template_is_named() {
    let suite = root().join("examples/policies/gpu-template/suite.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_paygress"))
        .args(["policy", "test"])
        .arg(suite)
        .env_clear()
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success()
            && output_text.contains("POD_TOLERATIONS")
            && output_text.contains("3 cases, 1 failed"),
        "{output_text}"
    );
}

fn rendered(example: &str, settings: &str, order: &serde_json::Value) -> (Rendered, Placement) {
    let component =
        read_component(&root().join(format!("target/plugins-examples/{example}.wasm"))).unwrap();
    let harness =
        Harness::load(&PolicyEngine::start(None).unwrap(), Slot::PodTemplate, &component, settings)
            .unwrap();
    let case = TestCase::from_changes(Slot::PodTemplate, order).unwrap();
    match case.run(&harness).unwrap().result {
        CallResult::Returned(Output::Rendered(rendered)) => (rendered, case.placement),
        other => panic!("{example}: {other:?}"),
    }
}

#[test]
fn the_templates_of_the_examples_pass_the_guard_where_the_operator_allows_it() {
    let settings = r#"{"gpu_tiers": ["gpu"], "gpus": 2, "node_selector": {"gpu": "a100"}}"#;
    let allowed = Allowed {
        devices: vec!["nvidia.com/gpu".to_owned()],
        tolerations: vec!["nvidia.com/gpu".to_owned()],
        ..Allowed::default()
    };
    let (gpu, placement) = rendered("gpu-template", settings, &json!({"order": {"tier": "gpu"}}));
    let pod = check(&gpu, &placement, &allowed).unwrap().template.spec.unwrap();
    assert_eq!(pod.node_selector.unwrap()["gpu"], "a100");
    let limits = pod.containers[0].resources.clone().unwrap().limits.unwrap();
    assert_eq!((limits["nvidia.com/gpu"].0.as_str(), limits["memory"].0.as_str()), ("2", "1024Mi"));
    assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("nvidia.com/gpu"));
    assert!(
        check(&gpu, &placement, &Allowed::default())
            .unwrap_err()
            .to_string()
            .contains("POD_TOLERATIONS")
    );
    let (plain, placement) = rendered("gpu-template", settings, &json!({}));
    let pod = check(&plain, &placement, &Allowed::default()).unwrap().template.spec.unwrap();
    assert!(pod.tolerations.is_none() && pod.node_selector.is_none_or(|labels| labels.is_empty()));

    let (node_port, placement) = rendered("node-port", "{}", &json!({}));
    let checked = check(&node_port, &placement, &Allowed::default()).unwrap();
    let port = &checked.services[0].spec.as_ref().unwrap().ports.as_ref().unwrap()[0];
    assert_eq!(port.node_port, placement.host_port.map(i32::from));
}

#[test]
fn a_tier_with_a_region_selects_its_nodes() {
    let settings = r#"{"label": "zone", "regions": {"eu": "eu-1"}}"#;
    for (tier, access, zone) in [
        ("basic@eu", "host-port", Some("eu-1")),
        ("basic@eu", "node-port", Some("eu-1")),
        ("basic", "host-port", None),
    ] {
        let order = json!({"quote": {"tier": tier}, "placement": {"access": [access]}});
        let (rendered, placement) = rendered("regions", settings, &order);
        let pod = check(&rendered, &placement, &Allowed::default()).unwrap().template.spec.unwrap();
        let selector = pod.node_selector.unwrap_or_default();
        assert_eq!(selector.get("zone").map(String::as_str), zone, "{tier}, {access}");
    }
}

/// They do not ask how a pod is reached.
#[test]
fn examples_render_pods_without_a_port() {
    let without = json!({"placement": {"host_port": null, "access": ["gateway"]}});
    let (gpu, placement) = rendered("gpu-template", "{}", &without);
    let pod = check(&gpu, &placement, &Allowed::default()).unwrap().template.spec.unwrap();
    assert!(pod.containers[0].ports.iter().flatten().all(|port| port.host_port.is_none()));
    let (node_port, placement) = rendered("node-port", "{}", &without);
    let refused = check(&node_port, &placement, &Allowed::default()).unwrap_err().to_string();
    assert!(refused.contains("ACCESS has no node-port"), "{refused}");
}
