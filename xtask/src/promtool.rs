//! The alerts and the dashboard, by promtool: whether they are PromQL, and whether each alert fires
//! when it must and no other does.

use crate::go_program::GoProgram;
use crate::run::{root, step, target};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Its module is all of Prometheus. With this tag it is compiled without the clients of clouds.
const PROMTOOL: GoProgram = GoProgram {
    package: "github.com/prometheus/prometheus/cmd/promtool",
    version: "v0.316.0",
    tags: "remove_all_sd",
};
/// A resource of the Prometheus Operator.
const RULES: &str = "k8s/overlays/monitoring/rules.yaml";
/// What they must do. It names the file of the rules as `rules.yaml` beside it.
const TESTS: &str = "host/cli/tests/service/alerts.yaml";
const DASHBOARD: &str = "k8s/overlays/monitoring/paygress.json";
/// A variable of Grafana's, and a value that it may have.
const INTERVAL: (&str, &str) = ("$__rate_interval", "5m");

pub(crate) fn check() -> Result<()> {
    let program = PROMTOOL.path()?;
    let directory = target().join("tools/alerts");
    fs::create_dir_all(&directory)?;
    let rules = fs::read_to_string(root().join(RULES))?;
    fs::write(directory.join("rules.yaml"), groups(&rules)?)?;
    fs::copy(root().join(TESTS), directory.join("alerts.yaml"))?;
    let dashboard = fs::read_to_string(root().join(DASHBOARD))?;
    fs::write(directory.join("dashboard.yaml"), recording_rules(&dashboard)?)?;
    let run = |arguments: &[&str]| {
        let mut promtool = Command::new(&program);
        promtool.args(arguments).current_dir(&directory);
        promtool
    };
    step("the alerts, by promtool", &mut run(&["check", "rules", "rules.yaml"]))?;
    step("the dashboard, by promtool", &mut run(&["check", "rules", "dashboard.yaml"]))?;
    step("tests of the alerts, by promtool", &mut run(&["test", "rules", "alerts.yaml"]))
}

/// What the resource has for Prometheus, as a file of rules.
fn groups(resource: &str) -> Result<String> {
    let (_, spec) = resource.split_once("\nspec:\n").context("the alerts have no spec")?;
    let lines = spec.lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// The queries of the panels, as a file of rules: promtool reads no dashboards.
fn recording_rules(dashboard: &str) -> Result<String> {
    let dashboard: Value = serde_json::from_str(dashboard)?;
    let list = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned();
    let mut rules = Vec::new();
    for panel in list(&dashboard, "panels").context("the dashboard has no panels")? {
        for target in list(&panel, "targets").context("a panel has no targets")? {
            let query =
                target.get("expr").and_then(Value::as_str).context("a target has no expr")?;
            let record = format!("dashboard:query_{}", rules.len());
            rules.push(json!({"record": record, "expr": query.replace(INTERVAL.0, INTERVAL.1)}));
        }
    }
    ensure!(!rules.is_empty(), "the dashboard has no queries");
    Ok(json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_the_resource() {
        let resource = "kind: PrometheusRule\nspec:\n  groups:\n    - name: a\n      rules: []\n";
        assert_eq!(groups(resource).unwrap(), "groups:\n  - name: a\n    rules: []\n");
        assert!(groups("groups: []\n").is_err());
        let rules = fs::read_to_string(root().join(RULES)).unwrap();
        assert!(groups(&rules).unwrap().starts_with("groups:\n  - name: paygress\n"));
    }

    #[test]
    fn queries_are_read_from_the_dashboard() {
        let panels = r#"{"panels": [
            {"targets": [{"expr": "rate(a[$__rate_interval])"}, {"expr": "b"}]},
            {"targets": [{"expr": "c{state=\"d\"}"}]}
        ]}"#;
        let rules: Value = serde_json::from_str(&recording_rules(panels).unwrap()).unwrap();
        let expected = json!([
            {"record": "dashboard:query_0", "expr": "rate(a[5m])"},
            {"record": "dashboard:query_1", "expr": "b"},
            {"record": "dashboard:query_2", "expr": "c{state=\"d\"}"},
        ]);
        assert_eq!(rules, json!({"groups": [{"name": "dashboard", "rules": expected}]}));
        for wrong in ["{}", r#"{"panels": []}"#, r#"{"panels": [{"targets": [{}]}]}"#] {
            assert!(recording_rules(wrong).is_err(), "{wrong}");
        }
        let dashboard = fs::read_to_string(root().join(DASHBOARD)).unwrap();
        let rules = recording_rules(&dashboard).unwrap();
        let count = |text: &str, key: &str| text.matches(key).count();
        assert_eq!(count(&rules, "\"record\":"), count(&dashboard, "\"expr\":"));
        assert!(!rules.contains('$'), "{rules}");
    }
}
