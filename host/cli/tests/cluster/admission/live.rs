//! Pods that run, and Jobs.

use super::{Attacker, LEASE, SOON, labels, patched, pod, send};
use crate::in_workloads;
use crate::support::testbed::{CLUSTER, Testbed, admin_kubeconfig, is_left_out, wait_for};
use serde_json::{Value, json};
use std::process::Command;

pub(super) const JOBS: &str = "/apis/batch/v1/namespaces/user-workloads/jobs";
const PODS: &str = "/api/v1/namespaces/user-workloads/pods";

/// The Job of a lease, as the service makes it, with a template of this lease.
pub(super) fn job(lease: &str, template_of: &str, spec: &Value) -> Value {
    let template = json!({"metadata": {"labels": labels(template_of)}, "spec": spec});
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": format!("ssh-pod-{lease}"), "labels": labels(lease)},
        "spec": {"backoffLimit": 0, "activeDeadlineSeconds": 300, "template": template},
    })
}

/// The pods of a Job.
fn names(job: &str) -> String {
    let of_job = format!("batch.kubernetes.io/job-name={job}");
    in_workloads(&["get", "pods", "-l", &of_job, "-o", "jsonpath={.items[*].metadata.name}"])
}

/// The Jobs of a test, gone with it, and their pods.
pub(super) struct Jobs;

impl Drop for Jobs {
    fn drop(&mut self) {
        in_workloads(&["delete", "jobs,pods", "--all", "--wait"]);
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_is_made_by_the_job_of_its_lease_and_stays_as_it_is() {
    let _alone = CLUSTER.lock();
    let _jobs = Jobs;
    let attacker = Attacker::new();
    let refused = attacker.create(PODS, &pod()).unwrap_err();
    assert!(refused.contains("made by the Job of its lease"), "{refused}");
    let refused = send(&admin_kubeconfig(), "create", PODS, &pod()).unwrap_err();
    assert!(refused.contains("made by the Job of its lease"), "the administrator: {refused}");

    attacker.create(JOBS, &job(LEASE, LEASE, &pod()["spec"])).unwrap();
    let mut running = String::new();
    wait_for("the Job's pod", SOON, || {
        running = names("ssh-pod-aaaaaaaaaa");
        !running.is_empty()
    });
    let read = || -> Value {
        serde_json::from_str(&in_workloads(&["get", "pod", &running, "-o", "json"])).unwrap()
    };
    let debugger = json!([{"name": "debug", "image": "paygress.local/ssh:1", "securityContext": {"privileged": true}}]);
    let smaller = json!({"limits": {"cpu": "50m", "memory": "64Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}});
    for (subresource, place, patch) in [
        ("/ephemeralcontainers", "/spec", json!({"ephemeralContainers": debugger})),
        ("/resize", "/spec/containers/0", json!({"resources": smaller})),
        ("", "/spec/containers/0", json!({"image": "example.com/other:1"})),
        ("", "/spec", json!({"activeDeadlineSeconds": 60})),
    ] {
        let path = format!("{PODS}/{running}{subresource}");
        // The kubelet may write the status in between.
        let mut refused = "Conflict".to_owned();
        wait_for("an answer", SOON, || {
            let changed = patched(read(), place, &patch);
            refused = send(&admin_kubeconfig(), "replace", &path, &changed).unwrap_err();
            !refused.contains("Conflict")
        });
        assert!(refused.contains("is not changed"), "{patch}: {refused}");
        let refused = send(attacker.0.path(), "replace", &path, &read()).unwrap_err();
        assert!(refused.contains("Forbidden"), "{subresource}: {refused}");
    }
    in_workloads(&["label", "pod", &running, "example.com/seen=yes"]);
}

/// The service patches the metadata of a pod; the API server's refusal.
fn patch_metadata(attacker: &Attacker, pod: &str, metadata: &Value) -> Result<(), String> {
    let patch = json!({"metadata": metadata}).to_string();
    let output = Command::new(Testbed::kubectl())
        .env("KUBECONFIG", attacker.0.path())
        .args(["-n", "user-workloads", "patch", "pod", pod, "--type=merge", "-p", &patch])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_service_changes_one_annotation_of_a_pod_and_nothing_else() {
    let _alone = CLUSTER.lock();
    let _jobs = Jobs;
    let attacker = Attacker::new();
    attacker.create(JOBS, &job(LEASE, LEASE, &pod()["spec"])).unwrap();
    let mut running = String::new();
    wait_for("the Job's pod", SOON, || {
        running = names("ssh-pod-aaaaaaaaaa");
        !running.is_empty()
    });
    for text in ["one", "two"] {
        let end = json!({"annotations": {"paygress.dev/lease-end": text}});
        patch_metadata(&attacker, &running, &end).unwrap();
    }
    for metadata in [
        json!({"annotations": {"k8s.v1.cni.cncf.io/networks": "other"}}),
        // It would get the connections of another lease, or outlive its Job.
        json!({"labels": {"paygress.dev/lease": "bbbbbbbbbb"}}),
        json!({"labels": {"batch.kubernetes.io/job-name": null}}),
        json!({"finalizers": []}),
        json!({"ownerReferences": []}),
    ] {
        let refused = patch_metadata(&attacker, &running, &metadata).unwrap_err();
        assert!(refused.contains("but the annotation with the end"), "{metadata}: {refused}");
    }
}

/// A Job's own validation and dry run do not meet the policy: its pod does.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_job_whose_template_breaks_the_rules_gets_no_pod() {
    let _alone = CLUSTER.lock();
    let _jobs = Jobs;
    let attacker = Attacker::new();
    let spec = pod()["spec"].clone();
    let host = patched(spec.clone(), "", &json!({"hostPID": true}));
    for (lease, template_of, spec, why) in [
        ("bbbbbbbbbb", "bbbbbbbbbb", host, "hostPID"),
        // It would mount the login of another lease.
        ("cccccccccc", LEASE, spec, "made by the Job of its lease"),
    ] {
        attacker.create(JOBS, &job(lease, template_of, &spec)).unwrap();
        let about = format!("involvedObject.name=ssh-pod-{lease},reason=FailedCreate");
        wait_for("the refusal of the pod", SOON, || {
            let messages =
                ["get", "events", "--field-selector", &about, "-o", "jsonpath={.items[*].message}"];
            in_workloads(&messages).contains(why)
        });
    }
    assert_eq!(names("ssh-pod-bbbbbbbbbb") + &names("ssh-pod-cccccccccc"), "");
}

/// `podPidsLimit` of the testbed's kubelet is 512, as docs/operating.md advises.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_does_not_use_up_the_processes_of_its_node() {
    if is_left_out("a_fork_bomb_of_root_ends_at_the_pods_own_limit") {
        return;
    }
    let _alone = CLUSTER.lock();
    let _jobs = Jobs;
    let attacker = Attacker::new();
    let bomb = "i=0; while [ $i -lt 2000 ]; do sleep 300 & i=$((i+1)); echo $i; done";
    let memory = json!({"limits": {"memory": "512Mi"}, "requests": {"memory": "512Mi"}});
    let container = json!({"command": ["/bin/busybox", "sh", "-c", bomb], "readinessProbe": null, "volumeMounts": null, "resources": memory});
    let spec = patched(pod()["spec"].clone(), "/containers/0", &container);
    let spec = patched(spec, "", &json!({"volumes": null}));
    attacker.create(JOBS, &job("dddddddddd", "dddddddddd", &spec)).unwrap();
    let of_job = "batch.kubernetes.io/job-name=ssh-pod-dddddddddd";
    let phase = ["get", "pods", "-l", of_job, "-o", "jsonpath={.items[*].status.phase}"];
    wait_for("the end of the pod", SOON.saturating_mul(4), || in_workloads(&phase) == "Failed");
    let log = in_workloads(&["logs", "-l", of_job, "--tail=-1"]);
    let started = log.lines().filter_map(|line| line.parse::<u32>().ok()).max().unwrap();
    assert!(log.contains("can't fork") && (400..=512).contains(&started), "{started} started");
    println!("{started} of 2000 processes started");
}
