//! A pod that writes to its customer by itself: with a key of its own, which nobody in the pod can
//! find, and with the host keys that it has.

use super::{
    LoginKey, PROBES, SERVER, SoldPod, TINY, Tunnel, allow_server, configuration, succeeded,
};
use crate::node_host::{FROM_NODE, NodeHost};
use crate::support::testbed::{CLUSTER, NetworkPolicies, Testbed, is_left_out, wait_for};
use crate::{in_workloads, pods};
use paygress_core::protocol::{AccessDetails, RequestBody, Response, sorted};
use paygress_nostr::client::{Answer, Client, PodMessage};
use paygress_nostr::{Keys, PublicKey, RelayUrl, npub};
use serde_json::json;
use std::fs::File;
use std::process::Command;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Where pods may connect to: it is in no private network, and this machine has it while a test
/// needs it.
const PUBLIC: &str = "203.0.113.9";
const PASSWORD: &str = "what nobody finds in a pod";
const SOON: Duration = Duration::from_secs(180);
/// What the search must find: a file that the customer has written.
const PLANTED: &str = "/tmp/planted";
/// How long policies may take to be enforced, or not to be any more.
const ENFORCED: Duration = Duration::from_secs(30);
/// The API server, by its Service and at the node, and the sockets of tunnels there.
const API_SERVER: [(&str, &str); 2] =
    [("by-service", "10.96.0.1:443"), ("at-node", "10.88.0.1:16443")];
/// Prints what the server behind a socket answers to a request for a path, by TLS.
const GET: &str = r#"
import socket, ssl, sys
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(5)
stream.connect(sys.argv[1])
stream = ssl._create_unverified_context().wrap_socket(stream)
stream.sendall(f"GET {sys.argv[2]} HTTP/1.0\r\n\r\n".encode())
while piece := stream.recv(65536):
    sys.stdout.write(piece.decode())
"#;

/// The address, until this is dropped.
struct PublicAddress;

impl PublicAddress {
    fn add() -> Self {
        // That of a test that was killed.
        let _ = Self::ip("delete");
        assert!(Self::ip("add"), "this machine takes the address {PUBLIC}");
        Self
    }

    fn ip(action: &str) -> bool {
        let address = format!("{PUBLIC}/32");
        let done = Command::new("ip").args(["address", action, &address, "dev", "lo"]).output();
        done.unwrap().status.success()
    }
}

impl Drop for PublicAddress {
    fn drop(&mut self) {
        Self::ip("delete");
    }
}

/// A service whose pods write to their customers, as users of this kind. Anybody extends them.
fn start_replying(name: &str, root: &str, more: &[(&str, &str)]) -> Testbed {
    let own = [
        ("SSH_SERVER_IMAGE", SERVER),
        ("REPLY_FROM_POD", "true"),
        ("POD_ROOT", root),
        ("POD_PROBE", "true"),
        ("POD_READY_SECONDS", "60"),
    ];
    let environment = [&own[..], more].concat();
    let duration = "[policy.duration]\n";
    let for_others = format!("{duration}extend_by_others = true\n");
    let file = configuration(TINY, &[]).replace(duration, &for_others);
    let testbed = Testbed::start_at(PUBLIC, name, &file, &environment);
    wait_for("a probe pod", PROBES, || testbed.readyz()["ready"] == true);
    testbed
}

/// Buys a pod over Nostr, for a login by this key and by the password.
fn buy(testbed: &Testbed, key: &LoginKey) -> (AccessDetails, Answer) {
    let runtime = Runtime::new().unwrap();
    let request = RequestBody {
        // Ten minutes: the search takes a while, and so do policies.
        cashu_token: Some(testbed.token(121)),
        ssh_username: Some("alice".to_owned()),
        ssh_password: Some(PASSWORD.to_owned()),
        ssh_public_key: Some(key.public()),
        ..RequestBody::default()
    };
    let answer = runtime.block_on(async {
        let relay = RelayUrl::parse(testbed.relay()).unwrap();
        let client = Client::connect(Keys::generate(), vec![relay]).await.unwrap();
        let service = PublicKey::parse(testbed.npub()).unwrap();
        client.ask(service, &request, SOON, |_| ()).await.unwrap()
    });
    let access = match &answer.response {
        Some(Response::Access(access)) => access.clone(),
        other => panic!("{other:?}"),
    };
    (access, answer)
}

/// The one message of the pod, of the key that the service's answer names.
fn of_the_pod<'a>(testbed: &Testbed, access: &AccessDetails, answer: &'a Answer) -> &'a PodMessage {
    let log = || testbed.log();
    assert!(access.pod_npub.starts_with("npub1"), "{}: {}", access.pod_npub, log());
    let [message] = answer.from_pods.as_slice() else {
        panic!("{} messages: {}", answer.from_pods.len(), log());
    };
    assert_eq!(npub(&message.author), access.pod_npub);
    assert_ne!(access.pod_npub, testbed.npub(), "it is not the service's");
    let details = &message.details;
    assert_eq!(details.pod_npub.as_ref(), Some(&access.pod_npub));
    assert_eq!(details.service_npub.as_deref(), Some(testbed.npub()));
    assert_eq!(details.pod_name, access.pod_name);
    assert_eq!((&details.ssh_host, details.ssh_port), (&access.ssh_host, access.ssh_port));
    assert_eq!(details.ssh_password, access.ssh_password);
    let sorted_keys = |keys: &[String]| {
        let mut keys = keys.to_vec();
        keys.sort();
        keys
    };
    let (own, named) = (&details.ssh_host_keys, &access.identity.ssh_host_keys);
    assert_eq!(sorted_keys(own), sorted_keys(named));
    assert!(!own.is_empty());
    message
}

/// A script for a shell in the pod that prints whatever it finds of these texts and files. What it
/// writes itself is not there: the texts are put together by the shell.
fn search(secrets: &[(&str, &str)]) -> String {
    let halves = secrets.iter().map(|(name, text)| {
        let (first, second) = text.split_at(text.len() / 2);
        format!("find_text '{name}' '{first}' '{second}'\n")
    });
    let texts: String = halves.collect();
    format!(
        r#"
find_text() {{
  wanted="$2""$3"
  env | grep -qF -- "$wanted" && echo "$1 in env"
  for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo; do
    # The shell's own variable is in no file.
    tr '\0' '\n' <"$file" 2>/dev/null | grep -qF -- "$wanted" && echo "$1 in $file"
  done
  find / -xdev -type f -size -2048k ! -path '/proc/*' ! -path '/sys/*' 2>/dev/null | while read -r file; do
    grep -qF -- "$wanted" "$file" 2>/dev/null && echo "$1 in $file"
  done
  for mount in $(cut -d' ' -f5 /proc/self/mountinfo); do
    case "$mount" in /proc*|/sys*|/dev*|/) continue;; esac
    find "$mount" -xdev -type f -size -2048k 2>/dev/null | while read -r file; do
      grep -qF -- "$wanted" "$file" 2>/dev/null && echo "$1 in $file"
    done
  done
}}
{texts}
grep -F paygress-reply /proc/self/mountinfo && echo "a mount of what the pod writes"
ls -d /.paygress-reply 2>/dev/null && echo "its directory"
find / -xdev -name message.json 2>/dev/null
ls -d /var/run/secrets/kubernetes.io /run/secrets/kubernetes.io 2>/dev/null
ls /proc | grep -E '^[0-9]+$' | while read -r pid; do
  grep -q '[p]aygress-nostr' "/proc/$pid/cmdline" 2>/dev/null && echo "its program runs as $pid"
done
echo searched
"#
    )
}

/// What the search may find of the login: it is the customer's own, in the volume that the template
/// mounts. What the customer has written is found too.
fn only_the_login(found: &str) -> bool {
    let planted = format!("a secret key in {PLANTED}");
    let may_be_found = |line: &str| {
        line == "searched" || line == planted || line.contains("in /run/paygress/login/")
    };
    found.lines().all(may_be_found)
        && found.lines().any(|line| line == planted)
        && found.ends_with("searched\n")
}

/// What the API server answers to the pod; nothing where it is not reached.
fn answer_of_the_api(tunnel: &Tunnel, path: &str) -> String {
    let mut python = Command::new("python3");
    let done = python.args(["-c", GET]).arg(&tunnel.socket).arg(path).output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}

/// The pod's API is the cluster's: it is not reached, and gives nothing without a token if it is.
fn no_answer_of_the_api(machine: &SoldPod, pod: &str) {
    let secret = format!("/api/v1/namespaces/user-workloads/secrets/{pod}-reply");
    let paths = [secret, "/api/v1/namespaces/user-workloads/pods".to_owned()];
    let mut tunnels = API_SERVER.map(|(name, address)| Tunnel::through(machine, name, address));
    let removed = NetworkPolicies::removed();
    for tunnel in &tunnels {
        for path in &paths {
            let mut answer = String::new();
            wait_for("an answer without a policy", ENFORCED, || {
                answer = answer_of_the_api(tunnel, path);
                !answer.is_empty()
            });
            let status = answer.split(' ').nth(1);
            assert!(matches!(status, Some("401" | "403")), "{path}: {answer}");
            assert!(!answer.contains("message.json"), "{path}: {answer}");
        }
    }
    drop(removed);
    for tunnel in &mut tunnels {
        wait_for("the policies to be enforced", ENFORCED, || {
            paths.iter().all(|path| answer_of_the_api(tunnel, path).is_empty())
        });
        assert!(tunnel.client.try_wait().unwrap().is_none(), "the tunnel has ended");
    }
}

/// A token that is pasted in the pod reaches the service by the relay, which the pod knows.
fn is_extended_from_inside(testbed: &Testbed, machine: &SoldPod) {
    let pasted = machine.path("token");
    std::fs::write(&pasted, testbed.token(5) + "\n").unwrap();
    let mut shell = machine.client("ssh");
    shell.args(["pod", "paygress-top-up"]).stdin(File::open(pasted).unwrap());
    let shown = succeeded("a top-up from inside", shell.output().unwrap());
    assert!(shown.starts_with("extended by 20 seconds, until "), "{shown}");
}

/// As the user of this kind the pod is bought, logged in to by its own `known_hosts`, and searched.
fn speaks_for_itself(name: &str, root: &str, uid: &str, environment: &[(&str, &str)]) {
    let _set = allow_server();
    let _address = PublicAddress::add();
    let testbed = start_replying(name, root, environment);
    let key = LoginKey::new();
    let (access, answer) = buy(&testbed, &key);
    let message = of_the_pod(&testbed, &access, &answer);
    // Host keys and address are those that the pod itself has sent: the service's are not used.
    let machine = key.machine(sorted(&message.details));
    assert_eq!(machine.run("id -u"), format!("{uid}\n"));

    machine.run(&format!("printf 'nsec%s' 1planted > {PLANTED}"));
    let secrets = [
        ("the message", "pod_access_details"),
        ("the password", PASSWORD),
        ("a secret key", "nsec1"),
    ];
    let key = message.author.to_hex();
    let found = machine.run(&search(&[&secrets[..], &[("the key", key.as_str())][..]].concat()));
    assert!(only_the_login(&found), "{found}");
    no_answer_of_the_api(&machine, &access.pod_name);

    // Nor do the pod's objects show it.
    let shown = in_workloads(&["get", "job,pod", "-l", "app=paygress-ssh-pod", "-o", "json"]);
    assert!(!shown.contains(PASSWORD) && !shown.contains("pod_access_details"), "{shown}");
    let mounted = pods("jsonpath={.items[*].spec.containers[*].volumeMounts[*].name}");
    assert!(!mounted.contains("paygress-reply"), "{mounted}");
    let log = testbed.log();
    assert!(!log.contains(PASSWORD) && !log.contains("pod_access_details"), "{log}");

    // The pod's key names it: of a key that no pod has it would be `not_found`.
    let status = testbed.ask_as_another(&json!({"type": "status", "pod_npub": access.pod_npub}));
    assert_eq!(status["error_type"], "not_owner", "{status}");
    // Last: what it stores in the pod has a key and the token.
    is_extended_from_inside(&testbed, &machine);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_of_root_speaks_for_itself_and_its_customer_finds_no_key() {
    let _alone = CLUSTER.lock();
    speaks_for_itself("machines-reply-root", "auto", "0", &[]);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_without_root_speaks_for_itself_too() {
    if is_left_out("a_pod_of_root_speaks_for_itself_and_its_customer_finds_no_key") {
        return;
    }
    let _alone = CLUSTER.lock();
    // It writes where its node is reached, and what it has written is gone when it is ready.
    let _named = NodeHost::name("127.0.0.1");
    speaks_for_itself("machines-reply", "never", "1000", &FROM_NODE);
    assert!(!in_workloads(&["get", "secrets", "-o", "name"]).contains("-reply"));
}

/// Its relay is where pods may not connect to: it is sold and answered as ever.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_that_reaches_no_relay_is_sold_all_the_same() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    let testbed = super::start("machines-mute", TINY, &[], &[("REPLY_FROM_POD", "true")]);
    let machine = SoldPod::buy(&testbed, 25, &json!({}));
    assert_eq!(machine.answer["pod_npub"], machine.answer["pod_name"]);
    assert_eq!(machine.run("echo in"), "in\n");
    let log = testbed.log();
    assert!(log.contains("a pod did not write to its customer"), "{log}");
}
