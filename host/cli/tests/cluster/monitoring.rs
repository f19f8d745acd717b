//! `k8s/overlays/monitoring`, without the Prometheus Operator.

use crate::support::testbed::{kubectl, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The part of the Prometheus Operator's definitions that is used here; gone with this.
pub(crate) struct Definitions(());

impl Definitions {
    fn file() -> PathBuf {
        root().join("host/cli/tests/cluster/monitoring.yaml")
    }

    pub(crate) fn new() -> Self {
        let file = Self::file();
        let file = file.to_string_lossy();
        kubectl(&["apply", "-f", &file]);
        kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &file]);
        Self(())
    }
}

impl Drop for Definitions {
    fn drop(&mut self) {
        kubectl(&["delete", "--wait", "--ignore-not-found", "-f", &Self::file().to_string_lossy()]);
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
