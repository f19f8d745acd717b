//! The real parts: started for a test, ended with it.

use paygress_core::backend::policy::Slot;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempDir};

/// The cluster is one for all tests of this program: they take turns.
pub static CLUSTER: FileLock = FileLock(Mutex::new(()));

pub struct FileLock(Mutex<()>);

impl FileLock {
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn state() -> PathBuf {
    std::env::var_os("TESTBED").map_or_else(|| PathBuf::from("/var/tmp/testbed"), PathBuf::from)
}

/// Waits until it is so; fails, and says what for, when it does not become so in time.
pub fn wait_for(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // Not the arguments: they may hold a token.
    assert!(
        output.status.success(),
        "{:?} failed: {}",
        command.get_program(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn kubectl_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(Testbed::kubectl());
    command.env("KUBECONFIG", state().join("admin.kubeconfig")).args(arguments);
    command
}

/// As the cluster's administrator.
pub fn kubectl(arguments: &[&str]) -> String {
    output(&mut kubectl_command(arguments))
}

/// Whether the cluster takes this object.
pub fn applied(object: &str) -> bool {
    let mut command = kubectl_command(&["apply", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(object.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

pub fn apply(object: &str) {
    assert!(applied(object), "{object} was not taken");
}

fn free_port(host: &str) -> u16 {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

/// A program that runs beside the test, and ends with it.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        Self(command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program())))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the operator of the testbed shows.
const OPERATOR: &str = "the operator of the testbed";

/// A mint, a relay, and a customer.
pub struct Outside {
    pub mint: String,
    pub relay: String,
    customer: String,
    logs: PathBuf,
    _mint: Daemon,
    _relay: Daemon,
    directory: TempDir,
}

/// What is outside, and the service beside the cluster.
pub struct Testbed {
    web: String,
    npub: String,
    log: PathBuf,
    // In this order: the service before what it talks to.
    _service: Daemon,
    outside: Outside,
    _kubeconfig: NamedTempFile,
}

fn new_key() -> String {
    let mut bytes = [0_u8; 32];
    std::io::Read::read_exact(&mut File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

impl Outside {
    /// Starts a mint and a relay at this address of this machine.
    pub fn start(name: &str, host: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let logs = root().join("target/e2e").join(name);
        std::fs::create_dir_all(&logs).unwrap();
        let (mint_port, relay_port) = (free_port(host), free_port(host));
        let bin = root().join("target/venv/bin");
        let mut command = Command::new(bin.join("mint"));
        command
            .args(["--host", host, "--port", &mint_port.to_string()])
            .current_dir(directory.path())
            .envs([
                ("MINT_BACKEND_BOLT11_SAT", "FakeWallet"),
                ("MINT_PRIVATE_KEY", "a key of a test mint"),
                ("MINT_INPUT_FEE_PPK", "100"),
                ("MINT_RATE_LIMIT", "FALSE"),
                ("TOR", "FALSE"),
                ("FAKEWALLET_BRR", "TRUE"),
                ("FAKEWALLET_DELAY_INCOMING_PAYMENT", "0"),
            ]);
        command
            .env("MINT_DATABASE", directory.path().join("mint"))
            .env("CASHU_DIR", directory.path().join("cashu"));
        let mint = Daemon::start(&mut command, &logs.join("mint.log"));
        let relay_config = directory.path().join("relay.yaml");
        let text = format!(
            "storage:\n  sqlalchemy.url: sqlite+aiosqlite:///{}\n  validators:\n    - nostr_relay.validators.is_not_too_large\n    - nostr_relay.validators.is_signed\nverification:\n  nip05_verification: disabled\ngunicorn:\n  bind: {host}:{relay_port}\n  workers: 1\nauthentication:\n  enabled: false\nmax_limit: 6000\nmax_event_size: 131072\n",
            directory.path().join("relay.sqlite").display()
        );
        std::fs::write(&relay_config, text).unwrap();
        let mut command = Command::new(bin.join("nostr-relay"));
        command.arg("-c").arg(&relay_config).arg("serve").current_dir(directory.path());
        let relay = Daemon::start(&mut command, &logs.join("relay.log"));
        for port in [mint_port, relay_port] {
            wait_for("the mint and the relay", Duration::from_secs(60), || {
                TcpStream::connect((host, port)).is_ok()
            });
        }
        let (mint_url, relay_url) =
            (format!("http://{host}:{mint_port}"), format!("ws://{host}:{relay_port}"));
        Self {
            mint: mint_url,
            relay: relay_url,
            customer: new_key(),
            logs,
            _mint: mint,
            _relay: relay,
            directory,
        }
    }

    fn customer(&self, key: &str, arguments: &[&str]) -> String {
        let script = root().join("examples/customer-js/customer.mjs");
        let mut command = Command::new("timeout");
        command.args(["180", "node"]).arg(script).args(arguments).env("CUSTOMER_KEY", key);
        output(&mut command).trim().to_owned()
    }

    /// A token over so much, minted and paid for at the mint.
    pub fn token(&self, sat: u64) -> String {
        self.customer(&self.customer, &["token", &self.mint, &sat.to_string()])
    }

    /// What the mint says of a token.
    pub fn state(&self, token: &str) -> String {
        self.customer(&self.customer, &["state", &self.mint, token])
    }

    /// Asks the service with this public key.
    pub fn ask(&self, npub: &str, request: &Value) -> Value {
        self.ask_as(&self.customer, npub, request)
    }

    fn ask_as(&self, key: &str, npub: &str, request: &Value) -> Value {
        let answer = self.customer(key, &["ask", &self.relay, npub, &request.to_string()]);
        serde_json::from_str(&answer).unwrap()
    }
}

/// The service in a pod of the cluster, as `k8s/overlays/cluster` says, and gone with this.
pub struct Deployed {
    pub npub: String,
}

impl Deployed {
    /// An image of the program and its policies, without a container engine: as the Dockerfile
    /// would have it.
    fn image() -> PathBuf {
        let (rootfs, archive) =
            (root().join("target/service-image"), root().join("target/service-image.tar"));
        let _ = std::fs::remove_dir_all(&rootfs);
        let copy = |from: &Path, to: &str| {
            let to = rootfs.join(to.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        };
        let program = Path::new(env!("CARGO_BIN_EXE_paygress"));
        let libraries = output(Command::new("ldd").arg(program));
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), library);
        }
        for slot in Slot::ALL {
            copy(
                &root().join(format!("target/plugins/{slot}.wasm")),
                &format!("usr/share/paygress/plugins/{slot}.wasm"),
            );
        }
        let to = rootfs.join("usr/local/bin/paygress");
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        output(Command::new("strip").arg("-o").arg(to).arg(program));
        let mut pack = Command::new(root().join("k8s/testbed/oci-image"));
        pack.arg(&archive).arg("paygress.local/paygress:1").arg(&rootfs);
        output(pack.args([
            "--entrypoint",
            r#"["/usr/local/bin/paygress"]"#,
            "--user",
            "1000:1000",
        ]));
        archive
    }

    pub fn start(outside: &Outside) -> Self {
        kubectl(&["-n", "user-workloads", "delete", "jobs", "--all", "--wait"]);
        output(Command::new(root().join("k8s/testbed/cluster")).arg("load").arg(Self::image()));
        // What a storage class would do: a volume that is the service's own.
        let data = outside.directory.path().join("volume");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(1_000), Some(1_000)).unwrap();
        let volume = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": data}});
        apply(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "paygress"}, "spec": volume}).to_string());
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
        let mut manifests =
            kubectl(&["kustomize", &root().join("k8s/overlays/cluster").to_string_lossy()]);
        // What is the operator's own there, and closed networks for once.
        for (theirs, ours) in [
            ("wss://relay.example.com,wss://relay.example.org", outside.relay.as_str()),
            ("https://mint.example.com", &outside.mint),
            ("node.example.com", "127.0.0.1"),
            ("  RUN_MODE: both\n", "  RUN_MODE: both\n  ALLOW_PRIVATE_RELAYS: \"true\"\n"),
        ] {
            assert!(manifests.contains(theirs), "{theirs}");
            manifests = manifests.replace(theirs, ours);
        }
        let mut deployed = Self { npub: String::new() };
        apply(&manifests);
        deployed.wait();
        deployed.npub = npub(&deployed.log());
        deployed
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
        kubectl(&["-n", "ingress-system", "logs", "deployment/paygress"])
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

impl Drop for Deployed {
    fn drop(&mut self) {
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
    }
}

impl Testbed {
    pub fn kubectl() -> PathBuf {
        state().join("bin/kubectl")
    }

    /// A kubeconfig with the rights of the service's own account, and nothing more.
    pub fn kubeconfig_of_the_service() -> NamedTempFile {
        let token =
            kubectl(&["-n", "ingress-system", "create", "token", "paygress", "--duration=1h"]);
        let admin = std::fs::read_to_string(state().join("admin.kubeconfig")).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(admin.replace("testbed-admin", token.trim()).as_bytes()).unwrap();
        file
    }

    /// Starts everything. A sat buys five seconds.
    pub fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        // long: the arguments of one server.
        kubectl(&["-n", "user-workloads", "delete", "jobs", "--all", "--wait"]);
        let outside = Outside::start(name, "127.0.0.1");
        let directory = outside.directory.path();
        let bind = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let kubeconfig = Self::kubeconfig_of_the_service();
        let config = directory.join("paygress.toml");
        let settings = "[policy.duration]\nminimum_seconds = 5\n[policy.pricing]\nsats_per_hour = 720\ntiers = [{ id = \"tiny\", cpu_millicores = 100, memory_mib = 64 }]\n";
        std::fs::write(&config, settings).unwrap();
        let data = |name: &str| directory.join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs([
                ("NOSTR_PRIVATE_KEY", new_key().as_str()),
                ("NOSTR_RELAYS", &outside.relay),
                ("ALLOW_PRIVATE_RELAYS", "true"),
                ("WHITELISTED_MINTS", &outside.mint),
                ("SSH_HOST", "127.0.0.1"),
                ("SSH_PORT_RANGE_START", "31100"),
                ("SSH_PORT_RANGE_END", "31199"),
                ("POD_TTL_SECONDS", "5"),
                ("RUN_MODE", "both"),
                ("BIND_ADDR", &bind),
                ("OPERATOR_TOKEN", OPERATOR),
                ("POLICY_NAMESPACE", "ingress-system"),
            ]);
        command
            .env("KUBECONFIG", kubeconfig.path())
            .env("POLICY_DIR", root().join("target/plugins"));
        command
            .env("CASHU_DB_PATH", data("wallet.sqlite"))
            .env("LEDGER_PATH", data("ledger.sqlite"))
            .env("POLICY_CACHE_DIR", data("compiled"))
            .env("POLICY_STATE_DIR", data("policies"))
            .env("ADMIN_SOCKET", data("admin.sock"));
        command.envs(environment.iter().copied());
        let log = outside.logs.join("paygress.log");
        let service = Daemon::start(&mut command, &log);
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        wait_for("the service to read its inbox", Duration::from_secs(60), || {
            read().contains("inbox synced")
        });
        let npub = npub(&read());
        Self {
            web: format!("http://{bind}"),
            npub,
            log,
            _service: service,
            outside,
            _kubeconfig: kubeconfig,
        }
    }

    /// A token over so much, minted and paid for at the mint.
    pub fn token(&self, sat: u64) -> String {
        self.outside.token(sat)
    }

    /// What the mint says of a token.
    pub fn state(&self, token: &str) -> String {
        self.outside.state(token)
    }

    pub fn ask(&self, request: &Value) -> Value {
        self.outside.ask(&self.npub, request)
    }

    pub fn ask_as_another(&self, request: &Value) -> Value {
        self.outside.ask_as(&new_key(), &self.npub, request)
    }

    /// What a customer and the operator see in a browser: see `host/http/web/test/customer.mjs`.
    /// Screenshots are kept.
    pub fn browse(&self, tokens: &[String]) -> Value {
        let shots = root().join("target/e2e/browser");
        std::fs::create_dir_all(&shots).unwrap();
        let mut command = Command::new("timeout");
        command.args(["300", "node"]).arg(root().join("host/http/web/test/customer.mjs"));
        command
            .env("URL", &self.web)
            .env("TOKENS", tokens.join(","))
            .env("OPERATOR", OPERATOR)
            .env("SHOTS", shots);
        command.env("WALLET", root().join("examples/customer-js/customer.mjs"));
        serde_json::from_str(output(&mut command).trim()).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

/// OpenSSH's client with a password.
#[derive(Clone, Copy)]
pub struct Ssh<'a> {
    pub port: u16,
    pub username: &'a str,
    pub password: &'a str,
}

impl Ssh<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sshpass");
        command.env("SSHPASS", self.password).args(["-e", "ssh", "-p", &self.port.to_string()]);
        command.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=10",
        ]);
        command.args([
            "-o",
            "PreferredAuthentications=password",
            "-o",
            "NumberOfPasswordPrompts=1",
        ]);
        command.arg(format!("{}@127.0.0.1", self.username)).arg(line).stdin(Stdio::null());
        command
    }

    /// Runs a command; gives its output and exit status.
    pub fn run(&self, line: &str) -> (String, Option<i32>) {
        let output = self.command(line).output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    }

    /// Leaves a command running.
    pub fn open(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}
