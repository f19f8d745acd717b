//! `paygress doctor` beside a relay and a mint, without a cluster.

use crate::support::command::{built, paygress, printed, text};
use crate::support::customer::{Running, until};
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use paygress::sandbox::Sandbox;
use paygress_gateway::{EndpointKey, GatewayHostKey};
use paygress_sandbox::{Relay, free_port};
use paygress_store::db::testing::Server as Postgres;
use serde_json::{Value, json};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

const DOCTOR: [&str; 2] = ["doctor", "--no-cluster"];
const DAY: Duration = Duration::from_secs(86_400);

/// Whether a report has a line of this outcome and area about this.
fn has(report: &str, outcome: &str, area: &str, what: &str) -> bool {
    report.lines().any(|line| {
        let rest = line.trim_start().strip_prefix(outcome).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with(area) && rest.contains(what))
    })
}

/// The checks that have failed, of a run that exits with 1.
async fn failures(sandbox: &Sandbox) -> Vec<Value> {
    let output = paygress(sandbox, &[&DOCTOR[..], &["--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["outcome"], "fail");
    let checks = report["checks"].as_array().unwrap();
    checks.iter().filter(|check| check["outcome"] == "fail").cloned().collect()
}

/// The only one that has failed: what it says, and that there is a remedy.
async fn failure(sandbox: &Sandbox, group: &str, parts: &[&str]) {
    let failures = failures(sandbox).await;
    let [failure] = failures.as_slice() else { panic!("{failures:?}") };
    let text = failure["text"].as_str().unwrap();
    assert!(parts.iter().all(|part| text.contains(part)), "{failure}");
    assert_eq!(failure["group"], group, "{failure}");
    assert!(failure["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_service_is_ok_before_its_first_start_and_while_it_runs() {
    // Not that of the other sandboxes, which is there.
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("compiled");
    let settings = [("POLICY_CACHE_DIR", cache.to_str().unwrap())];
    let sandbox = Sandbox::new(&settings, "").await.unwrap();
    let before = printed(&sandbox, &DOCTOR).await;
    let (mint, relay) = (sandbox.mint.url(), sandbox.relay.url().await.to_string());
    for (area, what) in [
        ("settings", "valid"),
        ("service", "no service runs"),
        ("ports", "BIND_ADDR"),
        ("database", "LEDGER_PATH"),
        ("backup", "set BACKUP_FILE"),
        ("components", "are valid"),
        ("mint", mint),
        ("clock", mint),
        ("relay", relay.as_str()),
    ] {
        assert!(has(&before, "ok", area, what), "{area}: {before}");
    }
    assert!(before.trim_end().ends_with(" 0 fail"), "{before}");
    for file in ["LEDGER_PATH", "CASHU_DB_PATH", "POLICY_STATE_DIR", "POLICY_CACHE_DIR"] {
        assert!(!Path::new(&sandbox.environment[file]).exists(), "{file} is the service's to make");
    }

    let _running = Running::start(sandbox.app().await.unwrap());
    let beside = printed(&sandbox, &DOCTOR).await;
    assert!(has(&beside, "ok", "service", "a service runs"), "{beside}");
    assert!(has(&beside, "ok", "database", "schema version"), "{beside}");
    let secret = sandbox.environment["NOSTR_PRIVATE_KEY"].as_str();
    let json = printed(&sandbox, &[&DOCTOR[..], &["--json"]].concat()).await;
    for output in [&before, &beside, &json] {
        assert!(!output.contains(secret), "{output}");
    }
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_ne!(report["outcome"], "fail", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_program_has_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let sandbox = Sandbox::new(&[("BIND_ADDR", &address)], "").await.unwrap();
    failure(&sandbox, "host", &["BIND_ADDR", address.as_str(), "cannot be listened on"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_missing_is_a_failure_and_one_that_is_old_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backed-up");
    let path = file.to_str().unwrap();
    let sandbox = Sandbox::new(&[("BACKUP_FILE", path)], "").await.unwrap();
    failure(&sandbox, "host", &["BACKUP_FILE", path, "is not there"]).await;
    let written = File::create(&file).unwrap();
    let report = printed(&sandbox, &DOCTOR).await;
    assert!(has(&report, "ok", "backup", "is 0 h old"), "{report}");
    written.set_modified(SystemTime::now() - 2 * DAY).unwrap();
    let report = printed(&sandbox, &DOCTOR).await;
    assert!(has(&report, "warn", "backup", "is 2 days old"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_does_not_answer_is_named() {
    let away = "http://127.0.0.1:9";
    let sandbox = Sandbox::accepting(away).await.unwrap();
    failure(&sandbox, "mints", &[away, "unavailable"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_takes_no_messages_is_named() {
    let relay = Relay::start_refusing("members only").await.unwrap();
    let url = relay.url().await.to_string();
    let sandbox = Sandbox::new(&[("NOSTR_RELAYS", &url)], "").await.unwrap();
    failure(&sandbox, "relays", &[url.as_str(), "takes no message", "members only"]).await;
}

/// To a relay that says of itself (NIP-11) that it takes messages of so many bytes; where it is.
async fn saying_what_it_takes(relay: &Relay, bytes: u64) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let relay = relay.url().await.to_string();
    let relay = relay.trim_start_matches("ws://").trim_end_matches('/').to_owned();
    let information = json!({"limitation": {"max_message_length": bytes}}).to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_or_say(client, relay.clone(), information.clone()));
        }
    });
    url
}

/// A connection that wants a WebSocket is the relay's; any other one gets this answer.
async fn pass_or_say(mut client: TcpStream, relay: String, information: String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    if text(&head).to_lowercase().contains("upgrade: websocket") {
        let mut relay = TcpStream::connect(relay).await.unwrap();
        relay.write_all(&head).await.unwrap();
        // Whoever ends it first.
        let _ = copy_bidirectional(&mut client, &mut relay).await;
        return;
    }
    let length = information.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    client.write_all((head + &information).as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_takes_no_large_messages_is_a_warning() {
    let relay = Relay::start().await.unwrap();
    let url = saying_what_it_takes(&relay, 16_384).await;
    let sandbox = Sandbox::new(&[("NOSTR_RELAYS", &url)], "").await.unwrap();
    let report = printed(&sandbox, &DOCTOR).await;
    assert!(has(&report, "warn", "relay", "takes no message of more than 16384 bytes"), "{report}");
    assert!(report.contains("name another one beside it"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_without_what_is_needed_is_named() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    sandbox.mint.announce_no_restore().await.unwrap();
    failure(&sandbox, "mints", &[sandbox.mint.url(), "does not support NUT-09"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_postgres_has_is_shown_and_one_that_is_away_is_named() {
    let server = Postgres::start().unwrap();
    let mnemonic = "legal winner thank year wave sausage worth useful legal winner thank yellow";
    let database = server.new_database().unwrap();
    let settings = [("DATABASE_URL", database.expose()), ("WALLET_MNEMONIC", mnemonic)];
    let mut sandbox = Sandbox::new(&settings, "").await.unwrap();
    let report = printed(&sandbox, &DOCTOR).await;
    for what in ["Postgres", "the ledger in Postgres: is empty", "the wallet in Postgres: is empty"]
    {
        assert!(has(&report, "ok", "database", what), "{what}: {report}");
    }

    let away = "postgres://paygress:hunter2@127.0.0.1:9/paygress";
    sandbox.environment.insert("DATABASE_URL".to_owned(), away.to_owned());
    failure(&sandbox, "host", &["Postgres at DATABASE_URL cannot be used"]).await;
    let output = paygress(&sandbox, &DOCTOR).await;
    for shown in [text(&output.stdout), text(&output.stderr)] {
        assert!(!shown.contains("hunter2"), "the password is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_the_service_would_not_start_with_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for slot in ["images", "pricing", "duration", "pod-template"] {
        let name = format!("{slot}.wasm");
        std::fs::copy(built(&format!("plugins/{name}")), directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("pricing.wasm"), "no component").unwrap();
    let policies = directory.path().to_string_lossy().into_owned();
    let sandbox = Sandbox::new(&[("POLICY_DIR", &policies)], "").await.unwrap();
    failure(&sandbox, "policies", &["pricing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_problems_of_the_configuration_are_shown_at_once() {
    let mut sandbox = Sandbox::new(&[], "").await.unwrap();
    for (key, value) in [("RUN_MODE", "neither"), ("SSH_PORT", "0")] {
        sandbox.environment.insert(key.to_owned(), value.to_owned());
    }
    let failures = failures(&sandbox).await;
    for key in ["RUN_MODE", "SSH_PORT"] {
        let is_named = |check: &Value| check["text"].as_str().unwrap().starts_with(key);
        assert!(failures.iter().any(is_named), "{key}: {failures:?}");
    }
    assert!(failures.iter().all(|check| check["group"] == "configuration"), "{failures:?}");
}

/// The value may be a secret that was meant for a setting.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_may_be_a_setting_with_a_typo_is_a_warning() {
    let mut sandbox = Sandbox::new(&[], "").await.unwrap();
    let mut set = |key: &str, value: &str| {
        sandbox.environment.insert(key.to_owned(), value.to_owned());
    };
    set("OPERATOR_TOKENS", "hunter2");
    set("SSH_AUTH_SOCK", "/run/agent");
    let report = printed(&sandbox, &DOCTOR).await;
    assert!(has(&report, "warn", "settings", "OPERATOR_TOKENS"), "{report}");
    let json = printed(&sandbox, &[&DOCTOR[..], &["--json"]].concat()).await;
    let warnings = warnings_of_settings(&json);
    let [warning] = warnings.as_slice() else { panic!("{json}") };
    assert!(warning["text"].as_str().unwrap().contains("the nearest is OPERATOR_TOKEN"), "{json}");
    assert!(warning["remedy"].as_str().unwrap().contains("OPERATOR_TOKEN"), "{json}");

    // It may be why the configuration is not valid.
    sandbox.environment.insert("RUN_MODE".to_owned(), "neither".to_owned());
    let invalid = paygress(&sandbox, &[&DOCTOR[..], &["--json"]].concat()).await;
    let invalid = text(&invalid.stdout);
    assert_eq!(warnings_of_settings(&invalid), warnings);
    let refused = text(&paygress(&sandbox, &["serve"]).await.stderr);
    sandbox.environment.insert("RUN_MODE".to_owned(), "both".to_owned());
    sandbox.environment.insert("KUBECONFIG".to_owned(), "/none".to_owned());
    let started = text(&paygress(&sandbox, &["serve"]).await.stderr);
    assert!(started.contains("WARN") && refused.contains("RUN_MODE"), "{started}{refused}");
    for log in [&started, &refused] {
        let lines = log.lines().filter(|line| line.contains("the nearest is OPERATOR_TOKEN"));
        assert_eq!(lines.count(), 1, "{log}");
        assert!(!log.contains("SSH_AUTH_SOCK"), "{log}");
    }
    for output in [&report, &json, &invalid, &started, &refused] {
        assert!(!output.contains("hunter2"), "{output}");
    }
}

/// The warnings about the configuration.
fn warnings_of_settings(report: &str) -> Vec<Value> {
    let report: Value = serde_json::from_str(report).unwrap();
    let is_one = |check: &&Value| check["group"] == "configuration" && check["outcome"] == "warn";
    report["checks"].as_array().unwrap().iter().filter(is_one).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_are_still_compiled_when_it_is_ended_log_no_error_and_leave_nothing() {
    // It does not answer: no other check ends first.
    let mint = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", mint.local_addr().unwrap());
    let sandbox = Sandbox::accepting(&url).await.unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    command.args(DOCTOR).env_clear().envs(&sandbox.environment).env("TMPDIR", temporary.path());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let left = || std::fs::read_dir(temporary.path()).unwrap().map(|it| it.unwrap().path());
    let are_opened = async || left().any(|it| it.join("policies/lock").exists()).then_some(());
    until("no policies are opened", are_opened).await;
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let ended = ended.await.unwrap();
    let notes = text(&ended.stderr);
    assert!(ended.status.code() == Some(1) && notes.contains("interrupted"), "{notes}");
    assert!(!notes.contains("ERROR"), "{notes}");
    assert_eq!(left().count(), 0, "{notes}");
}

/// A kubeconfig of an API server that is not there.
fn unreachable_cluster() -> String {
    let named = |kind: &str, what: Value| json!([{"name": "away", kind: what}]);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "away",
        "clusters": named("cluster", json!({"server": "http://127.0.0.1:9"})),
        "users": named("user", json!({})),
        "contexts": named("context", json!({"cluster": "away", "user": "away"})),
    });
    kubeconfig.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_does_not_answer_is_one_line() {
    let mut sandbox = Sandbox::new(&[], "").await.unwrap();
    let file = sandbox.directory.path().join("kubeconfig");
    std::fs::write(&file, unreachable_cluster()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    sandbox.environment.insert("KUBECONFIG".to_owned(), file);
    let output = paygress(&sandbox, &["doctor", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let of_group = |name: &'static str| checks.iter().filter(move |check| check["group"] == name);
    let of_cluster: Vec<&Value> = of_group("cluster").chain(of_group("pods")).collect();
    let [check] = of_cluster.as_slice() else { panic!("{of_cluster:#?}") };
    assert_eq!((&check["area"], &check["outcome"]), (&json!("connection"), &json!("fail")));
    assert!(check["text"].as_str().unwrap().contains("cannot be reached"), "{check}");
    assert!(of_group("policies").all(|check| check["outcome"] == "ok"), "{report:#}");
}

/// A relay of iroh, without TLS.
async fn iroh_relay() -> (Server, String) {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(SocketAddr::from(([127, 0, 0, 1], 0))));
    let server = Server::spawn(config).await.unwrap();
    let url = format!("http://{}", server.http_addr().unwrap());
    (server, url)
}

/// With ports that are known before it starts.
fn gateway_settings(relay: &str) -> [(&'static str, String); 5] {
    let [tcp, udp] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
    [
        ("GATEWAY_SSH_LISTEN", tcp.to_string()),
        ("GATEWAY_SSH_HOST", "127.0.0.1".to_owned()),
        ("GATEWAY_IROH", "true".to_owned()),
        ("GATEWAY_IROH_BIND", udp.to_string()),
        ("GATEWAY_IROH_RELAYS", relay.to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_tried_where_offers_say_and_its_keys_are_compared() {
    let (_relay, url) = iroh_relay().await;
    let settings = gateway_settings(&url);
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut sandbox = Sandbox::new(&settings, "").await.unwrap();
    let before = printed(&sandbox, &DOCTOR).await;
    assert!(has(&before, "ok", "process", "not tried"), "{before}");

    let _running = Running::start(sandbox.app().await.unwrap());
    let beside = printed(&sandbox, &DOCTOR).await;
    for (area, what) in [
        ("jump host", "has the host key of the offers, SHA256:"),
        ("endpoint", "has proved its id"),
        ("relay", "takes endpoints"),
    ] {
        assert!(has(&beside, "ok", area, what), "{area}: {beside}");
    }

    // As with a process that has keys of its own.
    let other = tempfile::tempdir().unwrap();
    let host_key = GatewayHostKey::generate().unwrap().to_openssh().unwrap();
    std::fs::write(other.path().join("gateway_host_key"), host_key.expose()).unwrap();
    let endpoint_key = EndpointKey::generate().to_text();
    std::fs::write(other.path().join("gateway_endpoint_key"), endpoint_key.expose()).unwrap();
    for (key, value) in [
        ("GATEWAY_KEY_DIR", other.path().to_str().unwrap()),
        ("GATEWAY_IROH_RELAYS", "http://127.0.0.1:9"),
    ] {
        sandbox.environment.insert(key.to_owned(), value.to_owned());
    }
    let failures = failures(&sandbox).await;
    let areas: Vec<&str> = failures.iter().map(|it| it["area"].as_str().unwrap()).collect();
    assert_eq!(areas, ["jump host", "endpoint", "relay"], "{failures:?}");
    for failure in &failures {
        assert_eq!(failure["group"], "gateway", "{failure}");
        let remedy = failure["remedy"].as_str().unwrap();
        assert!(remedy.contains("GATEWAY_"), "{failure}");
        assert!(!failure.to_string().contains(endpoint_key.expose()), "{failure}");
    }
    assert!(failures[0]["text"].as_str().unwrap().contains("has not the host key"));

    sandbox.environment.insert("GATEWAY_KEY_DIR".to_owned(), "/none".to_owned());
    failure(&sandbox, "gateway", &["gateway_host_key", "cannot be read"]).await;
    assert!(!Path::new("/none").exists());
}
