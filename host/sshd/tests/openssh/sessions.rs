//! Programs, terminals and forwarding.

use crate::server::{PASSWORD, Server, output, text};
use std::io::Write;
use std::process::Stdio;

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
    assert_eq!(output(killed).await.status.code(), Some(255), "as OpenSSH: by a signal");
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
async fn forwarding_is_refused() {
    let server = Server::start(None).await;
    let mut command = server.ssh("alice", PASSWORD);
    command.args(["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:1", "true"]);
    assert!(!output(command).await.status.success());
}
