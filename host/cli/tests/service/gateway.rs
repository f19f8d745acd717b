//! The gateway of the service: pods are reached by iroh on loopback and by a jump host, with OpenSSH's
//! client.

use super::order::{generate_key, paygress, text};
use crate::support::customer::{Buyer, Running, TIMEOUT};
use crate::support::web::Web;
use paygress::app::App;
use paygress::config::GatewayHttpConfig;
use paygress::gateway::StandaloneGateway;
use paygress::sandbox::Sandbox;
use paygress_core::backend::gateway::GatewayInfo;
use paygress_core::model::gateway::GatewayWays;
use paygress_core::model::ids::PodName;
use paygress_core::model::secret::Secret;
use paygress_core::readiness::UnreadyReason;
use paygress_nostr::npub;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;

const GATEWAY: [(&str, &str); 3] = [
    ("GATEWAY_SSH_LISTEN", "127.0.0.1:0"),
    ("GATEWAY_IROH", "true"),
    ("GATEWAY_IROH_BIND", "127.0.0.1:0"),
];
const OPERATOR: (&str, &str) = ("OPERATOR_TOKEN", "a token of the operator of this test");
const SPEAK: &str = "echo so says $USER";

/// A pod that was bought over Nostr, and the key that logs in.
struct Bought {
    sandbox: Sandbox,
    service: String,
    key: PathBuf,
    answer: Value,
}

impl Bought {
    async fn new(sandbox: Sandbox) -> Self {
        let buyer = Buyer::new(&sandbox).await;
        let (key, service) = (sandbox.directory.path().join("id"), npub(&buyer.service));
        generate_key(&key);
        let public = format!("{}.pub", key.display());
        let spawn = ["order", "--service", &service, "spawn", "--token", "-", "--json"];
        let login = ["--username", "alice", "--public-key", &public];
        let arguments: Vec<&str> = spawn.into_iter().chain(login).collect();
        let bought = paygress(&sandbox, &arguments, &buyer.token(20).await).await;
        assert!(bought.status.success(), "{}", text(&bought.stderr));
        let answer = serde_json::from_slice(&bought.stdout).unwrap();
        Self { sandbox, service, key, answer }
    }

    fn pod(&self) -> &str {
        self.answer["pod_name"].as_str().unwrap()
    }

    /// The way of this type, as the service has answered.
    fn way(&self, kind: &str) -> &Value {
        let ways = self.answer["access"].as_array().unwrap();
        ways.iter().find(|way| way["type"] == kind).unwrap()
    }

    /// The arguments of `paygress order ssh` that run this in the pod.
    fn arguments<'a>(&'a self, via: &[&'a str], line: &'a str) -> Vec<&'a str> {
        let key = self.key.to_str().unwrap();
        let order = ["order", "--service", &self.service, "ssh", self.pod(), "--identity", key];
        let ssh = ["--", "-F", "none", "-o", "BatchMode=yes", line];
        order.into_iter().chain(via.iter().copied()).chain(ssh).collect()
    }

    async fn order(&self, arguments: &[&str]) -> Output {
        paygress(&self.sandbox, arguments, "").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_reached_by_each_way_and_its_end_ends_them() {
    let sandbox = Sandbox::new(&GATEWAY, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let orders = app.orders.clone();
    let _running = Running::start(app);
    let bought = Bought::new(sandbox).await;
    for via in [&["--via", "iroh"][..], &["--via", "jump-host"], &["--via", "host-port"], &[]] {
        let done = bought.order(&bought.arguments(via, SPEAK)).await;
        assert_eq!(text(&done.stdout), "so says alice\n", "{via:?}: {}", text(&done.stderr));
    }
    let counts = orders.gateway_counts().unwrap();
    let opened = |way: &str| counts.sessions.iter().find(|it| it.way == way).unwrap().opened;
    assert!(opened("iroh") >= 2 && opened("jump-host") >= 1, "{counts:?}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    command.args(bought.arguments(&["--via", "iroh"], "echo begun; sleep 600")).env_clear();
    command.env("NOSTR_RELAYS", bought.sandbox.relay.url().await.to_string());
    command.env("PAYGRESS_CUSTOMER_KEY_FILE", bought.sandbox.directory.path().join("customer/key"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let begun = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    });
    assert_eq!(begun.await.unwrap(), "begun\n");
    let stop = ["order", "--service", &bought.service, "stop", bought.pod()];
    assert!(bought.order(&stop).await.status.success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let ended = tokio::time::timeout(TIMEOUT, ended).await.expect("its end is the session's");
    assert!(!ended.unwrap().success());
    let over = bought.order(&bought.arguments(&["--via", "iroh"], SPEAK)).await;
    assert!(text(&over.stderr).contains("does not run"), "{}", text(&over.stderr));
}

/// As a customer without our client, with what the answer has to check.
#[tokio::test(flavor = "multi_thread")]
async fn opensshs_own_jump_is_strict_with_the_answers_known_hosts() {
    let sandbox = Sandbox::new(&GATEWAY, "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let bought = Bought::new(sandbox).await;
    let jump_host = bought.way("jump-host");
    let directory = bought.sandbox.directory.path();
    let known_hosts = directory.join("known");
    let config = directory.join("config");
    let settings = format!(
        "Host *\n BatchMode yes\n StrictHostKeyChecking yes\n IdentitiesOnly yes\n IdentityFile {}\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n",
        bought.key.display(),
        known_hosts.display()
    );
    std::fs::write(&config, settings).unwrap();
    let line = jump_host["command"].as_str().unwrap();
    let line = line.replacen("ssh ", &format!("ssh -F {} ", config.display()), 1);
    let line = format!("{line} '{SPEAK}'");
    let run = async |known: &str| {
        std::fs::write(&known_hosts, known).unwrap();
        let line = line.clone();
        let run =
            move || Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let known = jump_host["known_hosts"].as_str().unwrap();
    let done = run(known).await;
    assert_eq!(text(&done.stdout), "so says alice\n", "{}", text(&done.stderr));
    // Without the gateway's own key, which is its first line.
    let (own, of_pod) = known.split_once('\n').unwrap();
    assert!(own.ends_with(jump_host["host_key"].as_str().unwrap()), "{own}");
    let refused = run(of_pod).await;
    assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(255), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_offers_name_the_ways_and_none_without_a_gateway() {
    let settings: Vec<_> = GATEWAY.into_iter().chain([OPERATOR]).collect();
    let sandbox = Sandbox::new(&settings, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = crate::support::web::Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    let types = |value: &Value| -> Vec<String> {
        let ways = value["access"].as_array().cloned().unwrap_or_default();
        ways.iter().map(|way| way["type"].as_str().unwrap().to_owned()).collect()
    };
    let offers = web.ask("GET", "/offers", &[], "").await.good();
    assert_eq!(types(&offers), ["host-port", "jump-host", "iroh"]);
    let bought = Bought::new(sandbox).await;
    assert_eq!(types(&bought.answer), types(&offers));
    let status = ["order", "--service", &bought.service, "status", bought.pod(), "--json"];
    let status: Value = serde_json::from_slice(&bought.order(&status).await.stdout).unwrap();
    assert_eq!(types(&status), types(&offers));
    assert_eq!(status["access"][1], *bought.way("jump-host"));
    let offered = offers["access"].as_array().unwrap();
    assert_eq!(offered[2]["endpoint_id"], bought.way("iroh")["endpoint_id"]);
    assert_eq!(offered[1]["host_key"], bought.way("jump-host")["host_key"]);
    let bearer = format!("Bearer {}", OPERATOR.1);
    let metrics = web.ask("GET", "/metrics", &[("authorization", &bearer)], "").await;
    for line in [
        "paygress_gateway_open_sessions{way=\"jump-host\"} 0",
        "paygress_gateway_sessions_total{way=\"iroh\"} 0",
        "paygress_gateway_rejections_total{reason=\"credentials\"} 0",
    ] {
        assert!(metrics.body.contains(line), "{line} is missing:\n{}", metrics.body);
    }

    let without = Sandbox::new(&[], "").await.unwrap();
    let _other = Running::start(without.app().await.unwrap());
    assert!(Bought::new(without).await.answer.get("access").is_none());
}

/// As a process that gets SIGTERM stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_ends_the_sessions_of_its_gateway_with_the_reason() {
    let sandbox = Sandbox::new(&GATEWAY, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    // The pods of the sandbox end with it.
    let _orders = app.orders.clone();
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(app.run_until(stopped));
    let bought = Bought::new(sandbox).await;
    let ticket = bought.way("iroh")["ticket"].as_str().unwrap().parse().unwrap();
    let pod = PodName::parse(bought.pod()).unwrap();
    let tunnel = paygress_gateway::connect(&ticket, &pod).await.unwrap();
    let ((mut keyboard, input), (output, mut screen)) = (duplex(65_536), duplex(65_536));
    let session = tokio::spawn(tunnel.run(input, output, std::future::pending()));
    keyboard.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let mut greeting = [0; 8];
    screen.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");

    stop.send_replace(true);
    let ended = tokio::time::timeout(TIMEOUT, session).await.expect("the session ends");
    let error = ended.unwrap().unwrap_err();
    assert_eq!(error.code(), "gateway-stopping", "{error}");
    tokio::time::timeout(TIMEOUT, served).await.expect("the service ends").unwrap().unwrap();
}

/// The gateway of `paygress gateway`, opened in this process, with health and metrics.
pub(super) async fn standalone_gateway(
    sandbox: &Sandbox,
    app: &App,
    operator_token: &str,
) -> StandaloneGateway {
    let mut settings = sandbox.config.gateway.clone().unwrap();
    settings.http = Some(GatewayHttpConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        operator_token: Some(Secret::new(operator_token)),
    });
    let cluster = sandbox.cluster();
    StandaloneGateway::open(&sandbox.config, &settings, app.ledger.clone(), cluster).await.unwrap()
}

/// As Kubernetes and Prometheus request them of a process of its own, which is this one here.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_a_process_has_health_and_metrics() {
    let sandbox = Sandbox::new(&GATEWAY, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let gateway = standalone_gateway(&sandbox, &app, OPERATOR.1).await;
    let web = Web::new(gateway.http_address().unwrap());
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(gateway.serve(stopped));

    let lives = web.ask("GET", "/healthz", &[], "").await;
    assert_eq!((lives.status, lives.body.as_str()), (200, "ok"));
    let ready = web.ask("GET", "/readyz", &[], "").await.good();
    assert_eq!(ready["ready"], true, "{ready}");
    web.ask("GET", "/metrics", &[], "").await.is(401, "unauthorized");
    web.ask("GET", "/offers", &[], "").await.is(404, "not_found");
    let metrics = web.get("/metrics", OPERATOR.1).await;
    for line in [
        "paygress_gateway_ready 1",
        "paygress_gateway_open_sessions{way=\"iroh\"} 0",
        "paygress_gateway_sessions_total{way=\"jump-host\"} 0",
        "paygress_gateway_rejections_total{reason=\"too-many\"} 0",
    ] {
        assert!(metrics.body.contains(line), "{line} is missing:\n{}", metrics.body);
    }

    stop.send_replace(true);
    tokio::time::timeout(TIMEOUT, served).await.expect("it stops").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_warns_where_its_gateway_has_no_relay() {
    // Nothing answers there.
    let relay = ("GATEWAY_IROH_RELAYS", "http://127.0.0.1:9");
    let settings: Vec<_> = GATEWAY.into_iter().chain([OPERATOR, relay]).collect();
    let sandbox = Sandbox::new(&settings, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    let ready = web.ask("GET", "/readyz", &[], "").await.good();
    let overview = web.get("/operator/overview", OPERATOR.1).await.good();
    for warnings in [&ready["warnings"], &overview["warnings"]] {
        assert!(warnings.to_string().contains("has none of its relays"), "{warnings}");
    }
}

/// A gateway whose endpoint is closed for good.
struct ClosedGateway;

impl GatewayInfo for ClosedGateway {
    fn ways(&self) -> GatewayWays {
        GatewayWays::default()
    }

    fn unready_reason(&self) -> Option<UnreadyReason> {
        Some(UnreadyReason::EndpointClosed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_gateway_is_closed_is_not_ready() {
    let sandbox = Sandbox::new(&[OPERATOR], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    app.orders.set_gateway(Arc::new(ClosedGateway));
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    let (reason, unready) =
        (UnreadyReason::EndpointClosed.as_str(), web.ask("GET", "/readyz", &[], "").await);
    assert_eq!(unready.status, 503, "{}", unready.body);
    assert!(unready.body.contains(reason), "{}", unready.body);
    let overview = web.get("/operator/overview", OPERATOR.1).await.good();
    assert!(overview["warnings"].to_string().contains(reason), "{overview}");
    let metrics = web.get("/metrics", OPERATOR.1).await;
    assert!(metrics.body.contains("paygress_ready 0"), "{}", metrics.body);
}
