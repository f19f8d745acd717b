//! A pod that is sold without a port of the nodes, and the ways to it.

use crate::machines::{LoginKey, SERVER};
use crate::support::testbed::{
    AdmissionParameters, CLUSTER, Standard, Testbed, kustomized, output,
};
use crate::{in_workloads, pods};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// A jump host and an endpoint of iroh in the service, and room for one pod.
const GATEWAY: [(&str, &str); 7] = [
    ("ACCESS", "gateway"),
    ("SSH_SERVER_IMAGE", SERVER),
    ("APPS_DOMAIN", "apps.test"),
    ("MAX_LEASES", "1"),
    ("GATEWAY_SSH_LISTEN", "127.0.0.1:0"),
    ("GATEWAY_IROH", "true"),
    ("GATEWAY_IROH_BIND", "127.0.0.1:0"),
];

/// A customer's shell with `paygress` in its path, who trusts nobody but whom the answer names.
pub(crate) struct Shell<'a> {
    pub(crate) key: &'a LoginKey,
}

impl Shell<'_> {
    /// What the command of this way prints in the pod.
    pub(crate) fn run(&self, way: &Value, line: &str) -> String {
        let known_hosts = self.key.path("known_hosts");
        std::fs::write(&known_hosts, way["known_hosts"].as_str().unwrap()).unwrap();
        let config = format!(
            "Host *\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nLogLevel ERROR\n",
            self.key.path("key").display(),
            known_hosts.display()
        );
        std::fs::write(self.key.path("config"), config).unwrap();
        let with_config = format!("ssh -F {} ", self.key.path("config").display());
        let command = way["command"].as_str().unwrap().replacen("ssh ", &with_config, 1);
        let programs = Path::new(env!("CARGO_BIN_EXE_paygress")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{command} '{line}'")]).env("PATH", path);
        output(shell.stdin(Stdio::null()))
    }
}

/// Where the namespace enforces `restricted`: see `k8s/overlays/without-ports`.
const RESTRICTED: [(&str, &str); 2] = [("POD_ROOT", "never"), ("SSH_SERVER_VOLUME", "copy")];

/// The port of a pod is its customer's alone: gives the header by which their browser is known.
fn as_its_customer(testbed: &Testbed, answer: &Value) -> String {
    let url = answer["http_url"].as_str().unwrap();
    let host = url.strip_prefix("https://").unwrap();
    let refused = testbed.get(host, "/");
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("not_owner"), "{refused}");
    let status = testbed.ask(&json!({"type": "status", "pod_name": answer["pod_name"]}));
    let link = status["http_login_url"].as_str().expect("a link to log in");
    let path = link.strip_prefix(url).unwrap();
    let entered = testbed.get_with(host, path, "Sec-Fetch-Mode: navigate\r\n");
    let cookie = entered.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.expect("a cookie").split(';').next().unwrap();
    format!("Cookie: {cookie}\r\n")
}

/// By this route of the gateway: a pod is bought without a port, and reached by each way, its
/// web server too, by anybody or by its customer alone. No probe pod shows that they may be root.
fn a_pod_without_a_port_is_reached(route: &str, is_public: bool, settings: &[(&str, &str)]) {
    let environment = [&GATEWAY[..], &[("GATEWAY_POD_NETWORK", route)][..], settings].concat();
    let testbed = Testbed::start(&format!("access-{route}"), &environment);
    let key = LoginKey::new();
    let order = |token: String| json!({"cashu_token": token, "ssh_username": "alice", "ssh_public_key": key.public(), "http_port": 8_080, "http_public": is_public});
    let answer = testbed.ask(&order(testbed.token(121)));
    assert_eq!(answer["error_type"], Value::Null, "{}", answer["message"]);
    assert_eq!(answer["ssh_host"], answer["pod_name"], "what the gateway calls it");
    assert_eq!((&answer["ssh_port"], &answer["node_port"]), (&json!(22), &json!(22)));

    assert_eq!(pods("jsonpath={.items[*].spec.containers[*].ports[*].hostPort}"), "");
    assert_eq!(in_workloads(&["get", "service", "-o", "name"]), "");
    let ways = answer["access"].as_array().unwrap();
    let kinds: Vec<&Value> = ways.iter().map(|way| &way["type"]).collect();
    assert_eq!(kinds, ["jump-host", "iroh"], "{route}");
    let shell = Shell { key: &key };
    for way in ways {
        let shown = shell.run(way, "echo $USER is here; id -u");
        assert_eq!(shown, "alice is here\n1000\n", "{route}: {way}");
    }
    let host = format!("{}.apps.test", answer["pod_name"].as_str().unwrap());
    assert_eq!(answer["http_url"], format!("https://{host}"));
    let customer = match is_public {
        true => String::new(),
        false => as_its_customer(&testbed, &answer),
    };
    let silent = testbed.get_with(&host, "/", &customer);
    assert!(silent.contains("nothing answers at port 8080 of the pod"), "{route}: {silent}");
    shell.run(
        &ways[0],
        "mkdir www && echo of the pod > www/index.html && busybox httpd -p 8080 -h www",
    );
    let page = testbed.get_with(&host, "/", &customer);
    assert!(page.ends_with("\r\n\r\nof the pod\n"), "{route}: {page}");

    // There is one place, and the second token is not taken.
    let token = testbed.token(7);
    let refused = testbed.ask_as_another(&order(token.clone()));
    assert_eq!(refused["error_type"], "resource_unavailable", "{refused}");
    assert_eq!(testbed.state(&token), "UNSPENT");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_without_a_port_is_reached_by_the_gateway() {
    let _alone = CLUSTER.lock();
    let _parameters =
        AdmissionParameters::set(&[("ACCESS", "gateway"), ("SSH_SERVER_IMAGE", SERVER)]);
    {
        // As `k8s/overlays/without-ports` has it.
        let _standard = Standard::enforce("baseline");
        a_pod_without_a_port_is_reached("port-forward", true, &[]);
    }
    let _standard = Standard::enforce("restricted");
    a_pod_without_a_port_is_reached("pod-network", false, &RESTRICTED);
}

/// The objects of `k8s/base` as `k8s/overlays/without-ports` changes them.
pub(crate) struct WithoutPorts(Vec<Value>);

impl WithoutPorts {
    pub(crate) fn build() -> Self {
        let built = kustomized("without-ports", "base", &["without-ports"], &[]);
        let objects = built.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap());
        Self(objects.collect())
    }

    pub(crate) fn named(&self, kind: &str, name: &str) -> &Value {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.0.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn without_ports_the_namespace_is_baseline_and_only_the_gateway_connects() {
    let built = WithoutPorts::build();
    let named = |kind: &str, name: &str| built.named(kind, name);
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
