//! `k8s/overlays/monitoring`, with the definitions of the Prometheus Operator, which does not run.

use crate::support::testbed::{CLUSTER, dry_run, kubectl, operator_definitions, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The operator's definitions, in the cluster; gone with this.
pub(crate) struct Definitions(());

impl Definitions {
    pub(crate) fn new() -> Self {
        let file = operator_definitions();
        let file = file.to_string_lossy();
        kubectl(&["apply", "--server-side", "-f", &file]);
        kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &file]);
        Self(())
    }
}

impl Drop for Definitions {
    fn drop(&mut self) {
        let file = operator_definitions();
        kubectl(&["delete", "--wait", "--ignore-not-found", "-f", &file.to_string_lossy()]);
    }
}

/// In a file of the overlay: where a field is set, the field, its value, and the error.
const WRONG: [(&str, &str, &str, &str, &str); 3] = [
    (
        "service-monitor.yaml",
        "/spec/endpoints/0",
        "scrapeTimeOut",
        "10s",
        r#"unknown field "spec.endpoints[0].scrapeTimeOut""#,
    ),
    (
        "service-monitor.yaml",
        "/spec/endpoints/0",
        "scheme",
        "ftp",
        r#"spec.endpoints[0].scheme: Unsupported value: "ftp""#,
    ),
    (
        "rules.yaml",
        "/spec/groups/0/rules/0",
        "annotation",
        "",
        r#"unknown field "spec.groups[0].rules[0].annotation""#,
    ),
];

/// Otherwise that the cluster takes the rest would say nothing.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn what_the_operator_does_not_know_is_refused() {
    let _alone = CLUSTER.lock();
    let _definitions = Definitions::new();
    let overlay = root().join("k8s/overlays/monitoring");
    for (file, parent, field, value, error) in WRONG {
        let object = std::fs::read_to_string(overlay.join(file)).unwrap();
        let mut object: Value = serde_saphyr::from_str(&object).unwrap();
        object.pointer_mut(parent).unwrap()[field] = json!(value);
        let answer = dry_run(&object.to_string());
        let printed = String::from_utf8_lossy(&answer.stderr);
        assert!(!answer.status.success() && printed.contains(error), "{printed}");
    }
}

#[test]
fn alerts_say_what_to_do() {
    let rules = std::fs::read_to_string(root().join("k8s/overlays/monitoring/rules.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    let rules = rules["spec"]["groups"][0]["rules"].as_array().unwrap();
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert_eq!(names.len(), rules.len(), "a name is there twice");
    for rule in rules {
        assert!(["warning", "critical"].map(Value::from).contains(&rule["labels"]["severity"]));
        for text in [&rule["annotations"]["summary"], &rule["annotations"]["description"]] {
            assert!(text.as_str().is_some_and(|text| text.len() > 10), "{rule}");
        }
    }
}

/// A Service is found by its label, and its port by its name.
#[test]
fn services_of_the_service_and_of_the_gateways_process_are_scraped() {
    let documents = |path: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(root().join("k8s/overlays").join(path)).unwrap();
        text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    };
    let monitor = &documents("monitoring/service-monitor.yaml")[0]["spec"];
    let expression = &monitor["selector"]["matchExpressions"][0];
    assert_eq!((&expression["key"], &expression["operator"]), (&json!("app"), &json!("In")));
    let apps = expression["values"].as_array().unwrap();
    let port = &monitor["endpoints"][0]["port"];
    let of = ["cluster/deployment.yaml", "gateway-process/service.yaml"].map(documents).concat();
    let is_scraped = |object: &&Value| {
        let ports = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
        object["kind"] == "Service"
            && apps.contains(&object["metadata"]["labels"]["app"])
            && ports.iter().any(|it| it["name"] == *port)
    };
    let names: Vec<&Value> =
        of.iter().filter(is_scraped).map(|object| &object["metadata"]["name"]).collect();
    assert_eq!(names, [&json!("paygress"), &json!("paygress-gateway-http")]);
}

#[test]
fn panels_of_the_dashboard_are_apart() {
    let dashboard = root().join("k8s/overlays/monitoring/paygress.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(dashboard).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut cells = BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "another panel is there: {panel}");
            }
        }
        for target in panel["targets"].as_array().unwrap() {
            assert!(target["expr"].as_str().unwrap().contains("paygress_"), "{target}");
        }
    }
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
}
