//! What a local pod can do to the machine, started as root and as anybody else: nothing. And that
//! it ends.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use paygress_core::backend::cluster::{
    CONTAINER_PORT, ClusterEvent, EndReason, LOGIN_MOUNT_PATH, LeasePlan, PodExpiry, PodLauncher,
    PodObserver, PodRemover,
};
use paygress_core::backend::policy::{Placement, Rendered, Resources};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{ImageRef, LeaseId, OrderId, PodName, TierId};
use paygress_core::model::login::{Login, LoginFields};
use paygress_core::model::run::Run;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_sandbox::{Isolation, IsolationError, LocalCluster, Means, free_port};
use paygress_sshd::client::{Client, CommandOutput, HostKeyCheck, WindowSize};
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const TIMEOUT: Duration = Duration::from_secs(30);
const PASSWORD: &str = "a password that nobody prints";
/// What may be in a pod's root.
const ROOT: [&str; 13] = [
    "bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "tmp",
    "usr",
];
/// An unprivileged user.
const VISITOR: &str = "54321";
/// Set where a test is run once more as that user.
const AS_VISITOR: &str = "PODS_AS_VISITOR";

/// These means; none if this machine does not permit them, which fails in CI.
fn permitted(means: Means) -> Option<Isolation> {
    match Isolation::by(means) {
        Ok(isolation) => Some(isolation),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("NOT RUN: {error}");
            None
        }
    }
}

fn plan(host_port: u16) -> LeasePlan {
    let lease = LeaseId::of(&OrderId::random());
    let pod = lease.pod_name().to_string();
    let template = format!(
        r#"{{"spec": {{
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {{"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}},
            "containers": [{{
                "name": "ssh",
                "image": "paygress.local/ssh:1",
                "ports": [{{"containerPort": {CONTAINER_PORT}, "hostPort": {host_port}}}],
                "readinessProbe": {{"tcpSocket": {{"port": {CONTAINER_PORT}}}, "periodSeconds": 1}},
                "volumeMounts": [
                    {{"name": "login", "mountPath": "{LOGIN_MOUNT_PATH}", "readOnly": true}}
                ]
            }}],
            "volumes": [
                {{"name": "login", "secret": {{"secretName": "{pod}", "defaultMode": 288}}}}
            ]
        }}}}"#
    );
    let login = LoginFields { username: Some("alice"), password: Some(PASSWORD), public_key: None };
    LeasePlan {
        lease,
        tier: TierId::parse("basic").unwrap(),
        placement: Placement {
            pod_name: pod.clone(),
            image: ImageRef::parse("paygress.local/ssh:1").unwrap(),
            resources: Resources { cpu_millicores: 100, memory_mib: 64 },
            host_port: Some(host_port),
            access: AccessModes::default(),
            container_port: CONTAINER_PORT,
            secret_name: pod,
            secret_mount_path: LOGIN_MOUNT_PATH.to_owned(),
        },
        rendered: Rendered { pod_template_json: template, ..Rendered::default() },
        login: Login::check(login).unwrap(),
        sold: Seconds(600),
        pod_reply: None,
        run: Run::Ssh,
    }
}

/// A pod that runs, and a session in it.
struct Pod {
    cluster: LocalCluster,
    name: PodName,
    port: u16,
    session: Client,
}

impl Pod {
    async fn start(isolation: Isolation) -> Self {
        let cluster = LocalCluster::isolated(isolation);
        let port = free_port().unwrap();
        let plan = plan(port);
        cluster.launch(&plan).await.unwrap();
        let name = plan.lease.pod_name();
        let ready = cluster.ready(&name).await.unwrap();
        // The key that customers see is the pod's.
        let known = HostKeyCheck::one_of(ready.host_keys.iter().map(|key| key.as_str())).unwrap();
        let login = Client::login(("127.0.0.1", port), "alice", PASSWORD, known);
        let session = tokio::time::timeout(TIMEOUT, login).await.unwrap().unwrap();
        Self { cluster, name, port, session }
    }

    async fn run(&self, command: &str) -> CommandOutput {
        tokio::time::timeout(TIMEOUT, self.session.run(command)).await.unwrap().unwrap()
    }

    async fn prints(&self, command: &str) -> String {
        self.run(command).await.stdout.trim_end().to_owned()
    }

    /// Starts a program that goes on, and gives what the machine knows of it.
    async fn sleeper(&self) -> Process {
        // No other process has this argument.
        let argument = format!("9{}", self.port);
        self.run(&format!("sleep {argument} </dev/null >/dev/null 2>&1 &")).await;
        let sleeps = |process: &Process| process.arguments == ["sleep", argument.as_str()];
        until("the program has started", || Process::all().into_iter().find(sleeps)).await
    }

    async fn is_gone(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).await.is_err()
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < TIMEOUT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process as it is seen from outside.
struct Process {
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Process {
    fn all() -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let read = |directory: PathBuf| {
            let line = std::fs::read_to_string(directory.join("cmdline")).ok()?;
            let arguments = line.split_terminator('\0').map(str::to_owned).collect();
            Some(Self { directory, arguments })
        };
        entries.filter_map(|entry| read(entry.path())).collect()
    }

    /// A line of its status, without the line's name.
    fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(self.directory.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().to_owned()
    }

    /// Whether it is there and no zombie.
    fn is_alive(&self) -> bool {
        let status = std::fs::read_to_string(self.directory.join("status")).unwrap_or_default();
        !status.is_empty() && !status.contains("\nState:\tZ")
    }
}

/// A program of the machine that pods must not reach.
struct Victim(Child);

impl Victim {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Files that everybody may read, in a home and in /tmp; one that its owner alone may.
struct Files {
    directories: [tempfile::TempDir; 2],
}

const SECRET: &str = "what the visitor keeps to themselves";

impl Files {
    fn new() -> Self {
        let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        let directories = [home.as_path(), Path::new("/tmp")].map(|directory| {
            let directory = tempfile::tempdir_in(directory).unwrap();
            std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
            for (name, mode) in [("open", 0o644), ("private", 0o600)] {
                std::fs::write(directory.path().join(name), SECRET).unwrap();
                let mode = Permissions::from_mode(mode);
                std::fs::set_permissions(directory.path().join(name), mode).unwrap();
            }
            directory
        });
        Self { directories }
    }

    fn named(&self, name: &str) -> [PathBuf; 2] {
        self.directories.each_ref().map(|directory| directory.path().join(name))
    }
}

async fn is_kept_apart(isolation: Isolation) {
    let (pod, files, mut victim) = (Pod::start(isolation).await, Files::new(), Victim::start());
    assert_eq!(
        pod.prints("echo $USER; whoami; cat /proc/sys/kernel/hostname").await,
        format!("alice\nalice\n{}", pod.name)
    );
    // Its own home and /tmp are empty, and its own.
    assert_eq!(pod.prints("pwd; ls -A; ls -A /tmp").await, "/home/user");
    assert_eq!(pod.prints("echo a > b && cp b /tmp/c && cat /tmp/c").await, "a");
    for file in files.named("open").iter().chain(&files.named("private")) {
        let read = pod.run(&format!("cat {}", file.display())).await;
        assert!(read.exit_status != 0 && read.stdout.is_empty(), "{}", file.display());
    }
    let root = pod.prints("ls -A /").await;
    assert!(root.lines().all(|name| ROOT.contains(&name)), "{root}");
    for read_only in ["/", "/usr", "/dev", "/etc", "/run/paygress"] {
        assert_ne!(pod.run(&format!("touch {read_only}/written")).await.exit_status, 0);
    }
    // No process but those of the pod.
    let processes = pod.prints("cat /proc/[0-9]*/comm").await;
    let own = ["bwrap", "paygress-pod", "pod", "sh", "cat"];
    assert!(processes.lines().all(|name| own.contains(&name)), "{processes}");
    for signal in ["0", "KILL"] {
        let killed = pod.run(&format!("kill -{signal} {}", victim.0.id())).await;
        assert_ne!(killed.exit_status, 0);
    }
    assert!(victim.0.try_wait().unwrap().is_none(), "a process of the machine was killed");
    // A listener of the machine, which the machine itself reaches.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    assert!(Command::new("bash").args(["-c", &connect]).status().unwrap().success());
    assert_ne!(pod.run(&format!("bash -c '{connect}'")).await.exit_status, 0);
    let interfaces = pod.prints("tail -n +3 /proc/net/dev | cut -d: -f1").await;
    assert_eq!(interfaces.trim(), "lo");
    takes_nothing_from_others(&pod).await;
    is_unprivileged(&pod).await;
    ends_with_all_that_it_started(pod).await;
}

/// Tries to get the standard input of each other process, which is the listener of the pod's server, and
/// prints how many it got.
const TAKE: &str = r#"
import ctypes, os
call = ctypes.CDLL(None).syscall
pidfd_open, pidfd_getfd = 434, 438
others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
opened = [call(pidfd_open, process, 0) for process in others]
taken = [fd for fd in opened if fd >= 0 and call(pidfd_getfd, fd, 0, 0) >= 0]
print(min(len(others), 2), len(taken))
"#;
/// Prints the number of the session's keyring; -1 if there is none, or it is not permitted.
const KEYRING: &str = r#"
import ctypes, os
keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
print(ctypes.CDLL(None).syscall(keyctl, 0, -3, 0))
"#;

/// Neither the server's listener, in the machine's network, nor the keys of whoever started it.
async fn takes_nothing_from_others(pod: &Pod) {
    let run = async |program: &str| pod.prints(&format!("exec python3 -c '{program}'")).await;
    assert_eq!(run(TAKE).await, "2 0", "process 1 and the server keep what they have");
    let own = run(KEYRING).await;
    let outside = Command::new("python3").args(["-c", KEYRING]).output().unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    assert!(own == "-1" || own != outside.trim_end(), "it has the keyring {own}");
    assert!(!own.is_empty() && !outside.is_empty(), "python3 is missing");
}

/// As the machine sees it.
async fn is_unprivileged(pod: &Pod) {
    let sleeper = pod.sleeper().await;
    assert_ne!(sleeper.status("Uid"), "0");
    assert_ne!(sleeper.status("Gid"), "0");
    for sets in ["CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(sleeper.status(sets), "0000000000000000", "{sets}");
    }
    assert_eq!(sleeper.status("NoNewPrivs"), "1");
    for process in Process::all() {
        let line = process.arguments.join(" ");
        assert!(!line.contains(PASSWORD), "a password is on a command line");
    }
    let environment = pod.prints("cat /proc/[0-9]*/environ | tr '\\0' '\\n'").await;
    assert!(!environment.contains("CARGO"), "{environment}");
}

async fn ends_with_all_that_it_started(pod: Pod) {
    let sleeper = pod.sleeper().await;
    // It outlives its session, in one of its own.
    pod.run("setsid sleep 600 </dev/null >/dev/null 2>&1 &").await;
    pod.cluster.remove(&pod.name).await.unwrap();
    assert!(pod.is_gone().await, "its port is free");
    until("what it started is killed", || (!sleeper.is_alive()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_of_a_pod_show_its_end_and_an_extension() {
    for means in [Means::Bubblewrap, Means::Unshare] {
        let Some(isolation) = permitted(means) else { continue };
        let Pod { cluster, name, session, .. } = Pod::start(isolation).await;
        let (output, mut screen) = mpsc::channel(16);
        let size = WindowSize { columns: 80, rows: 24 };
        tokio::spawn(session.terminal(size, futures::stream::pending(), output));
        let (now, mut shown) = (UnixTime::now(), String::new());
        for (left, expected) in [(300, "This pod ends at "), (7_200, "extended until ")] {
            let end = now.after(Seconds(left));
            cluster.show_end(&name, end, &[Seconds(600)]).await.unwrap();
            while !shown.contains(expected) {
                let piece = tokio::time::timeout(TIMEOUT, screen.recv()).await.expect(expected);
                shown.push_str(&String::from_utf8_lossy(&piece.expect(expected)));
            }
        }
        cluster.remove(&name).await.unwrap();
    }
}

/// Both ways to make namespaces.
async fn all_are_kept_apart() {
    for means in [Means::Bubblewrap, Means::Unshare] {
        if let Some(isolation) = permitted(means) {
            is_kept_apart(isolation).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_kept_apart_from_the_machine() {
    all_are_kept_apart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_kept_apart_when_root_has_not_started_it() {
    if !rustix::process::geteuid().is_root() {
        // The other test has done it.
        return;
    }
    // Where that user may go: not below root's home.
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let own = std::env::current_exe().unwrap();
    // By another program: what this process has open to write, a child of another test has open too
    // until it is another program, and nobody can run it meanwhile ("Text file busy").
    let program = Path::new(env!("CARGO_BIN_EXE_paygress-pod"));
    let mut install = Command::new("install");
    install.args(["-m", "755", "--"]).args([own.as_path(), program, directory.path()]);
    assert!(install.status().unwrap().success());
    let test = directory.path().join(own.file_name().unwrap());
    let run = Command::new("setpriv")
        .args(["--reuid", VISITOR, "--regid", VISITOR, "--clear-groups"])
        .arg(test)
        .args(["--exact", "visitor", "--ignored", "--nocapture"])
        .env("HOME", directory.path())
        .env_remove("TMPDIR")
        .env(AS_VISITOR, "1")
        .current_dir(directory.path())
        .output()
        .unwrap();
    let (text, errors) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    print!("{text}");
    assert!(run.status.success() && text.contains("1 passed"), "{text}{errors}");
}

/// Not a test: what the one above starts as another user.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test of this file"]
async fn visitor() {
    if std::env::var_os(AS_VISITOR).is_some() {
        all_are_kept_apart().await;
        pods_without_isolation_are_whoever_started_them().await;
    }
}

async fn pods_without_isolation_are_whoever_started_them() {
    assert!(matches!(Isolation::by(Means::OwnUser), Err(IsolationError::NeedsRoot(_))));
    let pod = Pod::start(Isolation::by(Means::Nothing).unwrap()).await;
    assert_eq!(pod.prints("id -u").await, VISITOR);
    let sleeper = pod.sleeper().await;
    pod.cluster.remove(&pod.name).await.unwrap();
    assert!(pod.is_gone().await);
    until("its programs are ended", || (!sleeper.is_alive()).then_some(())).await;
}

#[test]
fn a_pod_never_runs_as_root() {
    if rustix::process::geteuid().is_root() {
        assert!(matches!(Isolation::by(Means::Nothing), Err(IsolationError::NotForRoot(_))));
    }
}

/// Without namespaces a pod sees the machine, with the rights of a user that owns nothing there.
#[tokio::test(flavor = "multi_thread")]
async fn without_namespaces_a_pod_is_an_unprivileged_user() {
    let Some(isolation) = permitted(Means::OwnUser) else { return };
    let (pod, files, mut victim) = (Pod::start(isolation).await, Files::new(), Victim::start());
    let user = pod.prints("id -u").await;
    assert_eq!(user, (2_000_000_000 + u32::from(pod.port)).to_string());
    assert_eq!(pod.prints("id -u; id -g; id -G").await, format!("{user}\n{user}\n{user}"));
    assert_eq!(pod.prints("echo a > b && cat b").await, "a");
    for file in files.named("private") {
        let read = pod.run(&format!("cat {}", file.display())).await;
        assert!(read.exit_status != 0 && read.stdout.is_empty(), "{}", file.display());
    }
    assert_ne!(pod.run(&format!("kill -KILL {}", victim.0.id())).await.exit_status, 0);
    assert!(victim.0.try_wait().unwrap().is_none());
    takes_nothing_from_others(&pod).await;
    is_unprivileged(&pod).await;
    ends_with_all_that_it_started(pod).await;
    let is_left = |process: &Process| {
        let status = std::fs::read_to_string(process.directory.join("status"));
        process.is_alive() && status.is_ok_and(|text| text.contains(&format!("Uid:\t{user}\t")))
    };
    assert!(!Process::all().iter().any(is_left), "sessions of their own end as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_kills_its_server_has_exited_and_one_without_a_cluster_is_killed() {
    for means in [Means::Bubblewrap, Means::Unshare] {
        let Some(isolation) = permitted(means) else { continue };
        let pod = Pod::start(isolation).await;
        let (sink, mut events) = mpsc::channel(4);
        let reported = async {
            let killed = pod.session.run("kill -KILL $PPID");
            let reported = tokio::time::timeout(TIMEOUT, events.recv());
            tokio::join!(killed, reported).1.unwrap()
        };
        tokio::select! {
            () = pod.cluster.observe(sink) => panic!("the observer has ended"),
            event = reported => {
                assert_eq!(event, Some(ClusterEvent::Ended(pod.name.clone(), EndReason::Exited)));
            }
        }
        assert!(pod.is_gone().await);

        let again = Pod::start(permitted(means).unwrap()).await;
        again.cluster.set_expiry(&again.name, UnixTime(UnixTime::now().0 + 600)).await.unwrap();
        let (sleeper, port) = (again.sleeper().await, again.port);
        drop(again.cluster);
        until("its processes are killed", || (!sleeper.is_alive()).then_some(())).await;
        until("its port is free", || TcpListener::bind(("127.0.0.1", port)).ok()).await;
    }
}
