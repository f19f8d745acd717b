//! A pod that is sold without a port of the nodes, and the ways to it.

use crate::support::testbed::{
    AdmissionParameters, CLUSTER, Ssh, Testbed, admin_kubeconfig, kubectl, root,
};
use crate::{PASSWORD, in_workloads, pods};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// `kubectl port-forward`, gone with this.
struct Forwarded {
    process: Child,
    port: u16,
}

impl Forwarded {
    fn to(pod: &str) -> Self {
        let mut command = Command::new(Testbed::kubectl());
        command.env("KUBECONFIG", admin_kubeconfig());
        command.args(["-n", "user-workloads", "port-forward", pod, ":2222"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // Forwarding from 127.0.0.1:40123 -> 2222
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next());
        let port = port.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Self { process, port }
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_without_a_port_is_reached_by_port_forwarding_and_by_its_own_address() {
    let _alone = CLUSTER.lock();
    let _parameters = AdmissionParameters::set(&[("ACCESS", "gateway")]);
    let testbed = Testbed::start("access", &[("ACCESS", "gateway"), ("MAX_LEASES", "1")]);
    let order =
        |token| json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": PASSWORD});
    let answer = testbed.ask(&order(testbed.token(21)));
    assert!(answer["error_type"].is_null(), "refused: {answer}");
    assert_eq!(answer["ssh_host"], answer["pod_name"], "what the gateway calls it");
    assert_eq!((&answer["ssh_port"], &answer["node_port"]), (&json!(22), &json!(22)));

    assert_eq!(pods("jsonpath={.items[*].spec.containers[*].ports[*].hostPort}"), "");
    assert_eq!(in_workloads(&["get", "service", "-o", "name"]), "");
    let pod = pods("jsonpath={.items[*].metadata.name}");
    let forwarded = Forwarded::to(&format!("pod/{pod}"));
    let ssh = Ssh { port: forwarded.port, username: "alice", password: PASSWORD };
    assert_eq!(ssh.run("echo here"), ("here\n".to_owned(), Some(0)));

    let address: IpAddr = pods("jsonpath={.items[*].status.podIP}").parse().unwrap();
    let mut banner = [0_u8; 8];
    TcpStream::connect((address, 2_222)).unwrap().read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-2.0-");

    // There is one place, and the second token is not taken.
    let token = testbed.token(7);
    let refused = testbed.ask_as_another(&order(token.clone()));
    assert_eq!(refused["error_type"], "resource_unavailable", "{refused}");
    assert_eq!(testbed.state(&token), "UNSPENT");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn without_ports_the_namespace_is_baseline_and_only_the_gateway_connects() {
    let overlay = root().join("target/e2e/without-ports");
    std::fs::create_dir_all(&overlay).unwrap();
    let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../../k8s/base]\ncomponents: [../../../k8s/overlays/without-ports]\n";
    std::fs::write(overlay.join("kustomization.yaml"), text).unwrap();
    let built = kubectl(&["kustomize", &overlay.to_string_lossy()]);
    let objects = built.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap());
    let objects: Vec<Value> = objects.collect();
    let named = |kind: &str, name: &str| {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        objects.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let labels = &named("Namespace", "user-workloads")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "baseline");
    let service = &named("Namespace", "ingress-system")["metadata"]["labels"];
    assert_eq!(service["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(named("ConfigMap", "paygress-admission")["data"]["ACCESS"], "gateway");
    let ingress = &named("NetworkPolicy", "customers-ingress")["spec"]["ingress"];
    let gateway = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-system"}},
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["paygress", "paygress-gateway"]}]},
    });
    assert_eq!(
        *ingress,
        json!([{"from": [gateway], "ports": [{"protocol": "TCP", "port": 2222}]}])
    );
}
