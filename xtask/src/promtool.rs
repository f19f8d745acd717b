//! The alerts, by promtool: whether they are PromQL, and whether each fires when it must and no other
//! does.

use crate::go_program::GoProgram;
use crate::run::{root, step, target};
use anyhow::{Context, Result};
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

pub(crate) fn check() -> Result<()> {
    let program = PROMTOOL.path()?;
    let directory = target().join("tools/alerts");
    fs::create_dir_all(&directory)?;
    let rules = fs::read_to_string(root().join(RULES))?;
    fs::write(directory.join("rules.yaml"), groups(&rules)?)?;
    fs::copy(root().join(TESTS), directory.join("alerts.yaml"))?;
    let run = |arguments: &[&str]| {
        let mut promtool = Command::new(&program);
        promtool.args(arguments).current_dir(&directory);
        promtool
    };
    step("the alerts, by promtool", &mut run(&["check", "rules", "rules.yaml"]))?;
    step("tests of the alerts, by promtool", &mut run(&["test", "rules", "alerts.yaml"]))
}

/// What the resource has for Prometheus, as a file of rules.
fn groups(resource: &str) -> Result<String> {
    let (_, spec) = resource.split_once("\nspec:\n").context("the alerts have no spec")?;
    let lines = spec.lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
    Ok(lines.map(|line| format!("{line}\n")).collect())
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
}
