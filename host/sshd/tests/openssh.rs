//! The server against OpenSSH's client, which is what customers use. Needs `ssh`, `ssh-keygen` and
//! `sshpass`.
#![cfg(test)]

use paygress_sshd::{Account, Password, new_host_key, parse_key, serve};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_is_accepted_instead_of_the_password() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let generated = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "me@home", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(generated.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let server = Server::start(Some(public.trim())).await;
    let with_key = |key: &Path| {
        let mut command = Command::new("ssh");
        command.args([
            "-p",
            &server.port.to_string(),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        command
            .args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(key);
        command.args(["alice@127.0.0.1", "echo in"]).stdin(Stdio::null());
        command
    };
    assert_eq!(text(&output(with_key(&key)).await.stdout), "in\n");
    let other = directory.path().join("other");
    assert!(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&other)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(text(&output(with_key(&other)).await.stdout), "");
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

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_connections_of_one_address_are_bounded() {
    let server = Server::start(None).await;
    let mut unauthenticated: Vec<std::net::TcpStream> = Vec::new();
    for _ in 0..200 {
        unauthenticated.push(std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap());
    }
    // Connections above the limit are closed at once; the others receive the banner.
    let mut open = 0;
    for stream in &mut unauthenticated {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut banner = [0; 4];
        open += usize::from(std::io::Read::read(stream, &mut banner).is_ok_and(|read| read > 0));
    }
    assert!((1..=8).contains(&open), "{open} of 200 are served");
    drop(unauthenticated);
    let started = Instant::now();
    loop {
        let mut again = server.ssh("alice", PASSWORD);
        again.arg("echo in");
        if text(&output(again).await.stdout) == "in\n" {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the user cannot log in again");
    }
}
