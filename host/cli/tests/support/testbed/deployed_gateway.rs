//! The service and the gateway, each a Deployment of the cluster, and the database of both.

use super::deployed::{GatewayComponents, with, with_gateway, with_outside};
use super::{
    Daemon, Deployed, Outside, apply, kubectl, kubectl_command, kustomized, new_key, output,
    wait_for,
};
use crate::support::secrets;
use paygress_sandbox::free_port;
use paygress_store::db::testing::Server;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

const MNEMONIC: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// By which pods reach this machine, and their network.
const BRIDGE: &str = "10.88.0.1";
const PODS: &str = "10.88.0.0/16";
const LOG: [&str; 4] = ["-n", "ingress-system", "logs", "deployment/paygress-gateway"];

/// A Postgres that pods reach by the bridge, as they reach the API server.
struct Database {
    // In this order: what leads to it first.
    _forward: Daemon,
    _server: Server,
    url: String,
}

impl Database {
    fn start(outside: &Outside) -> Self {
        let server = Server::start().unwrap();
        let own = server.url();
        let (before, after) = own.expose().split_once("@127.0.0.1:").unwrap();
        let (port, name) = after.split_once('/').unwrap();
        let listen = free_port().unwrap();
        let mut socat = Command::new("socat");
        socat.arg(format!("TCP-LISTEN:{listen},bind={BRIDGE},range={PODS},reuseaddr,fork"));
        socat.arg(format!("TCP:127.0.0.1:{port}"));
        let forward = Daemon::start(&mut socat, &outside.logs.join("socat.log"));
        wait_for("the way to the database", Duration::from_secs(10), || {
            TcpStream::connect((BRIDGE, listen)).is_ok()
        });
        let url = format!("{before}@{BRIDGE}:{listen}/{name}");
        Self { _forward: forward, _server: server, url }
    }
}

/// The service and `paygress gateway` as `k8s/overlays/gateway-process` says, gone with this.
pub struct DeployedGateway {
    // In this order: the pods before their database.
    service: Deployed,
    _secrets: Secrets,
    _database: Database,
}

impl DeployedGateway {
    /// At the address that the gateway's Service has in the cluster, for pods without ports.
    pub fn start(outside: &Outside) -> Self {
        Deployed::prepare(outside);
        let database = Database::start(outside);
        let secrets = Secrets::create(outside, &database);
        let components = ["postgres", "gateway-process", "without-ports"];
        let overlay = kustomized("deployment-process", "overlays/cluster", &components, &[]);
        // One is enough, and leaves room on the node.
        let replicas = [("  replicas: 3\n", "  replicas: 1\n")];
        let manifests = by_pod_network(&with(with_outside(overlay, outside), &replicas));
        let gateway = GatewayComponents::enforce_standard();
        let start = || apply(&with_gateway(manifests));
        let service = Deployed::deploy_with(Some(gateway), start);
        let deployed = Self { service, _secrets: secrets, _database: database };
        // As `/readyz` says, by the probe of its Deployment.
        let status = ["-n", "ingress-system", "rollout", "status", "deployment/paygress-gateway"];
        kubectl(&[&status[..], &["--timeout=180s"]].concat());
        deployed
    }

    pub fn npub(&self) -> &str {
        &self.service.npub
    }

    /// As `kubectl rollout restart` does it; waits until the old pod is replaced.
    pub fn restart_service(&self) {
        self.service.restart();
    }

    /// Waits until the pod is gone, and not for the next one.
    pub fn delete_gateway_pod(&self) {
        // The next pod has a log of its own.
        search(&kubectl(&LOG));
        let delete = ["-n", "ingress-system", "delete", "pod", "--now"];
        kubectl(&[&delete[..], &["-l", "app=paygress-gateway"]].concat());
    }
}

impl Drop for DeployedGateway {
    fn drop(&mut self) {
        let log = kubectl_command(&LOG).output();
        if let Ok(log) = log
            && log.status.success()
            && !std::thread::panicking()
        {
            search(&String::from_utf8_lossy(&log.stdout));
        }
    }
}

/// Fails if this log holds a secret.
fn search(log: &str) {
    secrets::assert_none("the log of the deployed gateway", log);
}

/// These manifests with a gateway that has no way to pods but their network, as its NetworkPolicy
/// opens it. The service has both ways.
fn by_pod_network(manifests: &str) -> String {
    let objects = manifests.split("\n---\n").map(|text| {
        let is_of_gateway = text.contains("\n  name: paygress-gateway\n");
        if !(text.contains("kind: Deployment\n") && is_of_gateway) {
            return text.to_owned();
        }
        let mut deployment: Value = serde_saphyr::from_str(text).unwrap();
        let setting = json!([{"name": "GATEWAY_POD_NETWORK", "value": "pod-network"}]);
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] = setting;
        deployment.to_string()
    });
    let objects: Vec<String> = objects.collect();
    assert_eq!(objects.iter().filter(|text| text.starts_with('{')).count(), 1);
    objects.join("\n---\n")
}

/// The Secrets that an operator creates once, as docs/operating.md has it; gone with this.
struct Secrets(());

impl Secrets {
    fn create(outside: &Outside, database: &Database) -> Self {
        let (created, endpoint) = (Self(()), new_key());
        let host_key = outside.directory.path().join("gateway_host_key");
        let mut keygen = Command::new("ssh-keygen");
        output(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&host_key));
        let text = std::fs::read_to_string(&host_key).unwrap();
        text.lines().filter(|line| !line.starts_with("-----")).for_each(secrets::add);
        [database.url.as_str(), MNEMONIC].into_iter().for_each(secrets::add);
        let create = |name: &str, values: [String; 2]| {
            let [first, second] = &values;
            kubectl(&["-n", "ingress-system", "create", "secret", "generic", name, first, second]);
        };
        create(
            "paygress-gateway-keys",
            [
                format!("--from-file=gateway_host_key={}", host_key.display()),
                format!("--from-literal=gateway_endpoint_key={endpoint}"),
            ],
        );
        create(
            "paygress-postgres",
            [
                format!("--from-literal=DATABASE_URL={}", database.url),
                format!("--from-literal=WALLET_MNEMONIC={MNEMONIC}"),
            ],
        );
        created
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let delete = ["-n", "ingress-system", "delete", "--ignore-not-found"];
        let made = ["secret/paygress-gateway-keys", "secret/paygress-postgres"];
        kubectl(&[&delete[..], &made, &["poddisruptionbudget/paygress"]].concat());
    }
}
