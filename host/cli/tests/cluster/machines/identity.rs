//! A pod is known by its host keys, in whoever's hands its port is, and however often its container
//! starts.

use super::{LoginKey, SERVER, SoldPod, TINY, allow_server, start};
use crate::node::Namespace;
use crate::support::customer::until;
use crate::support::testbed::{CLUSTER, Testbed, apply, items, kill_container, wait_for};
use crate::support::web::Web;
use crate::{PASSWORD, in_workloads};
use futures::{SinkExt, StreamExt};
use paygress_sshd::{Account, Password, new_host_key, parse_keys, serve};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

const SOON: Duration = Duration::from_secs(60);

/// Another SSH server, which lets the customers in.
struct Imposter {
    port: u16,
    _stop: watch::Sender<bool>,
    _home: TempDir,
}

impl Imposter {
    async fn start(key: &LoginKey) -> Self {
        let home = tempfile::tempdir().unwrap();
        let account = Account {
            keys: parse_keys(&key.public()).unwrap(),
            ..Account::new("alice", Password::new(PASSWORD), home.path())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
        Self { port, _stop: stop, _home: home }
    }
}

/// Connections to a port of this machine lead to another one, until this is dropped.
struct Redirected {
    port: u16,
    to: u16,
}

impl Redirected {
    fn begin(port: u16, to: u16) -> Self {
        let redirected = Self { port, to };
        assert!(redirected.rule("-I"), "iptables takes the rule");
        redirected
    }

    /// Before all other rules, those for the ports of pods too.
    fn rule(&self, action: &str) -> bool {
        let [port, to] = [self.port, self.to].map(|port| port.to_string());
        let mut iptables = Command::new("iptables");
        iptables.args(["-w", "10", "-t", "nat", action, "OUTPUT", "-p", "tcp", "-d", "127.0.0.1"]);
        iptables.args(["--dport", &port, "-j", "REDIRECT", "--to-ports", &to]);
        iptables.status().unwrap().success()
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        self.rule("-D");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_man_in_the_middle_gets_neither_a_login_nor_a_password() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    let testbed = start("machines-imposter", TINY, &[], &[]);
    let runtime = Runtime::new().unwrap();
    at_the_port(&testbed, &runtime);
    runtime.block_on(at_the_web_terminal(&testbed));
}

/// OpenSSH's client, with the answer's `known_hosts`.
fn at_the_port(testbed: &Testbed, runtime: &Runtime) {
    let machine = SoldPod::buy(testbed, 25, &json!({}));
    assert_eq!(machine.run("test -d /.paygress && echo the pod"), "the pod\n");
    let imposter = runtime.block_on(Imposter::start(&machine.key));
    let redirected = Redirected::begin(machine.port(), imposter.port);
    // It is in the pod's place: who does not compare its key is let in.
    let careless = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
    let mut ssh = machine.client("ssh");
    let done = ssh.args(careless).args(["pod", "test -d /.paygress || echo not the pod"]).output();
    assert_eq!(String::from_utf8(done.unwrap().stdout).unwrap(), "not the pod\n");
    let refused = machine.try_run("echo in");
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(255), &b""[..]));
    assert!(message.contains("Host key verification failed"), "{message}");
    drop(redirected);
    assert_eq!(machine.run("test -d /.paygress && echo the pod"), "the pod\n");
}

/// The terminal of the web page, which sends the password for the customer.
async fn at_the_web_terminal(testbed: &Testbed) {
    let web = Web::new(testbed.address());
    let order = json!({"cashu_token": testbed.token(25), "ssh_username": "alice", "ssh_password": PASSWORD});
    let bought = web.spawn(order).await.good();
    let field = |name: &str| bought[name].as_str().unwrap().to_owned();
    let (pod, bearer) = (field("pod_name"), field("bearer_token"));
    let path = format!("/pods/{pod}/access");
    let access = until("the pod is ready", async || {
        let access = web.get(&path, &bearer).await;
        (access.status == 200).then(|| access.json())
    });
    let access = access.await;
    let (code, shown) = terminal(&web, &pod, &bearer).await;
    assert!(code == 1_000 && shown.contains("alice at the pod"), "{code}: {shown}");
    let imposter = Imposter::start(&LoginKey::new()).await;
    let port = u16::try_from(access["ssh_port"].as_u64().unwrap()).unwrap();
    let redirected = Redirected::begin(port, imposter.port);
    let (code, shown) = terminal(&web, &pod, &bearer).await;
    assert_eq!(code, 4_502, "{shown}");
    assert!(shown.contains("its host key is not the pod's; no password was sent"), "{shown}");
    drop(redirected);
}

/// The code with which this pod's terminal is closed, and what it has shown, the reason included.
async fn terminal(web: &Web, pod: &str, bearer: &str) -> (u16, String) {
    let url = format!("ws://{}/pods/{pod}/terminal", web.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let hello = json!({"bearer_token": bearer, "columns": 80, "rows": 24}).to_string();
    socket.send(Message::text(hello)).await.unwrap();
    // It may be closed by now.
    let typed = b"test -d /.paygress && echo \"$USER at the\" pod; exit\n".to_vec();
    let _ = socket.send(Message::binary(typed)).await;
    let mut shown = String::new();
    loop {
        let message = tokio::time::timeout(SOON, socket.next()).await.expect("it is closed");
        match message.unwrap().unwrap() {
            Message::Binary(bytes) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            Message::Close(Some(frame)) => {
                shown.push_str(frame.reason.as_str());
                return (u16::from(frame.code), shown);
            }
            _ => {}
        }
    }
}

/// A container of the default template is not restarted (`restartPolicy: Never`): its end is that
/// of the lease. Templates may say `OnFailure`; here the pod of a lease runs so once more, as the
/// service has made it, beside the admission policy.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_container_that_is_restarted_has_the_same_host_keys() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    for (volume, namespace) in [("copy", "restarted-copy"), ("image", "restarted-image")] {
        restarts_with_its_keys(volume, namespace);
        println!("the server by {volume}: the same host keys");
    }
}

/// Of a pod into which the server comes so.
fn restarts_with_its_keys(volume: &str, place: &'static str) {
    let name = format!("machines-restart-{volume}");
    let testbed = start(&name, TINY, &[], &[("SSH_SERVER_VOLUME", volume)]);
    let bought = SoldPod::buy(&testbed, 25, &json!({}));
    let secret = bought.answer["pod_name"].as_str().unwrap();
    let namespace = Namespace::create(place);
    copy_secret(secret, place);
    let spec = restartable(&bought, secret);
    assert_eq!(spec["initContainers"][0]["image"] == SERVER, volume == "copy", "{spec}");
    let ip = namespace.start("pod", &spec);
    let field =
        |path: &str| namespace.kubectl(&["get", "pod", "pod", "-o", &format!("jsonpath={path}")]);
    let known_hosts = scanned(&ip);
    assert_eq!(known_hosts.len(), 2, "Ed25519 and ECDSA: {known_hosts:?}");
    let reported = field("{.status.initContainerStatuses[0].state.terminated.message}");
    let is_known = |key: &str| known_hosts.iter().any(|line| line.ends_with(key));
    assert!(reported.lines().all(is_known), "{reported} of {known_hosts:?}");
    let answer = json!({"ssh_host": ip, "ssh_port": 2_222, "ssh_username": "alice", "known_hosts": known_hosts.join("\n")});
    let machine = bought.key.copy().machine(answer);
    assert_eq!(machine.run("echo first"), "first\n");
    let id = field("{.status.containerStatuses[0].containerID}");
    kill_container(id.strip_prefix("containerd://").unwrap());
    wait_for("another container", SOON, || {
        let container =
            "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        field(container) == "1 true"
    });
    assert_ne!(field("{.status.containerStatuses[0].containerID}"), id);
    assert_eq!(machine.run("echo second"), "second\n", "with the host keys of the first");
}

/// The lines of a `known_hosts` file for the server at this address.
fn scanned(ip: &str) -> Vec<String> {
    let mut scan = Command::new("ssh-keyscan");
    let done = scan.args(["-p", "2222", ip]).output().unwrap();
    let lines = String::from_utf8(done.stdout).unwrap();
    lines.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Puts the Secret of a lease into another namespace too.
fn copy_secret(name: &str, namespace: &str) {
    let text = in_workloads(&["get", "secret", name, "-o", "json"]);
    let secret: Value = serde_json::from_str(&text).unwrap();
    let metadata = json!({"name": name, "namespace": namespace});
    let copy =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["data"]});
    apply(&copy.to_string());
}

/// The lease's pod with another restart policy, without its port of the node.
fn restartable(machine: &SoldPod, secret: &str) -> Value {
    let lease = machine.answer["pod_name"].as_str().unwrap().strip_prefix("ssh-pod-").unwrap();
    let of_lease = format!("paygress.dev/lease={lease}");
    let pods = items(&["-n", "user-workloads", "get", "pods", "-l", &of_lease, "-o", "json"]);
    let mut spec = pods[0]["spec"].clone();
    // What the API server has added.
    for field in ["nodeName", "priority", "preemptionPolicy", "tolerations"] {
        spec.as_object_mut().unwrap().remove(field);
    }
    spec["restartPolicy"] = json!("OnFailure");
    spec["containers"][0]["ports"] = json!([{"containerPort": 2_222}]);
    assert_eq!(spec["volumes"][0]["secret"]["secretName"], secret);
    spec
}
