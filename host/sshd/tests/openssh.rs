//! The server against OpenSSH's client, which is what customers use. Needs `ssh`, `ssh-keygen` and
//! `sshpass`.
#![cfg(test)]

use paygress_sshd::{
    Account, Password, key_kinds, listen_on_both_families, new_host_key, parse_key, serve,
};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const PASSWORD: &str = r#"it's "$HOME"; a:b `x` \ %s"#;

struct Server {
    port: u16,
    stop: watch::Sender<bool>,
    home: tempfile::TempDir,
}

impl Server {
    async fn start(key: Option<&str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listener = listen_on_both_families(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        let account = Account {
            username: "alice".to_owned(),
            password: Password::new(PASSWORD),
            key: key.map(|line| parse_key(line).unwrap()),
            shell: PathBuf::from("/bin/sh"),
            home: home.path().to_owned(),
        };
        tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
        Self { port, stop, home }
    }

    fn ssh(&self, user: &str, password: &str) -> Command {
        let mut command = Command::new("sshpass");
        command.env("SSHPASS", password).args([
            "-e",
            "ssh",
            "-p",
            &self.port.to_string(),
            "-o",
            "StrictHostKeyChecking=no",
        ]);
        command.args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "NumberOfPasswordPrompts=1",
        ]);
        command
            .arg("-o")
            .arg("PreferredAuthentications=password")
            .arg(format!("{user}@127.0.0.1"))
            .stdin(Stdio::null());
        command
    }
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_user_and_password_are_accepted() {
    let server = Server::start(None).await;
    let run = async |user: &str, password: &str| {
        let mut command = server.ssh(user, password);
        command.arg("echo in");
        text(&output(command).await.stdout)
    };
    assert_eq!(run("alice", PASSWORD).await, "in\n");
    for (user, password) in
        [("alice", "wrong"), ("alice", ""), ("root", PASSWORD), ("alice;id", PASSWORD)]
    {
        assert_eq!(run(user, password).await, "", "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_have_their_streams_status_and_environment() {
    let server = Server::start(None).await;
    let mut command = server.ssh("alice", PASSWORD);
    command.arg("echo out; echo err >&2; echo $USER $HOME; exit 42");
    let done = output(command).await;
    assert_eq!(text(&done.stdout), format!("out\nalice {}\n", server.home.path().display()));
    assert_eq!((text(&done.stderr).as_str(), done.status.code()), ("err\n", Some(42)));
    let mut killed = server.ssh("alice", PASSWORD);
    killed.arg("kill -9 $$");
    assert_eq!(output(killed).await.status.code(), Some(137));
    let mut large = server.ssh("alice", PASSWORD);
    large.arg("head -c 20000000 /dev/zero");
    assert_eq!(output(large).await.stdout.len(), 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_and_terminals_work() {
    let server = Server::start(None).await;
    let mut command = server.ssh("alice", PASSWORD);
    command.arg("wc -c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let counted = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&vec![b'x'; 3_000_000]).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        text(&output.stdout)
    });
    assert_eq!(counted.await.unwrap().trim(), "3000000");
    let mut terminal = server.ssh("alice", PASSWORD);
    terminal.arg("-tt").arg("tty && echo $TERM && stty size").env("TERM", "xterm");
    let shown = text(&output(terminal).await.stdout);
    assert!(shown.contains("/dev/pts/") && shown.contains("xterm"), "{shown}");
}

/// A new key of this kind, `ssh-keygen`'s options for it; the file of the secret one.
fn new_key(directory: &Path, options: &[&str]) -> PathBuf {
    let file = directory.join(options.concat());
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", "me@home", "-f"]).arg(&file).arg("-t").args(options);
    assert!(command.status().unwrap().success(), "{options:?}");
    file
}

fn public_line(key: &Path) -> String {
    std::fs::read_to_string(format!("{}.pub", key.display())).unwrap().trim().to_owned()
}

/// Logs in with this key and nothing else.
async fn with_key(server: &Server, key: &Path) -> String {
    let mut command = Command::new("ssh");
    command.args(["-p", &server.port.to_string(), "-i"]).arg(key);
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
    ] {
        command.args(["-o", option]);
    }
    command.args(["alice@127.0.0.1", "echo in"]).stdin(Stdio::null());
    text(&output(command).await.stdout)
}

/// The list that is checked before a login is sold is the list that the server verifies.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_of_each_listed_kind_is_accepted_instead_of_the_password() {
    let directory = tempfile::tempdir().unwrap();
    let mut kinds = Vec::new();
    for options in [&["ed25519"][..], &["ecdsa", "-b256"], &["ecdsa", "-b384"], &["ecdsa", "-b521"]]
    {
        let key = new_key(directory.path(), options);
        let line = public_line(&key);
        let server = Server::start(Some(&line)).await;
        assert_eq!(with_key(&server, &key).await, "in\n", "{options:?}");
        kinds.push(line.split(' ').next().unwrap().to_owned());
        if options == ["ed25519"] {
            let other = directory.path().join("other");
            std::fs::create_dir(&other).unwrap();
            assert_eq!(with_key(&server, &new_key(&other, options)).await, "");
        }
    }
    assert_eq!(kinds, key_kinds());
}

#[test]
fn a_key_that_could_not_log_in_is_refused_with_the_kinds_that_can() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = public_line(&new_key(directory.path(), &["rsa", "-b2048"]));
    let sk = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIOQ3cZ0sQ5v8aJzv1y0q2x0nqS1o9mQb1v9cX1c5bq0qAAAABHNzaDo=";
    for (line, expected) in [
        (rsa.as_str(), "send one of ssh-ed25519, ecdsa-sha2-nistp256, "),
        (sk, "send one of ssh-ed25519, ecdsa-sha2-nistp256, "),
        ("ssh-dss AAAAB3NzaC1kc3M=", "send one of ssh-ed25519, "),
        ("", "send one of ssh-ed25519, "),
        ("ssh-ed25519 AAAA", "not usable"),
    ] {
        let error = parse_key(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_address_families_are_served() {
    let server = Server::start(None).await;
    for address in ["127.0.0.1", "::1"] {
        let stream = std::net::TcpStream::connect((address, server.port)).unwrap();
        assert_eq!(banner(stream), "SSH-", "{address}");
    }
}

/// The first bytes that the server sends; none when it closes the connection.
fn banner(mut stream: std::net::TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut banner = [0; 4];
    let read = std::io::Read::read(&mut stream, &mut banner).unwrap_or(0);
    text(&banner[..read])
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_is_refused() {
    let server = Server::start(None).await;
    let mut command = server.ssh("alice", PASSWORD);
    command.args(["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:1", "true"]);
    assert!(!output(command).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_server_ends_all_sessions_and_processes() {
    let server = Server::start(None).await;
    let marker = server.home.path().join("pid");
    let mut command = server.ssh("alice", PASSWORD);
    command.arg("echo $$ > pid; sleep 1000 & sleep 1000");
    let session = tokio::task::spawn_blocking(move || command.status().unwrap());
    let started = Instant::now();
    let pid = loop {
        match std::fs::read_to_string(&marker) {
            Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
            _ => assert!(started.elapsed() < Duration::from_secs(20), "the session did not start"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    server.stop.send_replace(true);
    assert!(!session.await.unwrap().success());
    let alive = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            // The process group is field 5 of `stat`, the third after the name.
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> =
                stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            fields.get(2) == Some(&pid.as_str()) && fields.first() != Some(&"Z")
        })
    };
    while alive() {
        assert!(started.elapsed() < Duration::from_secs(20), "a process has survived the server");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_a_slow_program() {
    let server = Server::start(None).await;
    let mut command = server.ssh("alice", PASSWORD);
    // The program starts to read only when a second login has created the file `go`.
    command
        .arg("while [ ! -e go ]; do :; done; wc -c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    const BYTES: usize = 40 << 20;
    let upload = std::thread::spawn(move || stdin.write_all(&vec![b'x'; BYTES]).unwrap());
    let mut go = server.ssh("alice", PASSWORD);
    go.arg("touch go");
    assert!(output(go).await.status.success());
    let counted =
        tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    upload.join().unwrap();
    assert_eq!(text(&counted.stdout).trim(), BYTES.to_string());
}

/// Opens this many connections, and keeps those that are served.
fn idle_connections(port: u16, tries: usize) -> Vec<std::net::TcpStream> {
    let open = || std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let served = |stream: &std::net::TcpStream| banner(stream.try_clone().unwrap()) == "SSH-";
    (0..tries).map(|_| open()).filter(served).collect()
}

/// Tries to log in until it works; how often it took.
async fn tries_to_log_in(server: &Server, most: u32) -> u32 {
    for tries in 1..=most {
        let mut command = server.ssh("alice", PASSWORD);
        command.arg("echo in");
        if text(&output(command).await.stdout) == "in\n" {
            return tries;
        }
    }
    panic!("the user cannot log in with {most} tries");
}

/// Source NAT gives everybody the same address: fifty idle connections of it are no lock. With
/// fifty, 61 of 100 new ones are dropped; forty tries in a row fail once in 10^8 runs.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_address_lock_nobody_out() {
    let server = Server::start(None).await;
    let mut idle = Vec::new();
    while idle.len() < 50 {
        idle.extend(idle_connections(server.port, 1));
    }
    let started = Instant::now();
    let tries = tries_to_log_in(&server, 40).await;
    let took = started.elapsed();
    println!("50 idle connections: logged in at try {tries} after {took:?}");
    assert!(took < Duration::from_secs(25), "within the grace time of the idle connections");
    assert_eq!(idle.iter().filter(|stream| is_open(stream)).count(), 50, "all of them still there");
}

fn is_open(stream: &std::net::TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    // What is left of the server's greeting; at its end, nothing more is there yet.
    let mut greeting = [0; 4_096];
    loop {
        match std::io::Read::read(&mut &*stream, &mut greeting) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_connections_are_bounded() {
    let server = Server::start(None).await;
    let idle = idle_connections(server.port, 500);
    println!("{} of 500 idle connections are served", idle.len());
    assert!((10..=100).contains(&idle.len()), "{} are served", idle.len());
    drop(idle);
    tries_to_log_in(&server, 100).await;
}
