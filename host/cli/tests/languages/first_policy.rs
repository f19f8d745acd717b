//! docs/writing-policies.md, as a new author follows it: from nothing to a policy that is signed, has
//! been a shadow, and decides. Prints how long each command takes.

use super::PAYGRESS;
use crate::support::command::text;
use crate::support::customer::{Buyer, Running, TIMEOUT, until};
use crate::support::keys::{key, write_signed_policies};
use paygress::sandbox::Sandbox;
use paygress_oci::Digest;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// How long all commands but the builds may take. In ten minutes that leaves time for a first build,
/// and for reading the page. Seconds are enough where nothing else runs.
const BOUND: Duration = Duration::from_secs(120);
/// What of the page is not run here: the sandbox is in place of the demo.
const NOT_RUN: [&str; 2] = ["cargo xtask demo", r#"export PATH="$PWD/target/debug:$PATH""#];
const BUILD: &str = "sh build.sh";
/// A token of 15 sat, and the mint's fee. It buys 15 minutes at the default price, and 10 at the
/// author's.
const TOKEN_SAT: u64 = 16;
const ORDER: &str = r#"paygress order spawn --token "$TOKEN""#;

/// An author at their shell.
struct Author {
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    /// The commands so far, and how long each took.
    steps: Vec<(String, Duration)>,
}

impl Author {
    /// With nothing but the program: no key, and nothing compiled.
    fn new(directory: &Path) -> Self {
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let programs = Path::new(PAYGRESS).parent().unwrap().display();
        let environment = [
            ("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap())),
            ("XDG_CACHE_HOME", path("cache")),
            ("XDG_CONFIG_HOME", path("config")),
        ];
        Self {
            directory: directory.to_owned(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            steps: Vec::new(),
        }
    }

    fn export(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    fn enter(&mut self, directory: &str) {
        self.directory.push(directory);
        self.steps.push((format!("cd {directory}"), Duration::ZERO));
    }

    /// Whether the command succeeds, and what it prints.
    async fn try_run(&self, command: &str) -> (bool, String) {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&self.directory).envs(&self.environment);
        // Builds of other tests are there.
        shell.env_remove("CARGO_TARGET_DIR");
        let run = tokio::task::spawn_blocking(move || shell.output().unwrap());
        let output = run.await.unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    /// A command of the page. Gives what it prints.
    async fn run(&mut self, command: &str) -> String {
        self.run_until(command, "").await
    }

    /// One that is repeated until it prints this.
    async fn run_until(&mut self, command: &str, expected: &str) -> String {
        let begun = Instant::now();
        let printed = loop {
            let (success, printed) = self.try_run(command).await;
            assert!(success, "{command}: {printed}");
            if printed.contains(expected) {
                break printed;
            }
            assert!(begun.elapsed() < TIMEOUT, "{command}: {printed}");
        };
        self.steps.push((command.to_owned(), begun.elapsed()));
        printed
    }

    /// A command of the page that fails.
    async fn run_failing(&mut self, command: &str) -> String {
        let begun = Instant::now();
        let (success, printed) = self.try_run(command).await;
        assert!(!success, "{command}: {printed}");
        self.steps.push((command.to_owned(), begun.elapsed()));
        printed
    }

    /// Makes the project, then changes its price, and its suite by that.
    async fn write_policy(&mut self) {
        self.run("paygress policy new --lang rust pricing my-prices").await;
        self.enter("my-prices");
        self.run(BUILD).await;
        self.run("paygress policy check pricing policy.wasm").await;
        let order = self.run("paygress policy eval pricing policy.wasm order.json").await;
        assert!(order.contains("\"msat\": 60000"), "{order}");
        self.run("paygress policy test suite.yaml").await;
        self.run("sed -i 's/sats_per_hour: 60/sats_per_hour: 90/' src/lib.rs").await;
        self.run(BUILD).await;
        let cases = self.run_failing("paygress policy test suite.yaml").await;
        assert!(cases.contains("5 cases, 2 failed"), "{cases}");
        self.run("sed -i 's/msat: 60000/msat: 90000/' suite.yaml").await;
        self.run("paygress policy test suite.yaml").await;
    }

    async fn make_key(&mut self) {
        let algorithm = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        self.run(&format!("openssl genpkey {algorithm} -out ../policies.key")).await;
        self.run("openssl pkey -in ../policies.key -pubout -out ../policies.pub").await;
    }

    /// The service takes it once it is signed.
    async fn start_shadow(&mut self) {
        let start = "paygress policy shadow start pricing policy.wasm";
        let (success, unsigned) = self.try_run(start).await;
        assert!(!success && unsigned.contains("there is no signature"), "{unsigned}");
        self.run("paygress policy sign policy.wasm --key ../policies.key").await;
        let inspect = "paygress policy inspect policy.wasm --key ../policies.pub";
        let inspected = self.run(inspect).await;
        assert!(inspected.contains("signature  good, by"), "{inspected}");
        self.run(start).await;
    }

    /// The active policy decides an order, then the author's.
    async fn promote(&mut self, buyer: &Buyer) {
        self.export("TOKEN", &buyer.token(TOKEN_SAT).await);
        let pod = self.run(ORDER).await;
        assert!(pod.contains(" (basic) lives until "), "the default tier");
        let shadow = "paygress policy shadow report";
        let report = self.run_until(shadow, "1 orders, 0 of them the same, 0 faults").await;
        let sold = report.lines().find_map(|line| line.strip_prefix("sold, in seconds")).unwrap();
        assert_eq!(sold.split_whitespace().collect::<Vec<_>>(), ["900", "600", "-300"], "{report}");
        self.run("paygress policy promote").await;
        self.export("TOKEN", &buyer.token(TOKEN_SAT).await);
        let pod = self.run(ORDER).await;
        assert!(pod.contains(" (standard) lives until "), "the author's tier");
        let history = self.run("paygress policy history").await;
        let component = fs::read(self.directory.join("policy.wasm")).unwrap();
        let (last, digest) = (history.lines().last().unwrap(), Digest::of(&component).hex());
        assert!(
            last.contains(" promotion ") && last.ends_with(&format!("pricing {digest:.12}")),
            "{history}"
        );
    }

    /// Prints how long each command took, and fails if they took too long.
    fn assert_fast(&self) {
        for (command, took) in &self.steps {
            println!("{:>7.1} s  {command}", took.as_secs_f64());
        }
        let sum = |of_builds: bool| {
            let steps = self.steps.iter().filter(|(command, _)| (command == BUILD) == of_builds);
            steps.map(|(_, took)| *took).sum::<Duration>()
        };
        let (builds, others) = (sum(true), sum(false));
        println!("{:>7.1} s  builds, {:.1} s the rest", builds.as_secs_f64(), others.as_secs_f64());
        assert!(others < BOUND, "all commands but the builds took {others:?}");
    }
}

/// The commands that the page shows, until it comes to the contract.
fn documented_commands() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/writing-policies.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, after) = page.split_once("\n## A first policy\n").unwrap();
    let (part, _) = after.split_once("\n## The contract\n").unwrap();
    let fences = part.split("```").skip(1).step_by(2);
    let lines = fences.filter_map(|fence| fence.strip_prefix("sh\n")).flat_map(str::lines);
    lines
        .map(|line| line.split("  #").next().unwrap_or_default().trim_end())
        .filter(|line| !line.starts_with('#') && !NOT_RUN.contains(line))
        .map(str::to_owned)
        .collect()
}

/// That of an operator who takes policies of their own key, and of the author's.
async fn service(directory: &Path, author_key: &str) -> (Sandbox, Running) {
    let policies = directory.join("policies");
    fs::create_dir(&policies).unwrap();
    let (private, public) = key(directory, "operator");
    write_signed_policies(&policies, &private);
    let policies = policies.to_string_lossy().into_owned();
    let keys = format!("{public},{author_key}");
    let settings = [("POLICY_DIR", policies.as_str()), ("POLICY_KEYS", keys.as_str())];
    let sandbox = Sandbox::new(&settings, "").await.unwrap();
    let running = Running::start(sandbox.app().await.unwrap());
    (sandbox, running)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Rust's target wasm32-unknown-unknown"]
async fn a_new_author_follows_the_page() {
    let directory = tempdir().unwrap();
    let mut author = Author::new(directory.path());
    author.write_policy().await;
    author.make_key().await;
    let author_key = directory.path().join("policies.pub");
    let (sandbox, _running) = service(directory.path(), &author_key.to_string_lossy()).await;
    let buyer = Buyer::new(&sandbox).await;
    until("no offer", async || {
        let offers = buyer.client.offers(Some(buyer.service)).await.ok()?;
        (!offers.is_empty()).then_some(())
    })
    .await;
    for name in ["NOSTR_RELAYS", "ADMIN_SOCKET"] {
        author.export(name, &sandbox.environment[name]);
    }
    author.start_shadow().await;
    author.promote(&buyer).await;
    author.assert_fast();
    let followed: Vec<&str> = author.steps.iter().map(|(command, _)| command.as_str()).collect();
    assert_eq!(followed, documented_commands(), "what the page shows, in its order");
}
