//! OpenSSH's client through the jump host, to the real server of a pod. It checks both host keys,
//! and has no configuration but its own.

use crate::pods::SshPod;
use crate::support::{LONG, Pods, Running, SECRET, alice, bob};
use paygress_core::model::ids::PodName;
use paygress_gateway::{GatewayHostKey, JumpHost, PublicKey, Rejection, Way};
use paygress_sshd::new_host_key;
use russh::keys::ssh_key::LineEnding;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

const BOTH_BY_KEY: [&str; 2] = ["publickey"; 2];

/// A customer's directory, with a key of theirs in `own` and another one in `other`.
pub(crate) struct Customer {
    here: TempDir,
    pub(crate) own: PublicKey,
    pub(crate) other: PublicKey,
}

fn new_key(file: &Path) -> PublicKey {
    let key = new_host_key().unwrap();
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(file).unwrap();
    file.write_all(key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    key.public_key().clone()
}

impl Customer {
    pub(crate) fn new() -> Self {
        let here = tempfile::tempdir().unwrap();
        let own = new_key(&here.path().join("own"));
        let other = new_key(&here.path().join("other"));
        Self { here, own, other }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// Configures the client: hosts with their keys, how it logs in at the gateway and at the pod,
    /// and by which of the two keys.
    pub(crate) fn configure(&self, known: &[(String, &str)], methods: [&str; 2], key: &str) {
        let known: String = known.iter().map(|(host, line)| format!("{host} {line}\n")).collect();
        std::fs::write(self.file("known_hosts"), known).unwrap();
        let ([at_gateway, at_pod], here) = (methods, self.here.path().display());
        let config = format!(
            "Host 127.0.0.1\n  PreferredAuthentications {at_gateway}\n\
             Host ssh-pod-*\n  PreferredAuthentications {at_pod}\n\
             Host *\n  UserKnownHostsFile {here}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  IdentityFile {here}/{key}\n  IdentitiesOnly yes\n  \
             IdentityAgent none\n  NumberOfPasswordPrompts 1\n  LogLevel ERROR\n"
        );
        std::fs::write(self.file("config"), config).unwrap();
    }

    /// The arguments of one of OpenSSH's programs that types the password once, and has so many
    /// seconds.
    pub(crate) fn arguments(&self, seconds: u32, program: &str) -> Vec<String> {
        let (seconds, config) = (seconds.to_string(), self.file("config").display().to_string());
        let all = ["timeout", &seconds, "sshpass", "-e", program, "-F", &config];
        all.map(ToOwned::to_owned).into()
    }

    pub(crate) fn client(&self, program: &str) -> Command {
        command(&self.arguments(300, program))
    }

    /// A program that prints the password, for clients that are to get it twice. Another process
    /// writes the file, or it might be busy.
    fn askpass(&self) -> PathBuf {
        let write = r#"printf '#!/bin/sh\necho "$ASKPASS"\n' > askpass; chmod 700 askpass"#;
        let status = Command::new("sh").args(["-c", write]).current_dir(&self.here).status();
        assert!(status.unwrap().success());
        self.file("askpass")
    }
}

pub(crate) fn command(all: &[String]) -> Command {
    let (program, arguments) = all.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).env("SSHPASS", SECRET).stdin(Stdio::null());
    command
}

pub(crate) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A gateway before Alice's pod, and Alice. Bob's lease has the other key.
struct Site {
    customer: Customer,
    pod: SshPod,
    gateway: Running,
    gateway_key: String,
    port: u16,
}

impl Site {
    async fn start() -> Self {
        let customer = Customer::new();
        let pod = SshPod::start(vec![customer.own.clone()]).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = GatewayHostKey::generate().unwrap();
        let gateway_key = key.public_line().unwrap();
        let jump_host = JumpHost::new(listener, key);
        let pods = Pods::of([(alice(), pod.address)]);
        let gateway = Running::start_before(pods, |gateway| gateway.with_jump_host(jump_host));
        gateway.leases.add(alice(), vec![customer.own.clone()], Some(SECRET));
        gateway.leases.add(bob(), vec![customer.other.clone()], None);
        Self { customer, pod, gateway, gateway_key, port }
    }

    /// Alice knows these host keys.
    fn configure(&self, [gateway, pod]: [&str; 2], methods: [&str; 2], key: &str) {
        let known = [(format!("[127.0.0.1]:{}", self.port), gateway), (alice().to_string(), pod)];
        self.customer.configure(&known, methods, key);
    }

    /// Alice knows the right ones, and has their own key.
    fn configure_well(&self, methods: [&str; 2]) {
        self.configure([&self.gateway_key, &self.pod.host_key], methods, "own");
    }

    /// By the jump host, where it logs in as this pod.
    fn client(&self, program: &str, jump_as: &PodName) -> Command {
        let mut command = self.customer.client(program);
        command.arg("-J").arg(format!("{jump_as}@127.0.0.1:{}", self.port));
        command
    }

    fn ssh(&self, jump_as: &PodName, remote: &str) -> Command {
        let mut ssh = self.client("ssh", jump_as);
        ssh.arg(format!("alice@{}", alice())).arg(remote);
        ssh
    }

    /// A session of Alice that has begun, and goes on as long as its input.
    async fn session(&self) -> Child {
        let mut ssh = self.ssh(&alice(), "echo in; exec cat");
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begin = move || {
            let mut client = ssh.spawn().unwrap();
            let mut begun = [0; 3];
            client.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
            assert_eq!(&begun, b"in\n");
            client
        };
        tokio::task::spawn_blocking(begin).await.unwrap()
    }

    /// A login that must fail, with this in its message.
    async fn is_refused(&self, jump_as: &PodName, message: &str) {
        let done = output(self.ssh(jump_as, "echo in > in; echo in")).await;
        let shown = text(&done.stderr);
        assert_eq!((text(&done.stdout).as_str(), done.status.code()), ("", Some(255)), "{shown}");
        assert!(shown.contains(message), "{shown}");
        assert!(!self.pod.home.path().join("in").exists(), "nothing ran in the pod");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_password_log_in_at_the_gateway_and_at_the_pod() {
    let site = Site::start().await;
    for methods in
        [BOTH_BY_KEY, ["password", "publickey"], ["publickey", "password"], ["password"; 2]]
    {
        site.configure_well(methods);
        let mut ssh = site.ssh(&alice(), "echo in as $USER; echo err >&2; exit 7");
        if methods == ["password"; 2] {
            // `sshpass` types it once, and keeps it from what it starts.
            ssh.env("ASKPASS", SECRET)
                .env("SSH_ASKPASS", site.customer.askpass())
                .env("SSH_ASKPASS_REQUIRE", "force");
        }
        let done = output(ssh).await;
        let (out, err) = (text(&done.stdout), text(&done.stderr));
        let shown = (out.as_str(), err.as_str(), done.status.code());
        assert_eq!(shown, ("in as alice\n", "err\n", Some(7)), "{methods:?}");
    }
    assert_eq!(site.gateway.counts.sessions(Way::JumpHost), 4);
    site.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_host_key_of_the_gateway_or_of_the_pod_is_refused() {
    let site = Site::start().await;
    let other = new_host_key().unwrap().public_key().to_openssh().unwrap();
    let failed = "Host key verification failed";
    site.configure([&other, &site.pod.host_key], BOTH_BY_KEY, "own");
    site.is_refused(&alice(), failed).await;
    assert_eq!(site.gateway.counts.sessions(Way::JumpHost), 0, "no key was shown to that gateway");
    site.configure([&site.gateway_key, &other], BOTH_BY_KEY, "own");
    site.is_refused(&alice(), failed).await;
    assert_eq!(site.gateway.counts.sessions(Way::JumpHost), 1);
    // The gateway's own key is not the pod's.
    site.configure([site.gateway_key.as_str(); 2], BOTH_BY_KEY, "own");
    site.is_refused(&alice(), failed).await;
    site.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_lease_s_key_is_refused() {
    let site = Site::start().await;
    site.configure([&site.gateway_key, &site.pod.host_key], BOTH_BY_KEY, "other");
    site.is_refused(&alice(), "Permission denied").await;
    assert_eq!(site.gateway.counts.sessions(Way::JumpHost), 0);
    // It logs in as its own lease, and gets no other pod.
    site.is_refused(&bob(), "").await;
    assert_eq!(site.gateway.counts.sessions(Way::JumpHost), 1);
    assert_eq!(site.gateway.counts.rejections(Rejection::NotPermitted), 1);
    site.gateway.stop().await;
}

/// A session must end by itself, and its client show this.
async fn is_cut(mut client: Child, message: &str) {
    let end = move || {
        let input = client.stdin.take();
        let done = client.wait_with_output().unwrap();
        drop(input);
        text(&done.stderr)
    };
    let shown = tokio::task::spawn_blocking(end).await.unwrap();
    assert!(shown.contains(message), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_why_its_session_was_cut() {
    let site = Site::start().await;
    site.configure_well(BOTH_BY_KEY);
    let session = site.session().await;
    site.gateway.leases.end(&alice());
    is_cut(session, "the lease of the pod has ended: order a new pod").await;

    site.gateway.leases.add(alice(), vec![site.customer.own.clone()], Some(SECRET));
    let session = site.session().await;
    site.gateway.stop().await;
    is_cut(session, "the gateway is being stopped: connect again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_a_file_up_and_down() {
    let site = Site::start().await;
    site.configure_well(BOTH_BY_KEY);
    let lines: String = (0..400_000).map(|number| format!("{number}\n")).collect();
    std::fs::write(site.customer.file("up"), &lines).unwrap();
    let local = |name: &str| site.customer.file(name).display().to_string();
    let there = format!("alice@{}:there", alice());
    for (from, to) in [(local("up"), there.clone()), (there, local("down"))] {
        let mut scp = site.client("scp", &alice());
        scp.args([&from, &to]);
        let done = output(scp).await;
        assert!(done.status.success(), "{from}: {}", text(&done.stderr));
    }
    assert!(std::fs::read_to_string(site.pod.home.path().join("there")).unwrap() == lines);
    assert!(std::fs::read_to_string(site.customer.file("down")).unwrap() == lines);
    site.gateway.stop().await;
}

/// A client that runs on. `timeout` and `sshpass` pass SIGTERM on to it.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Sends back what it gets, to one connection; its port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        std::io::copy(&mut &stream, &mut &stream).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    port
}

fn echoes(stream: &UnixStream) {
    let sent: Vec<u8> = (0_u8..=255).cycle().take(1 << 20).collect();
    let mut received = Vec::new();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let (mut reader, mut writer) = (stream, stream);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        reader.read_to_end(&mut received).unwrap();
    });
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_port_is_forwarded_to_the_pod_s() {
    let site = Site::start().await;
    site.configure_well(BOTH_BY_KEY);
    let socket = site.customer.file("socket");
    let mut ssh = site.client("ssh", &alice());
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-N", "-L"]);
    ssh.arg(format!("{}:127.0.0.1:{}", socket.display(), echo()));
    let mut client = Stopped(ssh.arg(format!("alice@{}", alice())).spawn().unwrap());
    let started = Instant::now();
    while !socket.exists() {
        assert!(client.0.try_wait().unwrap().is_none(), "the client has ended");
        assert!(started.elapsed() < LONG, "nothing listens");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let stream = UnixStream::connect(&socket).unwrap();
    tokio::task::spawn_blocking(move || echoes(&stream)).await.unwrap();
    drop(client);
    site.gateway.stop().await;
}
