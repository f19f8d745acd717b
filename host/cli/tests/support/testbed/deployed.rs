//! The service as a pod of the cluster.

use super::{
    AdmissionParameters, OPERATOR, Outside, apply, kubectl, load, new_key, npub, output, root,
    wait_for,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The service in a pod of the cluster, as `k8s/overlays/cluster` says, and gone with this.
pub struct Deployed {
    pub npub: String,
    // The overlay sets them.
    _parameters: AdmissionParameters,
}

impl Deployed {
    /// Of what the Dockerfile copies, but for the program, which is that of the tests.
    fn image() -> PathBuf {
        let program = Path::new(env!("CARGO_BIN_EXE_paygress"));
        // Built by `cargo xtask`, which has started the testbed.
        let mut xtask = Command::new(program.with_file_name("xtask"));
        output(xtask.args(["images", "service", "--program"]).arg(program));
        root().join("target/images/service.tar")
    }

    pub fn start(outside: &Outside) -> Self {
        Self::prepare(outside);
        let mut manifests =
            kubectl(&["kustomize", &root().join("k8s/overlays/cluster").to_string_lossy()]);
        // What is the operator's own there, and closed networks for once.
        for (theirs, ours) in [
            ("wss://relay.example.com,wss://relay.example.org", outside.relay.as_str()),
            ("https://mint.example.com", &outside.mint),
            ("node.example.com", "127.0.0.1"),
            ("  RUN_MODE: both\n", "  RUN_MODE: both\n  ALLOW_PRIVATE_RELAYS: \"true\"\n"),
        ] {
            assert!(manifests.contains(theirs), "{theirs}");
            manifests = manifests.replace(theirs, ours);
        }
        Self::deploy(|| apply(&manifests))
    }

    /// What is there before: the image, a volume, and the Secret.
    pub(super) fn prepare(outside: &Outside) {
        kubectl(&["-n", "user-workloads", "delete", "jobs", "--all", "--wait"]);
        load(&Self::image());
        // What a storage class would do: a volume that is the service's own.
        let data = outside.directory.path().join("volume");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(1_000), Some(1_000)).unwrap();
        let volume = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": data}});
        apply(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "paygress"}, "spec": volume}).to_string());
        let (key, operator) = (
            format!("--from-literal=NOSTR_PRIVATE_KEY={}", new_key()),
            format!("--from-literal=OPERATOR_TOKEN={OPERATOR}"),
        );
        kubectl(&[
            "-n",
            "ingress-system",
            "create",
            "secret",
            "generic",
            "paygress",
            &key,
            &operator,
        ]);
    }

    /// Waits for the service that this starts.
    pub(super) fn deploy(start: impl FnOnce()) -> Self {
        let mut deployed = Self { npub: String::new(), _parameters: AdmissionParameters::set(&[]) };
        start();
        deployed.wait();
        deployed.npub = npub(&deployed.log());
        deployed
    }

    /// Waits until it serves.
    pub fn wait(&self) {
        kubectl(&[
            "-n",
            "ingress-system",
            "rollout",
            "status",
            "deployment/paygress",
            "--timeout=180s",
        ]);
        wait_for("the service to read its inbox", Duration::from_secs(60), || {
            self.log().contains("inbox synced")
        });
    }

    pub fn log(&self) -> String {
        kubectl(&["-n", "ingress-system", "logs", "deployment/paygress"])
    }

    /// A command of the operator's.
    pub fn paygress(&self, arguments: &[&str]) -> String {
        kubectl(
            &[
                &["-n", "ingress-system", "exec", "deployment/paygress", "--", "paygress"],
                arguments,
            ]
            .concat(),
        )
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let delete = |arguments: &[&str]| {
            kubectl(&[&["delete", "--wait", "--ignore-not-found", "-n"], arguments].concat())
        };
        delete(&[
            "ingress-system",
            "deployment/paygress",
            "service/paygress",
            "persistentvolumeclaim/paygress",
            "secret/paygress",
        ]);
        delete(&["ingress-system", "persistentvolume/paygress"]);
        delete(&["user-workloads", "resourcequota/customers"]);
        delete(&["user-workloads", "jobs", "--all"]);
    }
}
