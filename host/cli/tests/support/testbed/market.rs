//! Many buyers at once, at replicas of the service beside the cluster.

use super::{Daemon, Testbed, free_port, root, wait_for};
use crate::support::web::{Answer, Web};
use paygress::sandbox::Sandbox;
use paygress_sandbox::TestWallet;
use paygress_store::db::testing::Server;
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

/// Ten minutes after the mint's fee: longer than a test.
pub const TOKEN_SAT: u64 = 10;
const MNEMONIC: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// Tokens whose proofs a mint is sent in one request.
const TOKENS_AT_ONCE: usize = 100;

/// Replicas of the service, and a mint and a relay in this process that make many tokens fast.
pub struct Market {
    // In this order: the services before what they talk to.
    _replicas: Vec<Daemon>,
    addresses: Vec<SocketAddr>,
    wallet: TestWallet,
    runtime: Runtime,
    _sandbox: Sandbox,
    _database: Option<Server>,
    _kubeconfig: NamedTempFile,
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
}

impl Market {
    /// So many replicas, which sell pods with so many thousandths of a core and 64 MiB.
    pub fn start(name: &str, replicas: usize, cpu_millicores: u64) -> Self {
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
        let file = format!(
            "[policy.pricing]\ntiers = [{{ id = \"tiny\", cpu_millicores = {cpu_millicores}, memory_mib = 64 }}]\n"
        );
        let runtime = Runtime::new().unwrap();
        let (sandbox, wallet) = runtime.block_on(async {
            let sandbox = Sandbox::new(&settings, &file).await.unwrap();
            let wallet = TestWallet::new(sandbox.mint.url()).await.unwrap();
            (sandbox, wallet)
        });
        let config = sandbox.directory.path().join("paygress.toml");
        std::fs::write(&config, &file).unwrap();
        let (replicas, addresses) =
            (0..replicas).map(|number| replica(name, &sandbox, number)).unzip();
        Self {
            _replicas: replicas,
            addresses,
            wallet,
            runtime,
            _sandbox: sandbox,
            _database: database,
            _kubeconfig: kubeconfig,
        }
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
        let sat = u64::try_from(count).unwrap().saturating_mul(TOKEN_SAT).saturating_mul(2);
        let tokens = self.runtime.block_on(async {
            // The wallet pays a fee for every change.
            self.wallet.fill(sat).await.unwrap();
            let mut tokens = Vec::new();
            for _ in 0..count {
                tokens.push(self.wallet.token(TOKEN_SAT).await.unwrap());
            }
            tokens
        });
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

    /// What the mint would still give for these tokens.
    pub fn unspent(&self, tokens: &[String]) -> u64 {
        let unspent =
            |tokens: &[String]| self.runtime.block_on(self.wallet.unspent(tokens)).unwrap();
        tokens.chunks(TOKENS_AT_ONCE).map(unspent).sum()
    }
}

/// Starts a replica, and waits until it takes connections.
fn replica(name: &str, sandbox: &Sandbox, number: usize) -> (Daemon, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port("127.0.0.1")));
    let directory = sandbox.directory.path();
    let own = |name: &str| directory.join(format!("{name}-{number}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    command.arg("serve").arg("--config").arg(directory.join("paygress.toml"));
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(&sandbox.environment);
    command
        .env("BIND_ADDR", address.to_string())
        .env("POLICY_STATE_DIR", own("policies"))
        .env("ADMIN_SOCKET", own("admin"));
    let logs = root().join("target/e2e").join(name);
    std::fs::create_dir_all(&logs).unwrap();
    let service = Daemon::start(&mut command, &logs.join(format!("paygress-{number}.log")));
    wait_for("the service to take connections", Duration::from_secs(60), || {
        TcpStream::connect(address).is_ok()
    });
    (service, address)
}
