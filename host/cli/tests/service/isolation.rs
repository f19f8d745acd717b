//! A pod that is bought of the demo's runtime, and what it reaches of the service that sold it. What
//! else a pod is kept from is tested in `host/sandbox`.

use crate::support::customer::{Buyer, Running};
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_sandbox::{Isolation, LocalCluster, Means};
use paygress_sshd::client::{Client, CommandOutput, HostKeyCheck};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// These means; none if this machine does not permit them, which fails in CI.
fn permitted(means: Means) -> Option<Isolation> {
    match Isolation::by(means) {
        Ok(isolation) => Some(isolation),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("NOT RUN: {error}");
            None
        }
    }
}

async fn login(bought: &Value) -> Client {
    let text = |field: &str| bought[field].as_str().unwrap_or_else(|| panic!("{bought}"));
    let port = u16::try_from(bought["ssh_port"].as_u64().unwrap()).unwrap();
    let keys = bought["ssh_host_keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap());
    let known = HostKeyCheck::one_of(keys).unwrap();
    let (username, password) = (text("ssh_username"), text("ssh_password"));
    Client::login(("127.0.0.1", port), username, password, known).await.unwrap()
}

/// Whether OpenSSH's client does this in the pod: the pod's server serves it, not its shell.
fn succeeds(program: &str, bought: &Value, target: &str, arguments: &[&str]) -> bool {
    let port = format!("Port={}", bought["ssh_port"]);
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sshpass");
    command.current_dir(&directory);
    command.args(["-e", program]).env("SSHPASS", bought["ssh_password"].as_str().unwrap());
    for option in [
        port.as_str(),
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
    ] {
        command.args(["-o", option]);
    }
    let done = command.args(arguments).arg(format!("alice@127.0.0.1{target}"));
    done.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success()
}

/// Fails, and prints nothing.
fn assert_refused(output: &CommandOutput, what: &str) {
    assert!(output.exit_status != 0 && output.stdout.is_empty(), "{what}: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bought_pod_does_not_reach_the_service() {
    for means in [Means::Bubblewrap, Means::Unshare, Means::OwnUser] {
        let Some(isolation) = permitted(means) else { continue };
        let sandbox = Sandbox::new(&[], "").await.unwrap();
        let cluster = Arc::new(LocalCluster::isolated(isolation));
        let app = App::build(&sandbox.config, cluster, |backends| backends).await.unwrap();
        let page = app.http_address().unwrap();
        let _running = Running::start(app);
        let buyer = Buyer::new(&sandbox).await;
        let order = json!({"cashu_token": buyer.token(5).await, "ssh_username": "alice"});
        let bought = buyer.ask(order).await;
        let session = login(&bought).await;
        let run = async |command: String| session.run(&command).await.unwrap();
        assert_eq!(run("echo hello from $USER".to_owned()).await.stdout, "hello from alice\n");
        // The operator's socket, and all that the service stores.
        let socket = &sandbox.environment["ADMIN_SOCKET"];
        UnixStream::connect(socket).unwrap();
        if means != Means::OwnUser {
            assert_refused(&run(format!("test -e {socket} && echo there")).await, socket);
        }
        let connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
        assert_refused(&run(format!("python3 -c '{connect}' {socket}")).await, socket);
        for file in ["LEDGER_PATH", "CASHU_DB_PATH"] {
            let path = &sandbox.environment[file];
            assert!(std::fs::read(path).is_ok());
            assert_refused(&run(format!("cat {path}")).await, path);
        }
        assert!(succeeds("sftp", &bought, ":/usr/bin/env", &[]), "a file of the pod");
        let ledger = &sandbox.environment["LEDGER_PATH"];
        assert!(!succeeds("sftp", &bought, &format!(":{ledger}"), &[]), "a file of the service");
        if means != Means::OwnUser {
            // With the machine's network it reaches what anybody on the machine does.
            assert!(!succeeds("ssh", &bought, "", &["-W", &page.to_string()]), "forwarding");
            let connect = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}'", page.port());
            assert_refused(&run(connect).await, "the HTTP API");
        }
    }
}

/// Root without the right to make namespaces.
#[test]
fn the_demo_announces_that_pods_have_no_namespaces() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        println!("NOT RUN: needs root");
        return;
    }
    let mut demo = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
        .args([env!("CARGO_BIN_EXE_paygress"), "demo", "--once"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Open to the end: it prints on.
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let printed: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("1. ")).collect();
    // It cleans up.
    let id = demo.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    demo.wait().unwrap();
    let text = printed.join("\n");
    assert!(text.contains("WARNING: NO NAMESPACES. each pod is an unprivileged user"), "{text}");
    for means in ["namespaces by bubblewrap: ", "namespaces by unshare: "] {
        assert!(text.contains(means), "the reason: {text}");
    }
}
