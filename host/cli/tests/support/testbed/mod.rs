//! The real parts: started for a test, ended with it.

mod audit_log;
mod deployed;
mod deployed_gateway;
mod fake_nodes;
mod gateway;
mod market;
mod minikube;
mod network_policies;
mod outside;
mod overlay;
mod parameters;
mod proxy;
mod release;
mod service;
mod ssh;
mod standard;

pub use audit_log::AuditLog;
pub use deployed::Deployed;
pub use deployed_gateway::DeployedGateway;
pub use fake_nodes::{FakeNodes, ManyPods, items, ready_nodes, remove_pods};
pub use gateway::GatewayDaemon;
pub use market::{Bought, Market, MarketSetup, TOKEN_SAT, service_program};
pub use minikube::MinikubeSteps;
pub use network_policies::{EgressOverlay, NetworkPolicies, node_address};
pub use outside::{Outside, Place};
pub use overlay::kustomized;
pub use parameters::AdmissionParameters;
pub use proxy::Proxy;
pub use release::Release;
pub use service::Testbed;
pub use ssh::Ssh;
pub use standard::Standard;

use crate::support::secrets::{self, SearchedLog};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The cluster is one for all tests of this program: they take turns.
pub static CLUSTER: FileLock = FileLock(Mutex::new(()));

pub struct FileLock(Mutex<()>);

impl FileLock {
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `short` in the short form of these tests, which `cargo xtask test` runs without `--whole`.
pub fn sized<T>(short: T, whole: T) -> T {
    match std::env::var("CLUSTER_TESTS").as_deref() {
        Err(_) => whole,
        Ok("short") => short,
        Ok(other) => panic!("CLUSTER_TESTS is short or not set, and not {other}"),
    }
}

/// Whether the short form leaves out what takes long, and what it is to show is shown here too.
pub fn is_left_out(shown_by: &str) -> bool {
    let is_left_out = sized(true, false);
    if is_left_out {
        println!("NOT RUN in the short form: see {shown_by}");
    }
    is_left_out
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn state() -> PathBuf {
    std::env::var_os("TESTBED").map_or_else(|| PathBuf::from("/var/tmp/testbed"), PathBuf::from)
}

/// Fails the test. One that fails already prints this: a second panic would end the program, and
/// with it what the first one says.
#[track_caller]
fn fail(why: &str) {
    if std::thread::panicking() {
        println!("{why}");
    } else {
        panic!("{why}");
    }
}

/// Waits until it is so; fails, and says what for, when it does not become so in time.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() >= limit {
            return fail(&format!("waited {} s for {what}", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A program in this network namespace; none: in that of the test.
pub fn in_namespace(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    // It becomes the program, so that its pid is that of the program.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/var/run/netns/{namespace}")).arg(program);
    command
}

/// What a program prints; it must succeed.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !output.status.success() {
        // Not the arguments: they may hold a token.
        let (program, error) = (command.get_program(), String::from_utf8_lossy(&output.stderr));
        fail(&format!("{program:?} failed: {error}"));
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn admin_kubeconfig() -> PathBuf {
    state().join("admin.kubeconfig")
}

/// Of the Prometheus Operator: its ServiceMonitor and its PrometheusRule.
pub fn operator_definitions() -> PathBuf {
    state().join("bin/operator-definitions.yaml")
}

fn kubectl_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(Testbed::kubectl());
    command.env("KUBECONFIG", admin_kubeconfig()).args(arguments);
    command
}

/// As the cluster's administrator.
#[track_caller]
pub fn kubectl(arguments: &[&str]) -> String {
    output(&mut kubectl_command(arguments))
}

/// Waits until a pod is ready; fails with what the cluster knows of it and of its node.
#[track_caller]
pub fn wait_until_ready(namespace: &str, pod: &str) {
    let run = |arguments: &[&str]| kubectl_command(arguments).output().unwrap();
    let ready = ["--for=condition=Ready", "--timeout=180s"];
    let waited = run(&[&["-n", namespace, "wait", "pod", pod], &ready[..]].concat());
    if waited.status.success() {
        return;
    }
    let (of_pod, of_nodes) =
        (run(&["-n", namespace, "describe", "pod", pod]), run(&["describe", "nodes"]));
    let known = [waited.stderr, of_pod.stdout, of_nodes.stdout].concat();
    fail(&format!("{namespace}/{pod}: {}", String::from_utf8_lossy(&known)));
}

/// Helm of the testbed, as the cluster's administrator; `template` and `lint` need no cluster.
pub fn helm(arguments: &[&str]) -> Command {
    let mut command = Command::new(state().join("bin/helm"));
    command.env("KUBECONFIG", admin_kubeconfig()).args(arguments);
    command
}

/// Loads an image's archive into the cluster.
pub fn load(archive: &Path) {
    output(Command::new(root().join("k8s/testbed/cluster")).arg("load").arg(archive));
}

/// containerd's client, where the kubelet has its images and containers.
fn ctr() -> Command {
    let mut ctr = Command::new(state().join("bin/ctr"));
    ctr.arg("--address").arg(state().join("run/containerd.sock")).args(["--namespace", "k8s.io"]);
    ctr
}

/// Kills a container, as a fault of its program would.
pub fn kill_container(id: &str) {
    output(ctr().args(["tasks", "kill", "--signal", "SIGKILL", id]));
}

/// Another name of an image that is on the node, until this is dropped.
pub struct ImageTag(String);

impl ImageTag {
    pub fn add(image: &str, name: &str) -> Self {
        output(ctr().args(["images", "tag", image, name]));
        Self(name.to_owned())
    }
}

impl Drop for ImageTag {
    fn drop(&mut self) {
        output(ctr().args(["images", "delete", self.0.as_str()]));
    }
}

fn try_to_apply(object: &str, flags: &[&str]) -> Output {
    let mut command = kubectl_command(&[&["apply", "-f", "-"], flags].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(object.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Whether the cluster takes this object.
pub fn applied(object: &str) -> bool {
    try_to_apply(object, &[]).status.success()
}

/// What the API server would do with these objects, of which it must know every field.
pub fn dry_run(objects: &str) -> Output {
    try_to_apply(objects, &["--dry-run=server", "--validate=strict"])
}

#[track_caller]
pub fn apply(object: &str) {
    let applied = try_to_apply(object, &[]);
    if !applied.status.success() {
        let error = String::from_utf8_lossy(&applied.stderr);
        fail(&format!("{object} was not taken: {error}"));
    }
}

/// A program that runs beside the test, and ends with it.
struct Daemon(Child, Option<SearchedLog>);

impl Daemon {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        Self(child, None)
    }

    /// The same of a service: once it has ended, its log is searched for secrets.
    fn start_service(command: &mut Command, log: &Path) -> Self {
        let mut daemon = Self::start(command, log);
        let environment = secrets::environment(command);
        daemon.1 = Some(SearchedLog::new(File::open(log).unwrap(), &environment));
        daemon
    }
}

impl Daemon {
    /// Kibibytes, by this name in `/proc/PID/status`.
    fn memory(&self, name: &str) -> u64 {
        let status = Path::new("/proc").join(self.0.id().to_string()).join("status");
        let text = std::fs::read_to_string(status).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    /// With what it has started, such as a relay's workers.
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// What the operator of the testbed shows.
const OPERATOR: &str = "the operator of the testbed";

fn new_key() -> String {
    let mut bytes = [0_u8; 32];
    std::io::Read::read_exact(&mut File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    secrets::add(&key);
    key
}

/// The service's public key, as its log tells it.
fn npub(log: &str) -> String {
    let npub = log
        .split_whitespace()
        .find_map(|word| word.split("npub1").nth(1))
        .expect("the npub is logged");
    format!("npub1{}", npub.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .chars()
        .take(63)
        .collect()
}
