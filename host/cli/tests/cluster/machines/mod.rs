//! Pods of any image, as customers use them: bought over Nostr with cashu-ts, used with OpenSSH's
//! clients, which trust no host key but those of the answer.

mod debian;
mod identity;
mod images;
mod lease_end;
mod pod_reply;
mod program;
mod pulls;
mod speed;

use crate::support::testbed::{AdmissionParameters, CLUSTER, Testbed, output, sized, wait_for};
use images::Image;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The image that is put beside the customers' images.
pub(crate) const SERVER: &str = "paygress.local/ssh:1";
const TINY: &str = "id = \"tiny\", cpu_millicores = 100, memory_mib = 64";
/// How long two probe pods may take.
pub(crate) const PROBES: Duration = Duration::from_secs(120);
/// What is moved by `sftp`.
const FILE_BYTES: usize = 4 * 1_024 * 1_024;

/// The admission policy takes the image with the server as long as this lives.
fn allow_server() -> AdmissionParameters {
    AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)])
}

/// The configuration of a service that sells pods of this tier and these images.
fn configuration(tier: &str, images: &[&str]) -> String {
    format!(
        "[policy.duration]\nminimum_seconds = 5\n[policy.pricing]\nsats_per_hour = 720\ntiers = [{{ {tier} }}]\n[policy.images]\nallow = {}\n",
        json!(images)
    )
}

/// Starts a service that puts its server into these images, and waits for its probe pod.
fn start(name: &str, tier: &str, images: &[&str], environment: &[(&str, &str)]) -> Testbed {
    let own = [("SSH_SERVER_IMAGE", SERVER), ("POD_PROBE", "true"), ("POD_READY_SECONDS", "60")];
    let environment = [&own[..], environment].concat();
    let testbed = Testbed::start_with(name, &configuration(tier, images), &environment);
    wait_for("a probe pod", PROBES, || testbed.readyz()["ready"] == true);
    testbed
}

/// A key to log in with.
pub(crate) struct LoginKey(TempDir);

impl LoginKey {
    pub(crate) fn new() -> Self {
        let key = Self(tempfile::tempdir().unwrap());
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(key.path("key"));
        output(&mut keygen);
        key
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn public(&self) -> String {
        std::fs::read_to_string(self.path("key.pub")).unwrap().trim().to_owned()
    }

    fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        for name in ["key", "key.pub"] {
            std::fs::copy(self.path(name), copy.path(name)).unwrap();
        }
        copy
    }

    /// An order for a login with this key, with what else is given.
    fn order(&self, token: &str, more: &Value) -> Value {
        let mut order =
            json!({"cashu_token": token, "ssh_username": "alice", "ssh_public_key": self.public()});
        for (name, value) in more.as_object().unwrap() {
            order[name.as_str()] = value.clone();
        }
        order
    }

    /// The pod of an answer.
    fn machine(self, answer: Value) -> SoldPod {
        let text = |name: &str| {
            let found = answer[name].as_str();
            // Not the whole answer: it may hold a password.
            found.unwrap_or_else(|| panic!("no {name}: {}", answer["message"])).to_owned()
        };
        std::fs::write(self.path("known_hosts"), text("known_hosts") + "\n").unwrap();
        let config = format!(
            "Host pod\nHostName {}\nPort {}\nUser {}\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nLogLevel ERROR\nConnectTimeout 10\nControlPath none\n",
            text("ssh_host"),
            answer["ssh_port"],
            text("ssh_username"),
            self.path("key").display(),
            self.path("known_hosts").display()
        );
        std::fs::write(self.path("config"), config).unwrap();
        SoldPod { answer, key: self }
    }
}

/// A pod that was bought.
struct SoldPod {
    answer: Value,
    key: LoginKey,
}

impl SoldPod {
    /// Buys one for so many sats; `more` is what else the order says.
    fn buy(testbed: &Testbed, sat: u64, more: &Value) -> Self {
        let key = LoginKey::new();
        let token = testbed.token(sat);
        let answer = testbed.ask(&key.order(&token, more));
        assert_eq!(answer["error_type"], Value::Null, "{}", answer["message"]);
        assert_eq!(testbed.state(&token), "SPENT");
        key.machine(answer)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.key.path(name)
    }

    fn port(&self) -> u16 {
        u16::try_from(self.answer["ssh_port"].as_u64().unwrap()).unwrap()
    }

    /// One of OpenSSH's programs, which knows the pod as `pod`.
    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.path("config")).stdin(Stdio::null());
        command
    }

    /// How a command ends.
    fn try_run(&self, script: &str) -> Output {
        self.client("ssh").args(["pod", script]).output().unwrap()
    }

    /// What a command prints; it must succeed.
    fn run(&self, script: &str) -> String {
        succeeded(script, self.try_run(script))
    }

    /// Lets `sftp` do this.
    fn sftp(&self, commands: &str) {
        let batch = self.path("batch");
        std::fs::write(&batch, commands).unwrap();
        succeeded("sftp", self.client("sftp").arg("-b").arg(batch).arg("pod").output().unwrap());
    }

    /// Puts a file into the home by `sftp`, and gets it back.
    fn moves_files(&self) {
        let (up, down) = (self.path("up"), self.path("down"));
        let sent: Vec<u8> = (0..FILE_BYTES).map(|n| u8::try_from(n % 251).unwrap()).collect();
        std::fs::write(&up, &sent).unwrap();
        self.sftp(&format!("put {} moved\nget moved {}\nrm moved\n", up.display(), down.display()));
        assert!(std::fs::read(down).unwrap() == sent, "the file is another one");
    }
}

/// A connection that only forwards to an address, as the pod reaches it, and ends with this.
struct Tunnel {
    client: Child,
    socket: PathBuf,
}

impl Tunnel {
    /// To a port of the pod.
    fn open(machine: &SoldPod, port: u16) -> Self {
        Self::through(machine, "tunnel", &format!("127.0.0.1:{port}"))
    }

    /// To this address, from a socket of this name.
    fn through(machine: &SoldPod, name: &str, address: &str) -> Self {
        let socket = machine.path(name);
        let from_to = format!("{}:{address}", socket.display());
        let client =
            machine.client("ssh").args(["-N", "-L", from_to.as_str(), "pod"]).spawn().unwrap();
        Self { client, socket }
    }

    /// What a web server at the port answers; empty while there is none.
    fn get(&self) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = UnixStream::connect(&self.socket)
            && stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
        {
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// What this has printed.
fn succeeded(what: &str, done: Output) -> String {
    let [stdout, stderr] =
        [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(done.status.success(), "{what}: {}: {stdout}{stderr}", done.status);
    stdout
}

/// What the service offers.
fn offer(testbed: &Testbed) -> Value {
    let answer = testbed.get("localhost", "/offers");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Buys a pod of this image, and uses it as this user.
fn sells(testbed: &Testbed, image: &Image, uid: &str) {
    let is_root = uid == "0";
    let machine = SoldPod::buy(testbed, 25, &json!({"pod_image": image.name}));
    let [home, shown] = if is_root { image.as_root } else { image.as_another };
    assert_eq!(offer(testbed)["root"], json!(is_root));
    assert_eq!(machine.answer["root"], json!(is_root), "{}", image.name);
    let surroundings = machine.run("id -u; pwd; echo $HOME");
    assert_eq!(surroundings, format!("{uid}\n{home}\n{home}\n"), "{}", image.name);
    assert_eq!(machine.run(image.script), shown, "{}", image.name);
    machine.moves_files();
    println!("{}: login and sftp as user {uid}, in {home}", image.name);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn customers_are_root_of_images_without_a_server_a_shell_or_a_place() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    images::load();
    let testbed = start("machines-root", TINY, &images::ALL.map(|image| image.name), &[]);
    for image in &images::ALL {
        sells(&testbed, image, "0");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_same_images_are_sold_with_a_copy_of_the_server() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    images::load();
    let names = images::ALL.map(|image| image.name);
    let testbed = start("machines-copy", TINY, &names, &[("SSH_SERVER_VOLUME", "copy")]);
    for image in &images::ALL {
        sells(&testbed, image, "0");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_same_images_are_sold_where_nobody_is_root() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    images::load();
    let names = images::ALL.map(|image| image.name);
    let testbed = start("machines-never", TINY, &names, &[("POD_ROOT", "never")]);
    for image in images::ALL.iter().take(sized(1, images::ALL.len())) {
        sells(&testbed, image, "1000");
    }
}
