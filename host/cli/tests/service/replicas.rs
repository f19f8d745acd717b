//! Several replicas on one Postgres: an order is worked by one of them, and by another when that
//! one dies.

use crate::support::crashing::{Stop, crashing};
use crate::support::customer::{Buyer, Running};
use crate::support::secrets::SearchedLog;
use crate::support::web::Web;
use paygress::app::{App, OpenMode, open_stores};
use paygress::commands::ledger::audited;
use paygress::config::Config;
use paygress::log::{self, LogFormat};
use paygress::sandbox::Sandbox;
use paygress_core::backend::store::Reporting;
use paygress_core::model::order::State;
use paygress_sandbox::LocalCluster;
use paygress_store::db::testing::Server;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::NamedTempFile;
use tokio::sync::Notify;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What a replica has of its own; everything else is shared.
fn own(sandbox: &Sandbox) -> BTreeMap<String, String> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let at = |name: &str| {
        sandbox.directory.path().join(format!("{name}-{number}")).to_string_lossy().into_owned()
    };
    let mut environment = sandbox.environment.clone();
    environment.extend([
        ("POLICY_STATE_DIR".to_owned(), at("policies")),
        ("ADMIN_SOCKET".to_owned(), at("admin")),
    ]);
    environment
}

/// A replica in a process of its own, which can be killed.
struct Replica {
    child: Child,
    lines: BufReader<ChildStdout>,
    // Searched after the child is killed.
    _log: SearchedLog,
}

impl Replica {
    fn start(sandbox: &Sandbox, stop: &str) -> Self {
        let (own, log) = (own(sandbox), NamedTempFile::new().unwrap());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "replicas::replica", "--ignored", "--nocapture"])
            .env("REPLICA_STOP", stop);
        command
            .env("REPLICA", json!(own).to_string())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap());
        let log = SearchedLog::new(log.into_file(), &own);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, _log: log }
    }

    /// Reads what it prints until it says this.
    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if line.contains(word) {
                return;
            }
            line.clear();
        }
        panic!("the replica ended before it printed {word}");
    }

    fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what the tests below start as a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests of this file"]
async fn replica() {
    let Ok(environment) = std::env::var("REPLICA") else { return };
    let layer = log::layer("info", LogFormat::Text, std::io::stderr).unwrap();
    tracing_subscriber::registry().with(layer).init();
    let environment: BTreeMap<String, String> = serde_json::from_str(&environment).unwrap();
    let config = Config::read(None, environment).unwrap();
    let homes = tempfile::tempdir().unwrap();
    let cluster = Arc::new(LocalCluster::in_process(homes.path().to_owned()));
    let reached = Arc::new(Notify::new());
    let stop = match std::env::var("REPLICA_STOP").unwrap().as_str() {
        "before the swap" => Some(Stop::BeforeTheSwap),
        "after the swap" => Some(Stop::AfterTheSwap),
        _ => None,
    };
    let app = match stop {
        Some(stop) => {
            App::build(&config, cluster, |backends| crashing(stop)(backends, Arc::clone(&reached)))
                .await
        }
        None => App::build(&config, cluster, |backends| backends).await,
    };
    println!("open");
    let running = tokio::spawn(app.unwrap().run());
    reached.notified().await;
    println!("reached");
    panic!("the replica ended: {:?}", running.await);
}

async fn sandbox(server: &Server) -> Sandbox {
    let mnemonic = "legal winner thank year wave sausage worth useful legal winner thank yellow";
    Sandbox::new(&[("DATABASE_URL", server.url().expose()), ("WALLET_MNEMONIC", mnemonic)], "")
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_replica_is_killed_is_finished_by_another_one() {
    for stop in ["before the swap", "after the swap"] {
        let server = Server::start().unwrap();
        let sandbox = sandbox(&server).await;
        let mut dying = Replica::start(&sandbox, stop);
        dying.wait_for("open");
        let buyer = Buyer::new(&sandbox).await;
        let asking =
            buyer.ask(json!({"cashu_token": buyer.token(5).await, "ssh_username": "alice"}));
        let takeover = async {
            let mut dying = tokio::task::spawn_blocking(move || {
                dying.wait_for("reached");
                dying
            })
            .await
            .unwrap();
            // The other one is there, and leaves alone what is being worked.
            let mut other = Replica::start(&sandbox, "");
            other.wait_for("open");
            let (ledger, wallet) = open_stores(&sandbox.config, OpenMode::ReadOnly).await.unwrap();
            assert_eq!(ledger.page(None, 10).await.unwrap()[0].state(), State::Redeeming);
            assert!(dying.child.try_wait().unwrap().is_none());
            dying.kill_9();
            (other, ledger, wallet)
        };
        let (answer, (_other, ledger, wallet)) = tokio::join!(asking, takeover);
        assert_eq!(answer["ssh_username"], "alice", "{stop}: {answer}");
        let report = audited(&ledger, &wallet).await.unwrap();
        assert!(report.problems.is_empty() && report.orders == 1, "{stop}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_token_at_two_replicas_gets_the_same_answer() {
    let server = Server::start().unwrap();
    let sandbox = sandbox(&server).await;
    let cluster = sandbox.cluster();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let app =
            App::build(&Config::read(None, own(&sandbox)).unwrap(), cluster.clone(), |backends| {
                backends
            })
            .await
            .unwrap();
        let web = Web::new(app.http_address().unwrap());
        servers.push((web, Running::start(app)));
    }
    let buyer = Buyer::new(&sandbox).await;
    let order = json!({"cashu_token": buyer.token(6).await, "ssh_username": "alice"}).to_string();
    let bearer = "b".repeat(40);
    let authorization = format!("Bearer {bearer}");
    let mine = [("authorization", authorization.as_str())];
    let [one, two] = [&servers[0].0, &servers[1].0];
    let (first, second) = tokio::join!(
        one.ask("POST", "/spawn-pod", &mine, &order),
        two.ask("POST", "/spawn-pod", &mine, &order)
    );
    assert_eq!(first.good(), second.good(), "one works it, the other one waits for its answer");
    assert_eq!(two.get("/pods", &bearer).await.good()["pods"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_serve_every_customer_once() {
    let server = Server::start().unwrap();
    let sandbox = sandbox(&server).await;
    let mut replicas = [Replica::start(&sandbox, ""), Replica::start(&sandbox, "")];
    for replica in &mut replicas {
        replica.wait_for("open");
    }
    let (one, two) = tokio::join!(Buyer::new(&sandbox), Buyer::new(&sandbox));
    let token = one.token(6).await;
    // The same token from two customers, and an order of each: with two replicas that read every
    // message.
    let (first, second, third, fourth) = tokio::join!(
        one.ask(json!({"cashu_token": token})),
        two.ask(json!({"cashu_token": token})),
        one.ask(json!({"cashu_token": one.token(7).await, "ssh_username": "one"})),
        two.ask(json!({"cashu_token": two.token(8).await, "ssh_username": "two"}))
    );
    let sold = [&first, &second].iter().filter(|answer| answer["pod_name"].is_string()).count();
    assert_eq!(sold, 1, "{first}\n{second}");
    let refused = if first["pod_name"].is_string() { &second } else { &first };
    assert!(
        ["token_pending", "token_already_spent"].contains(&refused["error_type"].as_str().unwrap()),
        "{refused}"
    );
    assert_eq!(
        (third["ssh_username"].as_str(), fourth["ssh_username"].as_str()),
        (Some("one"), Some("two"))
    );
    let (ledger, wallet) = open_stores(&sandbox.config, OpenMode::ReadOnly).await.unwrap();
    let report = audited(&ledger, &wallet).await.unwrap();
    assert!(report.problems.is_empty(), "{report}");
    assert_eq!(report.total.sold.0, 5 + 6 + 7, "{report}");
}
