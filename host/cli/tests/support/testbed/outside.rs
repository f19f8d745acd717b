//! What is outside of the service: a Nutshell mint, a relay in Python, and a customer.

use super::{Daemon, in_namespace, new_key, output, root, wait_for};
use crate::support::secrets;
use paygress_sandbox::free_port;
use serde_json::Value;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// The settings of a Nutshell mint whose invoices are paid at once; `cargo xtask faults` has the
/// same.
fn nutshell() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../nutshell.env").lines().filter_map(|line| line.split_once('='))
}

/// Where a mint and a relay are, and a customer. The test reaches the address, whatever the network
/// namespace that has it.
pub struct Place {
    /// The address of mint and relay.
    pub host: String,
    /// Their network namespace; none: that of the test.
    pub servers: Option<String>,
    /// The customer's.
    pub customer: Option<String>,
}

impl Place {
    /// At this address of this machine.
    pub fn here(host: &str) -> Self {
        Self { host: host.to_owned(), servers: None, customer: None }
    }

    /// Two ports that are free there. In a namespace of the test's own all are.
    fn ports(&self) -> [u16; 2] {
        match self.servers {
            Some(_) => [3_338, 8_008],
            None => [(); 2].map(|()| free_port().unwrap()),
        }
    }
}

/// A mint, a relay, and a customer.
pub struct Outside {
    pub mint: String,
    pub relay: String,
    customer: String,
    customer_namespace: Option<String>,
    pub(super) logs: PathBuf,
    _mint: Daemon,
    _relay: Daemon,
    pub(super) directory: TempDir,
}

impl Outside {
    /// Starts a mint and a relay at this address of this machine.
    pub fn start(name: &str, host: &str) -> Self {
        Self::start_in(name, Place::here(host))
    }

    /// Starts a mint and a relay in this place.
    pub fn start_in(name: &str, place: Place) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let logs = root().join("target/e2e").join(name);
        std::fs::create_dir_all(&logs).unwrap();
        let [mint_port, relay_port] = place.ports();
        let (host, servers) = (place.host.as_str(), place.servers.as_deref());
        let bin = root().join("target/venv/bin");
        let mut command = in_namespace(servers, bin.join("mint"));
        command
            .args(["--host", host, "--port", &mint_port.to_string()])
            .current_dir(directory.path())
            .envs(nutshell());
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
        let mut command = in_namespace(servers, bin.join("nostr-relay"));
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
            customer_namespace: place.customer,
            logs,
            _mint: mint,
            _relay: relay,
            directory,
        }
    }

    fn customer(&self, key: &str, arguments: &[&str]) -> String {
        let script = root().join("examples/customer-js/customer.mjs");
        let mut command = in_namespace(self.customer_namespace.as_deref(), "timeout");
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

    pub(super) fn ask_as(&self, key: &str, npub: &str, request: &Value) -> Value {
        let answer = self.customer(key, &["ask", &self.relay, npub, &request.to_string()]);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        [request, &answer].into_iter().for_each(secrets::add_fields);
        answer
    }
}
