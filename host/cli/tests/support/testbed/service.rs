//! The service beside the cluster.

use super::{
    Daemon, GatewayDaemon, OPERATOR, Outside, Place, admin_kubeconfig, kubectl, new_key, npub,
    output, remove_pods, root, state, wait_for,
};
use crate::support::secrets;
use paygress_sandbox::free_port;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::NamedTempFile;

/// What is sold: a sat buys five seconds.
const SETTINGS: &str = "[policy.duration]\nminimum_seconds = 5\n[policy.pricing]\nsats_per_hour = 720\ntiers = [{ id = \"tiny\", cpu_millicores = 100, memory_mib = 64 }]\n";

/// Its configuration file, in the directory of what is outside.
const CONFIG: &str = "paygress.toml";

/// What is outside, and the service beside the cluster.
pub struct Testbed {
    web: String,
    npub: String,
    log: PathBuf,
    command: Command,
    // In this order: the service before what it talks to.
    service: Option<Daemon>,
    outside: Outside,
    _kubeconfig: NamedTempFile,
}

impl Testbed {
    pub fn kubectl() -> PathBuf {
        state().join("bin/kubectl")
    }

    /// A kubeconfig with the rights of the service's own account, and nothing more.
    pub fn kubeconfig_of_the_service() -> NamedTempFile {
        Self::kubeconfig_of("paygress")
    }

    /// The same of a gateway in a process of its own, whose overlay makes the account.
    pub fn kubeconfig_of_the_gateway() -> NamedTempFile {
        let account = root().join("k8s/overlays/gateway-process/rbac.yaml");
        kubectl(&["apply", "-f", &account.to_string_lossy()]);
        Self::kubeconfig_of("paygress-gateway")
    }

    fn kubeconfig_of(account: &str) -> NamedTempFile {
        let token = kubectl(&["-n", "ingress-system", "create", "token", account, "--duration=6h"]);
        secrets::add(token.trim());
        let admin = std::fs::read_to_string(admin_kubeconfig()).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(admin.replace("testbed-admin", token.trim()).as_bytes()).unwrap();
        file
    }

    /// `paygress doctor`, with the configuration of a service that does not run.
    pub fn doctor(outside: &Outside, kubeconfig: &Path) -> Command {
        let bind = format!("127.0.0.1:{}", free_port().unwrap());
        Self::command("doctor", outside, SETTINGS, &bind, kubeconfig)
    }

    /// `paygress serve`, or another command, beside the cluster, with this configuration file.
    fn command(
        verb: &str,
        outside: &Outside,
        settings: &str,
        bind: &str,
        kubeconfig: &Path,
    ) -> Command {
        let directory = outside.directory.path();
        let config = directory.join(CONFIG);
        std::fs::write(&config, settings).unwrap();
        let data = |name: &str| directory.join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
        command
            .arg(verb)
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
                ("SSH_PORT_RANGE_START", "20100"),
                ("SSH_PORT_RANGE_END", "20199"),
                ("POD_TTL_SECONDS", "5"),
                ("RUN_MODE", "both"),
                ("BIND_ADDR", bind),
                ("OPERATOR_TOKEN", OPERATOR),
                ("POLICY_NAMESPACE", "ingress-system"),
                // Tests of it turn it on.
                ("POD_PROBE", "false"),
            ]);
        command.env("KUBECONFIG", kubeconfig).env("POLICY_DIR", root().join("target/plugins"));
        command
            .env("CASHU_DB_PATH", data("wallet.sqlite"))
            .env("LEDGER_PATH", data("ledger.sqlite"))
            // What is compiled once serves the services of all tests.
            .env(
                "POLICY_CACHE_DIR",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster-compiled"),
            )
            .env("POLICY_STATE_DIR", data("policies"))
            .env("ADMIN_SOCKET", data("admin.sock"));
        command
    }

    /// Starts everything; the environment adds to the settings of [`Self::command`].
    pub fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_with(name, SETTINGS, environment)
    }

    /// The same with another configuration file.
    pub fn start_with(name: &str, settings: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1", name, settings, environment)
    }

    /// The same with the mint and the relay at this address of this machine.
    pub fn start_at(host: &str, name: &str, settings: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_in(Place::here(host), name, settings, environment)
    }

    /// The same with the mint, the relay and the customer in this place.
    pub fn start_in(
        place: Place,
        name: &str,
        settings: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        remove_pods();
        let outside = Outside::start_in(name, place);
        let bind = format!("127.0.0.1:{}", free_port().unwrap());
        let kubeconfig = Self::kubeconfig_of_the_service();
        let mut command = Self::command("serve", &outside, settings, &bind, kubeconfig.path());
        command.envs(environment.iter().copied());
        let log = outside.logs.join("paygress.log");
        let mut testbed = Self {
            web: format!("http://{bind}"),
            npub: String::new(),
            log,
            command,
            service: None,
            outside,
            _kubeconfig: kubeconfig,
        };
        testbed.start_service();
        testbed.npub = npub(&testbed.log());
        testbed
    }

    /// Starts it, with a log of its own, and waits until it serves.
    fn start_service(&mut self) {
        self.service = Some(Daemon::start_service(&mut self.command, &self.log));
        wait_for("the service to read its inbox", Duration::from_secs(60), || {
            std::fs::read_to_string(&self.log).unwrap_or_default().contains("inbox synced")
        });
    }

    /// Kills it, and starts another one with the same environment.
    pub fn restart_service(&mut self) {
        self.service = None;
        self.start_service();
    }

    /// Stops it as an operator does, by SIGTERM, and waits for its end.
    pub fn stop_service(&mut self) {
        let mut service = self.service.take().expect("it runs");
        kill_process(Pid::from_child(&service.0), Signal::TERM).unwrap();
        wait_for("the service to end", Duration::from_secs(30), || {
            service.0.try_wait().unwrap().is_some()
        });
    }

    /// `paygress gateway` with the environment of the service, and the rights of its own account.
    pub fn start_gateway(&self) -> GatewayDaemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
        command.arg("gateway").arg("--config").arg(self.outside.directory.path().join(CONFIG));
        command.env_clear();
        let variables = self.command.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        let kubeconfig = Self::kubeconfig_of_the_gateway();
        command.env("KUBECONFIG", kubeconfig.path());
        GatewayDaemon::start(&mut command, kubeconfig, self.outside.logs.join("gateway.log"))
    }

    /// Of its HTTP API.
    pub fn address(&self) -> SocketAddr {
        self.web.strip_prefix("http://").unwrap().parse().unwrap()
    }

    pub fn relay(&self) -> &str {
        &self.outside.relay
    }

    pub fn npub(&self) -> &str {
        &self.npub
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

    /// What `/readyz` answers.
    pub fn readyz(&self) -> Value {
        let answer = self.get("localhost", "/readyz");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The answer of the HTTP server to a request for this host, with its head.
    pub fn get(&self, host: &str, path: &str) -> String {
        self.get_with(host, path, "")
    }

    /// The same to a request with these lines of its head.
    pub fn get_with(&self, host: &str, path: &str, lines: &str) -> String {
        let address = self.web.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What the operator's page shows, with the head of the answer.
    pub fn overview(&self) -> String {
        let operator = format!("Authorization: Bearer {OPERATOR}\r\n");
        let answer = self.get_with("localhost", "/operator/overview", &operator);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}
