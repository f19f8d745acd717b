//! `paygress doctor` with the rights of the service.

use crate::in_workloads;
use crate::support::testbed::{
    AdmissionParameters, CLUSTER, NetworkPolicies, Outside, Standard, Testbed, apply, kubectl,
    node_address, root, wait_for,
};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;

const SERVER: &str = "paygress.local/ssh:1";
/// How long the API server may take to see other rights and policies, in some runs.
const SEEN: Duration = Duration::from_secs(60);

struct Doctor {
    outside: Outside,
    kubeconfig: NamedTempFile,
}

impl Doctor {
    fn start(name: &str) -> Self {
        let outside = Outside::start(name, "127.0.0.1");
        Self { outside, kubeconfig: Testbed::kubeconfig_of_the_service() }
    }

    fn command(&self) -> Command {
        let mut command = Testbed::doctor(&self.outside, self.kubeconfig.path());
        command.env("SSH_SERVER_IMAGE", SERVER).env("POD_READY_SECONDS", "60").arg("--json");
        command
    }

    /// Its report, and whether it has exited with 0.
    fn report(&self, arguments: &[&str]) -> (Value, bool) {
        self.report_with(&[], arguments)
    }

    /// The same with these settings.
    fn report_with(&self, settings: &[(&str, &str)], arguments: &[&str]) -> (Value, bool) {
        let mut command = self.command();
        command.envs(settings.iter().copied()).args(arguments);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let report = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        });
        (report, output.status.success())
    }

    /// Waits until a check of this area fails and its text has all of these parts.
    fn wait_for_failure(&self, area: &str, parts: &[&str]) {
        wait_for(&format!("{area} to fail: {parts:?}"), SEEN, || {
            let (report, succeeded) = self.report(&["--no-pods"]);
            let failed = of_area(&report, area).any(|check| {
                let text = check["text"].as_str().unwrap();
                check["outcome"] == "fail" && parts.iter().all(|part| text.contains(part))
            });
            failed && !succeeded
        });
    }

    /// Waits until all checks of this area are good again: the next test relies on it.
    fn wait_for_health(&self, area: &str) {
        wait_for(&format!("{area} to be ok"), SEEN, || {
            let (report, _) = self.report(&["--no-pods"]);
            of_area(&report, area).all(|check| check["outcome"] == "ok")
        });
    }
}

fn of_area<'a>(report: &'a Value, area: &'a str) -> impl Iterator<Item = &'a Value> {
    report["checks"].as_array().unwrap().iter().filter(move |check| check["area"] == area)
}

fn probe_pods() -> String {
    in_workloads(&["get", "job,pod,secret", "-l", "paygress.dev/probe", "-o", "name"])
}

/// A cluster as its operator should have it.
fn healthy() -> AdmissionParameters {
    NetworkPolicies::apply();
    AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)])
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_healthy_cluster_is_ok_and_no_probe_pod_is_left() {
    let _alone = CLUSTER.lock();
    let _set = healthy();
    let doctor = Doctor::start("doctor");
    let (report, succeeded) = doctor.report(&[]);
    assert!(succeeded, "{report:#}");
    for check in report["checks"].as_array().unwrap() {
        let is_of_cluster =
            ["cluster", "pods", "policies"].contains(&check["group"].as_str().unwrap());
        assert!(check["outcome"] == "ok" || !is_of_cluster, "{check:#}");
    }
    for area in
        ["permissions", "admission", "pod security", "start", "user namespaces", "network", "clock"]
    {
        assert!(of_area(&report, area).count() > 0, "{area}: {report:#}");
    }
    let walls = of_area(&report, "network").map(|check| check["text"].as_str().unwrap());
    let walls: Vec<&str> = walls.collect();
    let tried = "a probe pod reaches neither the API server nor a node, nor another probe pod";
    assert!(walls.contains(&tried), "{walls:?}");
    assert_eq!(probe_pods().trim(), "");
    pods_that_are_not_isolated_are_named(&doctor);
    assert_eq!(probe_pods().trim(), "");
}

/// As where the cluster's network plugin enforces no NetworkPolicies. A probe pod finds out.
fn pods_that_are_not_isolated_are_named(doctor: &Doctor) {
    let _removed = NetworkPolicies::removed();
    // The policies may still be enforced when the first pod is there.
    wait_for("pods that are not isolated", SEEN, || {
        let (report, succeeded) = doctor.report(&[]);
        let mut failed = of_area(&report, "network").filter(|check| check["outcome"] == "fail");
        let is_named = failed.any(|check| {
            let text = check["text"].as_str().unwrap();
            text.starts_with("customers' pods reach the API server, a node or each other: ")
                && text.contains(&format!("{}:10250", node_address()))
                && check["remedy"].as_str().unwrap().contains("k8s/base/network.yaml")
        });
        is_named && !succeeded
    });
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn an_image_that_cannot_be_pulled_is_all_that_is_known_of_pods() {
    let _alone = CLUSTER.lock();
    let _set = healthy();
    let doctor = Doctor::start("doctor-image");
    let missing = [("SSH_BASE_IMAGE", "paygress.local/missing:1"), ("POD_READY_SECONDS", "15")];
    let (report, succeeded) = doctor.report_with(&missing, &[]);
    let checks = report["checks"].as_array().unwrap().iter();
    let of_pods: Vec<&Value> = checks.filter(|check| check["group"] == "pods").collect();
    let [check] = of_pods.as_slice() else { panic!("{of_pods:#?}") };
    assert_eq!((&check["area"], &check["outcome"]), (&json!("start"), &json!("fail")));
    assert_eq!(check["text"], "the default image cannot be pulled");
    assert!(check["remedy"].as_str().unwrap().contains("SSH_BASE_IMAGE"), "{check}");
    assert!(!succeeded && report["outcome"] == "fail", "{report:#}");
    assert_eq!(probe_pods().trim(), "");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn its_probe_pod_is_removed_when_it_is_interrupted() {
    let _alone = CLUSTER.lock();
    let _set = healthy();
    let doctor = Doctor::start("doctor-interrupted");
    let mut running = doctor.command().stdout(Stdio::null()).spawn().unwrap();
    wait_for("a probe pod", Duration::from_secs(60), || !probe_pods().trim().is_empty());
    let id = running.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert!(!running.wait().unwrap().success());
    assert_eq!(probe_pods().trim(), "");
}

/// The Role of the service as `k8s/base` has it, once this is dropped.
pub(crate) struct Role(());

impl Role {
    /// With these verbs of Jobs.
    pub(crate) fn with_verbs_of_jobs(verbs: &[&str]) -> Self {
        let role = Self(());
        let rule = json!([{"op": "replace", "path": "/rules/0/verbs", "value": verbs}]).to_string();
        in_workloads(&["patch", "role", "paygress", "--type=json", "-p", &rule]);
        role
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        apply(&std::fs::read_to_string(root().join("k8s/base/rbac.yaml")).unwrap());
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_verb_that_the_role_lacks_is_named() {
    let _alone = CLUSTER.lock();
    let _set = healthy();
    let doctor = Doctor::start("doctor-role");
    let role = Role::with_verbs_of_jobs(&["create", "get", "list", "watch", "patch"]);
    doctor.wait_for_failure("permissions", &["may not delete jobs in user-workloads"]);
    drop(role);
    doctor.wait_for_health("permissions");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_namespace_that_forbids_what_is_sold_is_named() {
    let _alone = CLUSTER.lock();
    let _set = healthy();
    let doctor = Doctor::start("doctor-standard");
    let standard = Standard::enforce("baseline");
    doctor.wait_for_failure("pod security", &["ACCESS names host-port", "forbids host ports"]);
    drop(standard);
    doctor.wait_for_health("pod security");
}

/// The bindings of the admission policy as `k8s/base` has them, once this is dropped.
struct Bindings;

impl Drop for Bindings {
    fn drop(&mut self) {
        let text = std::fs::read_to_string(root().join("k8s/base/admission.yaml")).unwrap();
        let is_binding = |object: &&str| object.contains("kind: ValidatingAdmissionPolicyBinding");
        let bindings: Vec<&str> = text.split("\n---\n").filter(is_binding).collect();
        assert_eq!(bindings.len(), 4);
        apply(&bindings.join("\n---\n"));
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_part_of_the_admission_policy_that_is_not_bound_is_named() {
    let _alone = CLUSTER.lock();
    let _set = healthy();
    let doctor = Doctor::start("doctor-admission");
    for policy in ["paygress-customers", "paygress-customers-services"] {
        let bindings = Bindings;
        kubectl(&["delete", "validatingadmissionpolicybinding", policy]);
        let refuses = format!("{policy} does not refuse");
        doctor.wait_for_failure("admission", &[&refuses]);
        drop(bindings);
        doctor.wait_for_health("admission");
    }
}
