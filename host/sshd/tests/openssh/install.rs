//! `paygress-sshd install`, and a server that starts with what it has made.

use crate::rootfs::SERVER;
use crate::server::{Server, output, text};
use paygress_sshd::{HostKeys, REACH_VARIABLE, ReachReport, ReachTask};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn install(arguments: &[&Path]) -> Output {
    Command::new(SERVER).arg("install").args(arguments).output().unwrap()
}

/// Twice, as when an init container runs again: the same keys.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_keys_of_the_termination_log_are_those_of_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let (tools, log) = (directory.path().join("tools"), directory.path().join("log"));
    let mut logs = Vec::new();
    for _ in 0..2 {
        let done = install(&[&tools, Path::new("--termination-log"), &log]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        logs.push(std::fs::read_to_string(&log).unwrap());
    }
    assert_eq!(logs[0], logs[1]);
    let lines: Vec<&str> = logs[0].lines().collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256"]);
    assert!(lines.iter().all(|line| line.split(' ').count() == 2), "{lines:?}");
    // As the server would make it, in seconds: this directory is not read-only.
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-N", "", "-t", "rsa", "-b", "2048", "-f"]);
    assert!(keygen.arg(tools.join("host-keys/ssh_host_rsa_key")).status().unwrap().success());
    let keys = HostKeys::in_directory(&tools.join("host-keys")).unwrap();
    let server = Server::start_with(None, keys).await;
    let mut scan = Command::new("ssh-keyscan");
    scan.args(["-p", &server.port.to_string(), "-t", "ed25519,ecdsa", "127.0.0.1"]);
    let scanned = text(&output(scan).await.stdout);
    for line in lines {
        assert!(scanned.contains(line), "{line} of {scanned}");
    }
}

#[test]
fn the_server_and_busybox_are_executable_and_leave_their_image() {
    let directory = tempfile::tempdir().unwrap();
    let (tools, log) = (directory.path().join("a/tools"), directory.path().join("log"));
    let done = install(&[&tools, Path::new("--termination-log"), &log]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let same = Command::new("cmp").arg(SERVER).arg(tools.join("paygress-sshd")).status().unwrap();
    assert!(same.success());
    let mode = tools.join("paygress-sshd").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    if !Path::new("/bin/busybox").exists() {
        assert!(std::env::var_os("CI").is_none(), "busybox-static is not installed");
        println!("NOT RUN: the links to busybox, which is not installed");
        return;
    }
    assert_eq!(std::fs::read_link(tools.join("bin/sh")).unwrap(), Path::new("../busybox"));
    for name in ["su", "login", "passwd", "busybox"] {
        assert!(!tools.join("bin").join(name).exists(), "{name}");
    }
    // The directory may be moved: nothing in it knows where it is.
    let moved = directory.path().join("moved");
    std::fs::rename(&tools, &moved).unwrap();
    let echo = Command::new(moved.join("bin/echo")).arg("in").output().unwrap();
    assert_eq!(text(&echo.stdout), "in\n");
}

/// Whoever runs the tests may be in a user namespace or not.
#[test]
fn root_of_a_node_installs_nothing_where_it_must_be_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (tools, log) = (directory.path().join("tools"), directory.path().join("log"));
    std::fs::write(&log, "").unwrap();
    let (namespace, option) = (Path::new("--user-namespace"), Path::new("--termination-log"));
    let done = install(&[&tools, namespace, option, &log]);
    let (errors, logged) = (text(&done.stderr), std::fs::read_to_string(&log).unwrap());
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let users: Vec<&str> = map.split_whitespace().take(2).collect();
    if matches!(users[..], ["0", outside] if outside != "0") {
        assert!(done.status.success(), "{errors}");
        assert!(logged.starts_with("ssh-ed25519 "), "{logged}");
    } else {
        assert!(!done.status.success() && !tools.exists(), "{errors}");
        assert_eq!(logged, "root of this pod is root of its node, which has no user namespaces\n");
        assert!(errors.contains(logged.trim()), "{errors}");
    }
}

/// As the init container of a probe pod, and as one of a service before it.
#[test]
fn what_a_probe_pod_reaches_is_reported_beside_the_host_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (tools, log) = (directory.path().join("tools"), directory.path().join("log"));
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [node, api_server] = listeners.each_ref().map(|it| it.local_addr().unwrap());
    let closed = "127.0.0.1:1".parse().unwrap();
    let task = ReachTask { seconds: 0, addresses: vec![closed, node] }.to_json();
    for (task, reached) in [
        (task.as_str(), Some(vec![node, api_server])),
        // Of a service that has another form of it: the server is installed all the same.
        ("{}", None),
    ] {
        let mut command = Command::new(SERVER);
        command.arg("install").arg(&tools).arg("--termination-log").arg(&log);
        command.env(REACH_VARIABLE, task).env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        command.env("KUBERNETES_SERVICE_PORT", api_server.port().to_string());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        let message = std::fs::read_to_string(&log).unwrap();
        assert!(message.starts_with("ssh-ed25519 "), "{message}");
        let expected = reached.map(|reached| ReachReport { tried: 3, reached });
        assert_eq!(ReachReport::find(&message), expected, "{message}");
    }
    let mut command = Command::new(SERVER);
    command.arg("reach").args([closed, node].map(|it| it.to_string()));
    let done = command.output().unwrap();
    assert_eq!(text(&done.stdout), format!("{node}\n"), "{}", text(&done.stderr));
    for wrong in [&["reach"][..], &["reach", "localhost:22"]] {
        let done = Command::new(SERVER).args(wrong).output().unwrap();
        assert!(!done.status.success() && text(&done.stderr).contains("reach ADDRESS:PORT"));
    }
}

#[test]
fn a_wrong_use_of_install_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (option, below) = (Path::new("--termination-log"), file.join("tools"));
    for (arguments, expected) in [
        (vec![], "paygress-sshd install DIR"),
        (vec![option], "paygress-sshd install DIR"),
        (vec![directory.path(), option], "paygress-sshd install DIR"),
        (vec![Path::new("--user-namespace")], "paygress-sshd install DIR"),
        (vec![directory.path(), Path::new("--other")], "paygress-sshd install DIR"),
        (vec![below.as_path()], "cannot write"),
    ] {
        let done = install(&arguments);
        assert!(!done.status.success(), "{arguments:?}");
        assert!(text(&done.stderr).contains(expected), "{}", text(&done.stderr));
    }
}

/// As process 1 of a container it must end with SIGTERM, which is ignored there otherwise.
#[test]
fn hold_waits_for_sigterm() {
    let mut held = Command::new(SERVER).arg("hold").spawn().unwrap();
    let status = format!("/proc/{}/status", held.id());
    let begun = Instant::now();
    let catches_sigterm = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    };
    while !catches_sigterm() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not wait for SIGTERM");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(held.try_wait().unwrap().is_none());
    assert!(Command::new("kill").arg(held.id().to_string()).status().unwrap().success());
    assert_eq!(held.wait().unwrap().code(), Some(143));
    let wrong = Command::new(SERVER).args(["hold", "on"]).output().unwrap();
    assert!(!wrong.status.success(), "it takes nothing");
}
