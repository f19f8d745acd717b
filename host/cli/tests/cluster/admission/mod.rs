//! What the cluster itself refuses when the guard does not: requests under the service's own
//! account, made without the service. See `k8s/base/admission.yaml` and
//! `k8s/overlays/egress/admission.yaml`.

mod egress;
mod image_volume;
mod init;
pub(crate) mod isolation;
mod live;
mod parameters;
mod pods;
pub(crate) mod root;
mod services;
mod standards;

use crate::in_workloads;
use crate::support::testbed::{Testbed, wait_for};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::NamedTempFile;

const LEASE: &str = "aaaaaaaaaa";
/// How long controllers may take to act, and the API server to see changed parameters.
const SOON: Duration = Duration::from_secs(30);

/// A pod as the service makes it.
fn pod() -> Value {
    let amounts = json!({"cpu": "100m", "memory": "64Mi"});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("ssh-pod-{LEASE}-dry-run"), "labels": labels(LEASE)},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 2,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "ssh",
                "image": "paygress.local/ssh:1",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 2222, "hostPort": 20500}],
                "env": [{"name": "A", "value": "b"}],
                "resources": {"limits": amounts, "requests": amounts},
                "readinessProbe": {"tcpSocket": {"port": 2222}, "periodSeconds": 1},
                "securityContext": {
                    "privileged": false,
                    "runAsNonRoot": true,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "volumeMounts": [
                    {"name": "login", "mountPath": "/run/paygress/login", "readOnly": true},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }],
            "volumes": [
                {"name": "login", "secret": {"secretName": format!("ssh-pod-{LEASE}"), "defaultMode": 0o440}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    })
}

fn labels(lease: &str) -> Value {
    json!({"app": "paygress-ssh-pod", "paygress.dev/lease": lease, "paygress.dev/instance": "test"})
}

/// A Service within the cluster, as the service makes it.
fn service() -> Value {
    let ports = json!([{"name": "ssh", "port": 22, "targetPort": 2222}]);
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("ssh-pod-{LEASE}"), "labels": labels(LEASE)},
        "spec": {"type": "ClusterIP", "selector": {"paygress.dev/lease": LEASE}, "ports": ports},
    })
}

/// What is changed, as a JSON merge patch, and a part of the refusal.
type Row = (Value, &'static str);

/// RFC 7386: objects are merged, null removes, anything else replaces.
fn merge(target: &mut Value, patch: Value) {
    let (Value::Object(target), Value::Object(patch)) = (&mut *target, &patch) else {
        *target = patch;
        return;
    };
    for (key, value) in patch.clone() {
        match value {
            Value::Null => drop(target.remove(&key)),
            value => merge(target.entry(key).or_insert(Value::Null), value),
        }
    }
}

/// The object, with the patch merged into what is at the JSON Pointer.
fn patched(mut object: Value, place: &str, patch: &Value) -> Value {
    merge(object.pointer_mut(place).unwrap(), patch.clone());
    object
}

/// Sends the object; gives the API server's refusal.
fn send(kubeconfig: &Path, verb: &str, path: &str, object: &Value) -> Result<(), String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(object.to_string().as_bytes()).unwrap();
    let output = Command::new(Testbed::kubectl())
        .env("KUBECONFIG", kubeconfig)
        .args([verb, "--raw", path, "-f", &file.path().to_string_lossy()])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Where objects of this kind are made.
fn path_of(kind: &str) -> String {
    let group = match kind {
        "networkpolicies" => "/apis/networking.k8s.io/v1",
        _ => "/api/v1",
    };
    format!("{group}/namespaces/user-workloads/{kind}")
}

/// A client with the rights of the service, and without its guard.
struct Attacker(NamedTempFile);

impl Attacker {
    fn new() -> Self {
        Self(Testbed::kubeconfig_of_the_service())
    }

    fn create(&self, path: &str, object: &Value) -> Result<(), String> {
        send(self.0.path(), "create", path, object)
    }

    fn dry_run(&self, kind: &str, object: &Value) -> Result<(), String> {
        self.create(&format!("{}?dryRun=All", path_of(kind)), object)
    }

    /// The object is accepted as it is, and refused with any of these changes.
    fn is_refused(&self, kind: &str, object: &Value, place: &str, rows: &[Row]) {
        let accepted = || self.dry_run(kind, object).is_ok();
        wait_for("what the service makes to be accepted", SOON, accepted);
        let wrong: Vec<String> = rows
            .iter()
            .filter_map(|(patch, why)| {
                match self.dry_run(kind, &patched(object.clone(), place, patch)) {
                    Err(text) if text.contains("paygress-customers") && text.contains(why) => None,
                    Err(text) => Some(format!("{patch}: {text}")),
                    Ok(()) => Some(format!("{patch}: accepted")),
                }
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        println!("{kind}{place}: {} of {} refused", rows.len(), rows.len());
    }
}

/// Objects of a test, gone with it.
struct Created(&'static [&'static str]);

impl Drop for Created {
    fn drop(&mut self) {
        in_workloads(&[&["delete", "--wait", "--ignore-not-found"], self.0].concat());
    }
}
