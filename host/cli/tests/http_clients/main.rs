//! The HTTP API with independent clients: cashu-ts, nostr-tools, jco, nginx, schemathesis. Run by
//! `cargo xtask test`, which installs them.
#![cfg(test)]

mod receipts;
#[path = "../support/mod.rs"]
mod support;

use paygress::sandbox::Sandbox;
use paygress_core::testing::HOST_KEY;
use paygress_nostr::{Keys, nsec};
use paygress_sandbox::free_port;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use support::command::text;
use support::customer::{Buyer, Running, until};
use support::testbed::{root, wait_for};
use support::web::Web;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OPERATOR: &str = "the operator's own long token";

async fn opened(settings: &[(&str, &str)]) -> (Sandbox, Running, Web) {
    let mut all = vec![("OPERATOR_TOKEN", OPERATOR), ("REQUESTS_PER_MINUTE", "1000000")];
    all.extend_from_slice(settings);
    let sandbox = Sandbox::new(&all, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    (sandbox, Running::start(app), web)
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn a_cashu_ts_wallet_pays_a_402() {
    let (_sandbox, _running, web) = opened(&[]).await;
    let mut command = Command::new("timeout");
    command.args(["60", "node"]).arg(root().join("examples/customer-js/customer.mjs"));
    command.args([
        "buy",
        &web.url("/spawn-pod"),
        r#"{"duration_minutes": 7, "ssh_username": "alice"}"#,
    ]);
    let output = run(command).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bought: Value = serde_json::from_slice(&output.stdout).unwrap();
    let status = web
        .get(
            &format!("/pods/{}", bought["pod_name"].as_str().unwrap()),
            bought["bearer_token"].as_str().unwrap(),
        )
        .await
        .good();
    let left = status["time_remaining_seconds"].as_u64().unwrap();
    assert!(
        (400..=420).contains(&left),
        "seven minutes were requested and paid, the mint's fee too: {status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn the_example_in_javascript_logs_in_to_the_pod_and_to_no_other_server() {
    let (sandbox, _running, web) = opened(&[]).await;
    let key = sandbox.directory.path().join("id");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    assert!(run(keygen).await.status.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let token = Buyer::new(&sandbox).await.token(9).await;
    let order = json!({"cashu_token": token, "ssh_username": "alice", "ssh_public_key": public});
    let mut bought = web.spawn(order).await.good();
    let login = async |answer: &Value| {
        let mut command = Command::new("timeout");
        command.args(["60", "node"]).arg(root().join("examples/customer-js/customer.mjs"));
        command.args(["login", &answer.to_string(), "echo so says $USER"]).env("SSH_KEY", &key);
        run(command).await
    };
    let done = login(&bought).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout).trim_end(), "so says alice");
    bought["known_hosts"] = json!(format!("[127.0.0.1]:{} {HOST_KEY}", bought["ssh_port"]));
    let refused = login(&bought).await;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(text(&refused.stderr).contains("REMOTE HOST IDENTIFICATION HAS CHANGED"));
}

/// `CUSTOMER_KEY` may be the file of the client `paygress`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn the_example_in_javascript_has_its_key_as_nsec_or_in_hex() {
    let (sandbox, _running, _web) = opened(&[]).await;
    let keys = Keys::generate();
    let relay = sandbox.relay.url().await.to_string();
    let service = sandbox.config.keys.public_key().to_hex();
    let ask = async |key: &str, request: Value| {
        let mut command = Command::new("timeout");
        command.args(["60", "node"]).arg(root().join("examples/customer-js/customer.mjs"));
        command.args(["ask", &relay, &service, &request.to_string()]).env("CUSTOMER_KEY", key);
        run(command).await
    };
    let answer = |output: &Output| -> Value {
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let token = Buyer::new(&sandbox).await.token(9).await;
    let bought = answer(&ask(&nsec(&keys), json!({"cashu_token": token})).await);
    let request = json!({"type": "status", "pod_name": bought["pod_name"]});
    let status = answer(&ask(&keys.secret_key().to_secret_hex(), request.clone()).await);
    assert_eq!(status["status"], "running", "the same customer: {status}");
    for key in ["nsec1x", "x", &"0".repeat(64)] {
        let refused = ask(key, request.clone()).await;
        let reason = "CUSTOMER_KEY is not a secret key; write nsec1… or 64 hex digits\n";
        assert_eq!((refused.status.code(), text(&refused.stderr).as_str()), (Some(1), reason));
    }
}

/// The example of version 0.1.0, with the packages of today's.
struct OldCustomer(tempfile::TempDir);

impl OldCustomer {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = root().join("host/cli/tests/fixtures/v0.1.0/customer.mjs");
        std::fs::copy(script, directory.path().join("customer.mjs")).unwrap();
        let packages = root().join("examples/customer-js/node_modules");
        std::os::unix::fs::symlink(packages, directory.path().join("node_modules")).unwrap();
        Self(directory)
    }

    /// What it prints; it must succeed.
    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.args(["60", "node"]).arg(self.0.path().join("customer.mjs")).args(arguments);
        let output = run(command).await;
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn the_example_of_version_0_1_0_buys_by_each_way() {
    let (sandbox, _running, web) = opened(&[]).await;
    let old = OldCustomer::new();
    let order = json!({"duration_minutes": 7, "ssh_username": "alice"});
    let left = async |pod: &Value, bearer: &Value| {
        let pod = format!("/pods/{}", pod.as_str().unwrap());
        let status = web.get(&pod, bearer.as_str().unwrap()).await.good();
        assert_eq!(status["status"], "running", "{status}");
        status["time_remaining_seconds"].as_u64().unwrap()
    };
    // It adds the mint's fee to what is requested, which has been in there since.
    let expected = 400..=480;

    let bought = old.run(&["buy", &web.url("/spawn-pod"), &order.to_string()]).await;
    let bought: Value = serde_json::from_str(&bought).unwrap();
    let seconds = left(&bought["pod_name"], &bought["bearer_token"]).await;
    assert!(expected.contains(&seconds), "402: {seconds}");

    let price = web.spawn(order).await.is(402, "payment_required");
    old.run(&["pay", price["payment_request"].as_str().unwrap()]).await;
    let bearer = &price["bearer_token"];
    let pods = until("the pod that was paid for runs", async || {
        let pods = web.get("/pods", bearer.as_str().unwrap()).await.good();
        (pods["pods"][0]["status"] == "running").then_some(pods)
    })
    .await;
    let seconds = left(&pods["pods"][0]["pod_name"], bearer).await;
    assert!(expected.contains(&seconds), "payment request: {seconds}");

    let token = old.run(&["token", sandbox.mint.url(), "9"]).await;
    let relay = sandbox.relay.url().await.to_string();
    let service = sandbox.config.keys.public_key().to_hex();
    let request = json!({"cashu_token": token, "ssh_username": "alice"}).to_string();
    let answer = old.run(&["ask", &relay, &service, &request]).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["type"], "access_details", "{answer}");
    assert!(answer["ssh_password"].is_string() && answer["ssh_port"].is_u64(), "{answer}");
    assert_eq!(old.run(&["state", sandbox.mint.url(), &token]).await, "SPENT");
}

/// The port of what a customer runs in their pod: pods of these tests share the machine's network.
async fn web_server_of_pod() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n")
                && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0)
            {}
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nof the pod\n";
            let _ = stream.write_all(answer).await;
        }
    });
    port
}

/// nginx, with the example's configuration.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Nginx {
    fn start(paygress: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let example = std::fs::read_to_string(root().join("examples/nginx.conf")).unwrap();
        let changed = example
            .replace("127.0.0.1:8080", &paygress.to_string())
            .replace("127.0.0.1:8081", &address.to_string());
        std::fs::create_dir_all(directory.path().join("www/members")).unwrap();
        std::fs::write(directory.path().join("www/members/index.html"), "welcome\n").unwrap();
        let changed = changed.replace("/srv/www", &directory.path().join("www").to_string_lossy());
        assert_eq!(changed.matches("127.0.0.1:80").count(), 0);
        // What a package's nginx.conf has besides: where it may write.
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let http = format!(
            "http {{\n access_log off; client_body_temp_path {}; proxy_temp_path {}; fastcgi_temp_path {};",
            at("a"),
            at("b"),
            at("c")
        );
        let http = format!("{http} uwsgi_temp_path {}; scgi_temp_path {};", at("d"), at("e"));
        std::fs::write(directory.path().join("nginx.conf"), changed.replace("http {", &http))
            .unwrap();
        let log = at("error.log");
        let mut command = Command::new("nginx");
        let main = format!("daemon off; master_process off; pid {}; error_log {log};", at("pid"));
        command.args(["-e", &log, "-p", &at(""), "-c", &at("nginx.conf"), "-g", &main]);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let nginx = Self { child, address, _directory: directory };
        wait_for("nginx", Duration::from_secs(20), || {
            std::net::TcpStream::connect(address).is_ok()
        });
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx: run `cargo xtask test`"]
async fn nginx_asks_before_it_lets_through() {
    let (sandbox, _running, web) = opened(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let buyer = Buyer::new(&sandbox).await;
    let nginx = tokio::task::spawn_blocking(move || Nginx::start(web.address)).await.unwrap();
    let outside = Web::new(nginx.address);
    let members =
        async |headers: &[(&str, &str)]| outside.ask("GET", "/members/", headers, "").await;
    assert_eq!(members(&[]).await.status, 401);
    assert_eq!(members(&[("x-cashu", "cashuBnonsense")]).await.status, 403);
    assert_eq!(
        members(&[("x-cashu", &buyer.token(3).await)]).await.status,
        403,
        "it would not buy five minutes"
    );
    let token = buyer.token(7).await;
    let let_in = members(&[("x-cashu", &token)]).await;
    assert_eq!((let_in.status, let_in.body.as_str()), (200, "welcome\n"));
    assert_eq!(members(&[("authorization", &format!("Cashu {token}"))]).await.status, 200);
    // Through nginx it buys, and is spent; the customer passes while the pod lives.
    let bought = outside.ask("POST", "/spawn-pod", &[("x-cashu", &token)], "").await.good();
    assert_eq!(members(&[("x-cashu", &token)]).await.status, 403, "others have seen it");
    let bearer = bought["bearer_token"].as_str().unwrap();
    assert_eq!(members(&[("authorization", &format!("Bearer {bearer}"))]).await.status, 200);
    let pod = format!("/pods/{}", bought["pod_name"].as_str().unwrap());
    outside.ask("DELETE", &pod, &[("authorization", &format!("Bearer {bearer}"))], "").await.good();
    let bearer = format!("Bearer {bearer}");
    assert_eq!(members(&[("authorization", &bearer)]).await.status, 403, "the pod is gone");
}

/// As browsers get there, but for TLS.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx: run `cargo xtask test`"]
async fn a_port_of_a_pod_is_its_customers_alone_behind_nginx() {
    let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("APPS_DOMAIN", "apps.example.com")];
    let (sandbox, _running, web) = opened(&settings).await;
    let nginx = tokio::task::spawn_blocking(move || Nginx::start(web.address)).await.unwrap();
    let outside = Web::new(nginx.address);
    let token = Buyer::new(&sandbox).await.token(20).await;
    let order = json!({"cashu_token": token, "http_port": web_server_of_pod().await});
    let bought = outside.spawn(order).await.good();
    let url = bought["http_url"].as_str().unwrap();
    let host = url.strip_prefix("https://").unwrap();
    let visit = async |path: &str, headers: &[(&str, &str)]| {
        let headers = [&[("host", host)][..], headers].concat();
        outside.ask("GET", path, &headers, "").await
    };
    visit("/", &[]).await.is(403, "not_owner");
    let pod = format!("/pods/{}", bought["pod_name"].as_str().unwrap());
    let status = outside.get(&pod, bought["bearer_token"].as_str().unwrap()).await.good();
    let link = status["http_login_url"].as_str().unwrap().strip_prefix(url).unwrap();
    let logged_in = visit(link, &[("sec-fetch-mode", "navigate")]).await;
    assert_eq!(logged_in.status, 303, "{}", logged_in.body);
    let cookie = logged_in.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let page = visit("/", &[("cookie", cookie)]).await;
    assert_eq!((page.status, page.body.as_str()), (200, "of the pod\n"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs schemathesis: run `cargo xtask test`"]
async fn schemathesis_finds_no_fault_in_two_thousand_cases() {
    const CASES: u64 = 2_000;
    let (sandbox, _running, web) = opened(&[]).await;
    let token = Buyer::new(&sandbox).await.token(100).await;
    let mut cases = 0;
    // Anonymous, as a paying customer, as the operator.
    for (caller, examples) in
        [(None, "80"), (Some("c".repeat(40)), "80"), (Some(OPERATOR.to_owned()), "40")]
    {
        let report = tempfile::NamedTempFile::new().unwrap();
        let mut command = schemathesis(&web, examples, report.path());
        if let Some(caller) = caller {
            let (bearer, token) =
                (format!("Authorization: Bearer {caller}"), format!("X-Cashu: {token}"));
            command.args(["-H", &bearer, "-H", &token]);
        }
        let output = run(command).await;
        let report = text(&output.stdout);
        assert!(output.status.success(), "{report}\n{}", text(&output.stderr));
        cases += generated(&report);
    }
    assert!(cases >= CASES, "only {cases} cases");
}

fn schemathesis(web: &Web, examples: &str, report: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("600").arg(root().join("target/venv-schemathesis/bin/schemathesis"));
    command.args(["run", &web.url("/openapi.json"), "--max-examples", examples]);
    command.args(["--seed", "1", "--no-color", "--request-timeout", "20"]);
    command.args(["--suppress-health-check", "all", "--report-junit-path"]).arg(report);
    // The stream lasts as long as a pod does, and a customer who has no pod has none.
    command.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]);
    command.env("HOME", root().join("target")).current_dir(root().join("target"));
    command
}

/// How many cases there were, as the report says.
fn generated(report: &str) -> u64 {
    let summary = report
        .lines()
        .find(|line| line.contains(" generated,"))
        .unwrap_or_else(|| panic!("no count in {report}"));
    summary
        .split_whitespace()
        .next()
        .and_then(|count| count.parse::<u64>().ok())
        .unwrap_or_else(|| panic!("{summary}"))
}
