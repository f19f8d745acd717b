//! The service as a pod of the cluster.

use super::{
    AdmissionParameters, NetworkPolicies, OPERATOR, Outside, Standard, apply, kubectl,
    kubectl_command, kustomized, load, new_key, npub, output, remove_pods, root, wait_for,
};
use crate::support::secrets;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

const LOG: [&str; 4] = ["-n", "ingress-system", "logs", "deployment/paygress"];

/// The service in a pod of the cluster, as `k8s/overlays/cluster` says, and gone with this.
pub struct Deployed {
    pub npub: String,
    gateway: Option<GatewayComponents>,
    is_removed: bool,
    // The overlay sets them.
    _parameters: AdmissionParameters,
}

impl Deployed {
    /// Once for all tests of this program.
    fn load_image() {
        static LOADED: Once = Once::new();
        LOADED.call_once(|| load(&Self::image()));
    }

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
        let overlay = root().join("k8s/overlays/cluster");
        let overlay = kubectl(&["kustomize", &overlay.to_string_lossy()]);
        let manifests = with_outside(overlay, outside);
        Self::deploy(|| apply(&manifests))
    }

    /// What is there before: the image and a volume.
    pub(super) fn prepare_without_secret(outside: &Outside) {
        remove_pods();
        Self::wait_for_the_end_of_the_last();
        Self::load_image();
        // What a storage class would do: a volume that is the service's own.
        let data = outside.directory.path().join("volume");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(1_000), Some(1_000)).unwrap();
        let volume = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": data}});
        apply(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "paygress"}, "spec": volume}).to_string());
    }

    /// The same, and the Secret.
    pub(super) fn prepare(outside: &Outside) {
        Self::prepare_without_secret(outside);
        secrets::add(OPERATOR);
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

    /// Its pod outlives its Deployment for a moment. Logs of a Deployment may be those of that pod.
    fn wait_for_the_end_of_the_last() {
        let pods = ["-n", "ingress-system", "wait", "pods", "-l"];
        let ended = ["app in (paygress,paygress-gateway)", "--for=delete", "--timeout=120s"];
        kubectl(&[&pods[..], &ended].concat());
    }

    /// Waits for the service that this starts.
    pub(super) fn deploy(start: impl FnOnce()) -> Self {
        Self::deploy_with(None, start)
    }

    /// The same with components that this starts too.
    pub(super) fn deploy_with(gateway: Option<GatewayComponents>, start: impl FnOnce()) -> Self {
        let mut deployed = Self::deploy_unawaited(gateway, start);
        deployed.wait();
        deployed.npub = npub(&deployed.log());
        deployed
    }

    /// The same where this waits too: a service without Nostr has no inbox to wait for.
    pub(super) fn deploy_unawaited(
        gateway: Option<GatewayComponents>,
        start: impl FnOnce(),
    ) -> Self {
        let _parameters = AdmissionParameters::set(&[]);
        let deployed = Self { npub: String::new(), gateway, is_removed: false, _parameters };
        start();
        deployed
    }

    /// Adds the gateway, at the address that its Service has in the cluster, and leaves pods without
    /// ports. Waits until it serves.
    pub fn add_gateway(&mut self, outside: &Outside) {
        let components = ["gateway", "without-ports"];
        let overlay = kustomized("deployment-gateway", "overlays/cluster", &components, &[]);
        let manifests = with_outside(overlay, outside);
        self.gateway = Some(GatewayComponents::enforce_standard());
        self.search_log();
        apply(&with_gateway(manifests));
        self.wait();
    }

    /// Gives it another pod.
    pub fn restart(&self) {
        self.search_log();
        kubectl(&["-n", "ingress-system", "rollout", "restart", "deployment/paygress"]);
        self.wait();
    }

    /// Lets this remove its Deployment.
    pub(super) fn remove(&mut self, remove: impl FnOnce()) {
        self.search_log();
        self.is_removed = true;
        remove();
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
        kubectl(&LOG)
    }

    /// Fails if its log holds a secret. Each pod has a log of its own: this is for the time before
    /// another one replaces it.
    pub(super) fn search_log(&self) {
        search(&self.log());
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

/// These manifests with what is the operator's own there, and closed networks for once.
pub(super) fn with_outside(manifests: String, outside: &Outside) -> String {
    let settings = [
        ("wss://relay.example.com,wss://relay.example.org", outside.relay.as_str()),
        ("https://mint.example.com", &outside.mint),
        ("node.example.com", "127.0.0.1"),
        ("  RUN_MODE: both\n", "  RUN_MODE: both\n  ALLOW_PRIVATE_RELAYS: \"true\"\n"),
    ];
    with(manifests, &settings)
}

/// These manifests with ours in place of theirs.
pub(super) fn with(mut manifests: String, settings: &[(&str, &str)]) -> String {
    for &(theirs, ours) in settings {
        assert!(manifests.contains(theirs), "{theirs}");
        manifests = manifests.replace(theirs, ours);
    }
    manifests
}

/// These manifests with the address of the gateway's Service, which is made first, and with the
/// server of the tests for pods.
pub(super) fn with_gateway(manifests: String) -> String {
    let is_service = |object: &&str| {
        object.contains("kind: Service\n") && object.contains("\n  name: paygress-gateway\n")
    };
    apply(manifests.split("\n---\n").find(is_service).unwrap());
    let field = ["service", "paygress-gateway", "-o", "jsonpath={.spec.clusterIP}"];
    let address = kubectl(&[&["-n", "ingress-system", "get"], &field[..]].concat());
    let settings = [
        ("ssh.example.com", address.as_str()),
        ("192.0.2.7", &address),
        ("  SSH_SERVER_IMAGE: \"\"\n", "  SSH_SERVER_IMAGE: paygress.local/ssh:1\n"),
    ];
    with(manifests, &settings)
}

/// What the components of the gateway make and change beside the service; as before once this is
/// dropped.
pub(super) struct GatewayComponents {
    _standard: Standard,
}

impl GatewayComponents {
    pub(super) fn enforce_standard() -> Self {
        Self { _standard: Standard::enforce("baseline") }
    }
}

impl Drop for GatewayComponents {
    fn drop(&mut self) {
        let delete = |arguments: &[&str]| {
            kubectl(&[&["delete", "--ignore-not-found", "-n"], arguments].concat())
        };
        delete(&[
            "ingress-system",
            "deployment/paygress-gateway",
            "service/paygress-gateway",
            "service/paygress-gateway-http",
            "networkpolicy/paygress-gateway",
        ]);
        delete(&["user-workloads", "networkpolicy/customers-gateway"]);
        NetworkPolicies::apply();
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        // Searched when everything is removed: a search may fail.
        let log = kubectl_command(&LOG).output();
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
        if self.is_removed || std::thread::panicking() {
            return;
        }
        let log = log.unwrap();
        assert!(log.status.success(), "{}", String::from_utf8_lossy(&log.stderr));
        search(&String::from_utf8_lossy(&log.stdout));
    }
}

/// Fails if this log of a deployed service holds a secret, or has nothing that was searched.
fn search(log: &str) {
    assert!(!log.trim().is_empty(), "the deployed service has no log");
    secrets::assert_none("the log of the deployed service", log);
}
