//! Many buyers at once, at replicas of the service beside the cluster.

use super::{Daemon, Testbed, root, wait_for};
use crate::support::web::{Answer, Web};
use paygress::sandbox::Sandbox;
use paygress_sandbox::{TestWallet, free_port};
use paygress_store::db::testing::Server;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Ten minutes after the mint's fee: longer than a test.
pub const TOKEN_SAT: u64 = 10;
const MNEMONIC: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// Tokens whose proofs a mint is sent in one request.
const TOKENS_AT_ONCE: usize = 100;
/// The program of the service; none: that of this build.
const PROGRAM: &str = "SCALE_PROGRAM";
/// The first of the buyers' addresses.
const FIRST_BUYER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);
/// How long a buyer waits where the answer does not say it, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is for sale, and by whom.
pub struct MarketSetup<'a> {
    pub name: &'a str,
    pub replicas: usize,
    pub cpu_millicores: u64,
    /// Other settings of the pricing policy, a line of TOML.
    pub pricing: &'a str,
    /// Other settings of the service.
    pub settings: &'a [(&'a str, &'a str)],
}

/// Replicas of the service, and a mint and a relay in this process that make many tokens fast.
pub struct Market {
    // In this order: the services before what they talk to.
    replicas: Vec<Replica>,
    addresses: Vec<SocketAddr>,
    wallet: TestWallet,
    runtime: Runtime,
    /// The number of the next buyer.
    next_buyer: AtomicU32,
    sandbox: Sandbox,
    _database: Option<Server>,
    kubeconfig: NamedTempFile,
}

/// What a buyer was answered, and when.
pub struct Bought {
    pub token: String,
    pub answer: Answer,
    pub took: Duration,
}

impl Bought {
    pub fn is_sold(&self) -> bool {
        (200..300).contains(&self.answer.status)
    }

    /// Whether the pod takes logins: it may be sold, and still be made.
    pub fn is_ready(&self) -> bool {
        self.answer.status == 200
    }
}

impl Market {
    /// So many replicas, which sell pods with so many thousandths of a core and 64 MiB.
    pub fn start(name: &str, replicas: usize, cpu_millicores: u64) -> Self {
        let setup = MarketSetup { name, replicas, cpu_millicores, pricing: "", settings: &[] };
        Self::start_with(&setup)
    }

    pub fn start_with(setup: &MarketSetup<'_>) -> Self {
        let MarketSetup { name, replicas, cpu_millicores, pricing, .. } = *setup;
        let kubeconfig = Testbed::kubeconfig_of_the_service();
        let database = (replicas > 1).then(|| Server::start().unwrap());
        let (path, policies) = (kubeconfig.path().to_owned(), root().join("target/plugins"));
        let url = database.as_ref().map(Server::url);
        let mut settings = vec![
            ("KUBECONFIG", path.to_str().unwrap()),
            ("POLICY_DIR", policies.to_str().unwrap()),
            // Within those of `k8s/base`, and more than there are buyers.
            ("SSH_PORT_RANGE_START", "20100"),
            ("SSH_PORT_RANGE_END", "20999"),
            // A probe pod would take a place that is counted.
            ("POD_PROBE", "false"),
            // Each buyer has an address of their own.
            ("TRUSTED_PROXIES", "127.0.0.1"),
            ("REQUESTS_PER_MINUTE", "100000"),
        ];
        if let Some(url) = &url {
            settings.extend([("DATABASE_URL", url.expose()), ("WALLET_MNEMONIC", MNEMONIC)]);
        }
        settings.extend(setup.settings);
        let file = format!(
            "[policy.pricing]\n{pricing}\ntiers = [{{ id = \"tiny\", cpu_millicores = {cpu_millicores}, memory_mib = 64 }}]\n"
        );
        let runtime = Runtime::new().unwrap();
        let (sandbox, wallet) = runtime.block_on(async {
            let sandbox = Sandbox::new(&settings, &file).await.unwrap();
            let wallet = TestWallet::new(sandbox.mint.url()).await.unwrap();
            (sandbox, wallet)
        });
        let config = sandbox.directory.path().join("paygress.toml");
        std::fs::write(&config, &file).unwrap();
        let replicas: Vec<Replica> =
            (0..replicas).map(|number| Replica::start(name, &sandbox, number)).collect();
        Self {
            addresses: replicas.iter().map(|replica| replica.address).collect(),
            replicas,
            wallet,
            runtime,
            next_buyer: AtomicU32::new(0),
            sandbox,
            _database: database,
            kubeconfig,
        }
    }

    /// The service's own.
    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfig.path()
    }

    pub fn mint(&self) -> &str {
        self.sandbox.mint.url()
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Of the ledger's file; of none where replicas share a database.
    pub fn ledger_bytes(&self) -> u64 {
        let ledger = self.sandbox.directory.path().join("ledger.sqlite");
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        bytes(&ledger).saturating_add(bytes(&ledger.with_extension("sqlite-wal")))
    }

    /// Kibibytes of each replica, by this name in `/proc/PID/status`.
    pub fn memory(&self, name: &str) -> Vec<u64> {
        self.replicas.iter().map(|replica| replica.service().memory(name)).collect()
    }

    /// Kills one replica after the other, and starts it again: how long each takes until it serves.
    pub fn restart(&mut self) -> Vec<Duration> {
        self.replicas.iter_mut().map(Replica::restart).collect()
    }

    /// Waits until every replica offers so many pods.
    pub fn wait_for_room(&self, room: u64) {
        for address in &self.addresses {
            let (what, mut seen) = (format!("{address} to offer {room} pods"), Value::Null);
            wait_for(&what, Duration::from_secs(60), || {
                let offers = self.offers(*address);
                let available = offers["pod_specs"][0]["available"].clone();
                if available != seen {
                    println!("{address} offers {available}");
                    seen = available;
                }
                seen == room
            });
        }
    }

    /// What each replica offers.
    pub fn all_offers(&self) -> Vec<Value> {
        self.addresses.iter().map(|address| self.offers(*address)).collect()
    }

    fn offers(&self, address: SocketAddr) -> Value {
        self.runtime
            .block_on(async { Web::new(address).ask("GET", "/offers", &[], "").await.good() })
    }

    pub fn tokens(&self, count: usize) -> Vec<String> {
        let begun = Instant::now();
        let tokens = self.runtime.block_on(self.sandbox.mint.tokens(count, TOKEN_SAT)).unwrap();
        println!("{count} tokens were minted in {:.1} s", begun.elapsed().as_secs_f64());
        tokens
    }

    /// Each token's buyer sends it at the same time, to one replica or the next.
    pub fn buy(&self, tokens: Vec<String>) -> Vec<Bought> {
        let webs: Vec<Web> = self.addresses.iter().map(|address| Web::new(*address)).collect();
        let buyers = tokens.into_iter().zip(webs.iter().cycle()).enumerate();
        let buying = buyers.map(|(number, (token, web))| async move {
            let address = format!("198.51.{}.{}", number / 200, (number % 200).saturating_add(1));
            let headers = [("x-forwarded-for", address.as_str()), ("x-cashu", token.as_str())];
            let begun = Instant::now();
            let answer = web.ask("POST", "/spawn-pod", &headers, "{}").await;
            let took = begun.elapsed();
            Bought { token, answer, took }
        });
        self.runtime.block_on(futures::future::join_all(buying))
    }

    /// The buyers of these tokens come one after the other in this time each, to one replica or the
    /// next. Whoever is refused for now tries again as the answer says, until it is this late.
    pub fn buy_until(&self, tokens: Vec<String>, pace: Duration, limit: Duration) -> Vec<Bought> {
        let webs: Vec<Web> = self.addresses.iter().map(|address| Web::new(*address)).collect();
        self.runtime.block_on(async {
            let mut buying = JoinSet::new();
            let mut next = tokio::time::Instant::now();
            for (token, web) in tokens.into_iter().zip(webs.iter().cycle()) {
                tokio::time::sleep_until(next).await;
                next = next.checked_add(pace).unwrap();
                let number = self.next_buyer.fetch_add(1, Ordering::Relaxed);
                buying.spawn(patient_buyer(web.clone(), number, token, limit));
            }
            buying.join_all().await
        })
    }

    /// What the mint would still give for these tokens.
    pub fn unspent(&self, tokens: &[String]) -> u64 {
        let unspent =
            |tokens: &[String]| self.runtime.block_on(self.wallet.unspent(tokens)).unwrap();
        tokens.chunks(TOKENS_AT_ONCE).map(unspent).sum()
    }
}

/// What a buyer is answered at last.
async fn patient_buyer(web: Web, number: u32, token: String, limit: Duration) -> Bought {
    let address = Ipv4Addr::from_bits(FIRST_BUYER.to_bits().saturating_add(number)).to_string();
    let begun = Instant::now();
    let mut attempt = 0_u32;
    loop {
        // The same key is the same order.
        let key = format!("buyer-{number:08}-attempt-{attempt:04}");
        let headers = [
            ("x-forwarded-for", address.as_str()),
            ("x-cashu", token.as_str()),
            ("idempotency-key", key.as_str()),
        ];
        let answer = web.ask("POST", "/spawn-pod", &headers, "{}").await;
        let took = begun.elapsed();
        match answer.status {
            202 if took < limit => {}
            429 | 503 if took < limit => attempt = attempt.saturating_add(1),
            _ => return Bought { token, answer, took },
        }
        tokio::time::sleep(retry_after(&answer)).await;
    }
}

fn retry_after(answer: &Answer) -> Duration {
    let (usual, longest) = AGAIN;
    let header = answer.headers.get("retry-after").and_then(|value| value.to_str().ok());
    let seconds = header.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    seconds.unwrap_or(usual).min(longest)
}

/// The program that is started as the service.
pub fn service_program() -> PathBuf {
    let of_this_build = || PathBuf::from(env!("CARGO_BIN_EXE_paygress"));
    std::env::var_os(PROGRAM).map_or_else(of_this_build, PathBuf::from)
}

struct Replica {
    command: Command,
    log: PathBuf,
    address: SocketAddr,
    /// None while it is started again.
    service: Option<Daemon>,
}

impl Replica {
    /// Starts it, and waits until it serves.
    fn start(name: &str, sandbox: &Sandbox, number: usize) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let directory = sandbox.directory.path();
        let own = |name: &str| directory.join(format!("{name}-{number}"));
        let mut command = Command::new(service_program());
        command.arg("serve").arg("--config").arg(directory.join("paygress.toml"));
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(&sandbox.environment);
        command
            .env("BIND_ADDR", address.to_string())
            .env("POLICY_STATE_DIR", own("policies"))
            .env("ADMIN_SOCKET", own("admin"));
        let logs = root().join("target/e2e").join(name);
        std::fs::create_dir_all(&logs).unwrap();
        let log = logs.join(format!("paygress-{number}.log"));
        let mut replica = Self { command, log, address, service: None };
        replica.restart();
        replica
    }

    fn service(&self) -> &Daemon {
        self.service.as_ref().expect("it runs")
    }

    fn restart(&mut self) -> Duration {
        self.service = None;
        let begun = Instant::now();
        self.service = Some(Daemon::start_service(&mut self.command, &self.log));
        while !is_serving(self.address) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} serves", self.address);
            thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    }
}

/// Whether it answers that it lives.
fn is_serving(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let sent = stream.write_all(request.as_bytes());
    sent.and_then(|()| stream.read_to_string(&mut answer)).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
