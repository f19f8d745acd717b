//! The service as a process that can be stopped, killed, and put on another clock.

use crate::pods::SharedPods;
use crate::support::customer::until;
use crate::support::secrets::SearchedLog;
use crate::support::web::Web;
use paygress::app::App;
use paygress::config::Config;
use paygress::log::{self, LogFormat};
use paygress::sandbox::Sandbox;
use paygress_core::model::units::set_clock_wrong;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Before it serves, a process prints this with its HTTP address.
const SERVING: &str = "serving at ";
const CLOCK_IS_SET: &str = "the clock is set";
const TIMEOUT: Duration = Duration::from_secs(60);

/// What services that are the same installation have: settings, relay, mint, pods.
pub(crate) struct Installation {
    pub(crate) sandbox: Sandbox,
    pub(crate) pods: SharedPods,
    file: String,
}

impl Installation {
    /// `environment` and `file` add to the settings of a sandbox.
    pub(crate) async fn new(environment: &[(&str, &str)], file: &str) -> Self {
        // What is compiled once serves all of them.
        let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disaster-compiled");
        let compiled = compiled.to_string_lossy().into_owned();
        let mut settings = vec![("POLICY_CACHE_DIR", compiled.as_str())];
        settings.extend(environment);
        let sandbox = Sandbox::new(&settings, file).await.unwrap();
        let pods = SharedPods::at(&sandbox.directory.path().join("cluster"));
        Self { sandbox, pods, file: file.to_owned() }
    }

    /// What a replica has of its own; everything else is shared.
    fn own(&self) -> BTreeMap<String, String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = self.sandbox.directory.path();
        let at =
            |name: &str| directory.join(format!("{name}-{number}")).to_string_lossy().into_owned();
        let mut environment = self.sandbox.environment.clone();
        environment.insert("POLICY_STATE_DIR".to_owned(), at("policies"));
        environment.insert("ADMIN_SOCKET".to_owned(), at("admin"));
        environment
    }

    pub(crate) async fn start(&self) -> Service {
        self.start_at(0).await
    }

    /// Starts it on a clock that is wrong by so many seconds.
    pub(crate) async fn start_at(&self, clock: i64) -> Service {
        let own = self.own();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "service::process", "--ignored", "--nocapture"])
            .env("DISASTER_SERVICE", json!(own).to_string())
            .env("DISASTER_FILE", &self.file)
            .env("DISASTER_PODS", self.pods.directory())
            .env("DISASTER_CLOCK", clock.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        // To look into a failure: DISASTER_LOG=debug.
        let is_shown = std::env::var_os("DISASTER_LOG").is_some();
        let log = (!is_shown).then(|| NamedTempFile::new().unwrap());
        if let Some(log) = &log {
            command.stderr(log.reopen().unwrap());
        }
        let log = log.map(|log| SearchedLog::new(log.into_file(), &own));
        let mut child = command.spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = wait_for(&mut lines, SERVING).await;
        let address: SocketAddr = line.trim().parse().unwrap();
        Service { child, commands, lines, web: Web::new(address), _log: log }
    }
}

/// Reads what a process prints until it is this; gives what follows in the line.
async fn wait_for(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) -> String {
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, rest)) = line.split_once(text) {
                return rest.to_owned();
            }
        }
        panic!("the service ended before it printed {text:?}; DISASTER_LOG=info shows why")
    };
    tokio::time::timeout(TIMEOUT, found).await.unwrap()
}

pub(crate) struct Service {
    child: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) web: Web,
    // Searched after the child is killed.
    _log: Option<SearchedLog>,
}

impl Service {
    /// As an operator or Kubernetes does, by SIGTERM.
    pub(crate) async fn stop(mut self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "the service ended with {status}");
    }

    pub(crate) async fn kill_9(mut self) {
        self.child.kill().await.unwrap();
    }

    /// From now on its clock is wrong by so many seconds.
    pub(crate) async fn set_clock(&mut self, by_seconds: i64) {
        self.commands.write_all(format!("{by_seconds}\n").as_bytes()).await.unwrap();
        wait_for(&mut self.lines, CLOCK_IS_SET).await;
    }

    /// Waits until `/readyz`, whose result is cached, answers with this status; gives its text.
    pub(crate) async fn wait_for_readyz(&self, status: u16) -> String {
        until(&format!("/readyz never answers {status}"), async || {
            let answer = self.web.ask("GET", "/readyz", &[], "").await;
            (answer.status == status).then_some(answer.body)
        })
        .await
    }
}

/// Not a test: what the tests start as a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests of this program"]
async fn process() {
    let Ok(environment) = std::env::var("DISASTER_SERVICE") else { return };
    let filter = std::env::var("DISASTER_LOG").unwrap_or_else(|_| "info".to_owned());
    let layer = log::layer(&filter, LogFormat::Text, std::io::stderr).unwrap();
    tracing_subscriber::registry().with(layer).init();
    let environment: BTreeMap<String, String> = serde_json::from_str(&environment).unwrap();
    let variable = |name: &str| std::env::var(name).unwrap();
    set_clock_wrong(variable("DISASTER_CLOCK").parse().unwrap());
    let pods = SharedPods::at(Path::new(&variable("DISASTER_PODS")));
    let config = Config::read(Some(&variable("DISASTER_FILE")), environment).unwrap();
    let app = App::build(&config, Arc::new(pods), |backends| backends).await.unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let (sender, mut clock) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            sender.send(line.unwrap().parse::<i64>().unwrap()).unwrap();
        }
    });
    println!("{SERVING}{}", app.http_address().unwrap());
    let (stop, stopped) = watch::channel(false);
    let mut running = tokio::spawn(app.run_until(stopped));
    loop {
        tokio::select! {
            ended = &mut running => match ended {
                Ok(Ok(())) if *stop.borrow() => std::process::exit(0),
                ended => panic!("the service ended: {ended:?}"),
            },
            _ = terminate.recv() => {
                stop.send_replace(true);
            }
            by_seconds = clock.recv() => match by_seconds {
                Some(by_seconds) => {
                    set_clock_wrong(by_seconds);
                    println!("{CLOCK_IS_SET}");
                }
                // The test has ended.
                None => std::process::exit(1),
            },
        }
    }
}
