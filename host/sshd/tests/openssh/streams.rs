//! Not a byte is lost, in either direction, whatever is slow: flow control decides, never a clock.

use crate::reference::slow_link;
use crate::server::{PASSWORD, Server, client, finished, output, text};
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a program does not read: input was cut after 30 s.
const UNREAD: Duration = Duration::from_secs(40);

/// The bytes of the slow transfers; with `PAYGRESS_SSH_BYTES` as many as that, for example 2 GB.
fn slow_bytes(default: usize) -> usize {
    std::env::var("PAYGRESS_SSH_BYTES").map_or(default, |bytes| bytes.parse().unwrap())
}

/// Reads in pieces of a megabyte with a pause after each, up to a second in all.
fn read_slowly(child: &mut Child) -> usize {
    let mut stdout = child.stdout.take().unwrap();
    let (mut piece, mut total, mut pauses) = (vec![0; 1 << 20], 0_usize, 0_u32);
    loop {
        let read = stdout.read(&mut piece).unwrap();
        if read == 0 {
            return total;
        }
        assert!(piece[..read].iter().all(|byte| *byte == 0));
        total = total.saturating_add(read);
        if pauses < 50 {
            pauses = pauses.saturating_add(1);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The program has ended for longer than any grace before its client reads on: 2.2 MB are more than
/// the client's window and less than the window and all buffers.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_late_gets_every_byte() {
    let server = Server::start(None).await;
    let mut command = server.run("seq 1 330000; echo ended > ended");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    server.line_of("ended").await;
    // The subject of the test is time: output was cut 300 ms after the end.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(child.try_wait().unwrap().is_none(), "the client waits for its reader");
    let done = finished(child).await;
    let expected: String = (1..=330_000).map(|number| format!("{number}\n")).collect();
    println!("{} of {} bytes", done.stdout.len(), expected.len());
    assert!(done.stdout == expected.as_bytes(), "{} bytes", done.stdout.len());
    assert_eq!(done.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_every_byte_and_the_exit_code() {
    let server = Server::start(None).await;
    let bytes = slow_bytes(40 << 20);
    let mut command = server.run(&format!("head -c {bytes} /dev/zero; exit 3"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (read, code) = tokio::task::spawn_blocking(move || {
        let read = read_slowly(&mut child);
        (read, child.wait().unwrap().code())
    })
    .await
    .unwrap();
    println!("{read} of {bytes} bytes through a slow reader");
    assert_eq!((read, code), (bytes, Some(3)));
}

/// Out and in at the same time, by two connections of 1.6 MB/s.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_brings_every_byte_and_the_exit_code() {
    let server = Server::start(None).await;
    let (bytes, port) = (slow_bytes(2_200_000), slow_link(server.port));
    let run = |command: &str| {
        let mut ssh = client("ssh", "-p", port, "ERROR");
        ssh.args(["alice@127.0.0.1", command]).stdout(Stdio::piped());
        ssh
    };
    let mut out = run(&format!("head -c {bytes} /dev/zero; exit 3")).spawn().unwrap();
    let mut counting = run("wc -c; exit 4").stdin(Stdio::piped()).spawn().unwrap();
    let (upload, _) = upload(&mut counting, bytes);
    let download = tokio::task::spawn_blocking(move || {
        let read = read_slowly(&mut out);
        (read, out.wait().unwrap().code())
    });
    let counted = finished(counting).await;
    assert_eq!(text(&counted.stdout).trim(), bytes.to_string());
    assert_eq!(counted.status.code(), Some(4));
    assert_eq!(download.await.unwrap(), (bytes, Some(3)));
    println!("{bytes} bytes over a slow link in each direction");
    upload.join().unwrap();
}

/// Both directions at once, with a reader that is slower than the writer: neither waits for the
/// other for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_echo_through_a_slow_reader_is_whole() {
    let server = Server::start(None).await;
    let bytes = slow_bytes(24 << 20);
    let mut command = server.run("cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (upload, _) = upload(&mut child, bytes);
    let read = tokio::task::spawn_blocking(move || {
        let read = read_slowly(&mut child);
        assert!(child.wait().unwrap().success());
        read
    });
    assert_eq!(read.await.unwrap(), bytes);
    upload.join().unwrap();
}

/// Writes this many zeros to the standard input of a client; how many it has taken so far.
fn upload(child: &mut Child, bytes: usize) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let mut stdin = child.stdin.take().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let thread = std::thread::spawn(move || {
        let piece = vec![0; 1 << 16];
        while counter.load(Ordering::Relaxed) < bytes {
            let count = piece.len().min(bytes.saturating_sub(counter.load(Ordering::Relaxed)));
            stdin.write_all(&piece[..count]).unwrap();
            counter.fetch_add(count, Ordering::Relaxed);
        }
    });
    (thread, sent)
}

/// The program reads only when a second login has created the file `go`, after 40 s; until then the
/// client waits as well, with no more than its window sent ahead.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_a_program_that_reads_late() {
    let server = Server::start(None).await;
    let bytes = slow_bytes(40 << 20);
    let mut command = server.run("echo $$ > pid; while [ ! -e go ]; do sleep 0.05; done; wc -c");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (upload, sent) = upload(&mut child, bytes);
    server.line_of("pid").await;
    // The subject of the test is time; other tests run meanwhile.
    tokio::time::sleep(UNREAD).await;
    let ahead = sent.load(Ordering::Relaxed);
    println!("the client is {} KiB ahead of a program that does not read", ahead >> 10);
    assert!(ahead < 8 << 20, "{ahead}");
    assert!(child.try_wait().unwrap().is_none(), "the client waits for the program");
    assert!(output(server.run("touch go")).await.status.success(), "others are served meanwhile");
    assert_eq!(text(&finished(child).await.stdout).trim(), bytes.to_string());
    upload.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn output_after_the_end_of_the_shell_arrives() {
    let server = Server::start(None).await;
    let command =
        server.run("(while [ ! -e go ]; do sleep 0.05; done; echo later) & echo $$ > pid");
    let session = tokio::spawn(output(command));
    server.line_of("pid").await;
    // The shell has long ended when `go` is there: a login takes some time.
    assert!(output(server.run("touch go")).await.status.success());
    let done = session.await.unwrap();
    assert_eq!((text(&done.stdout).as_str(), done.status.code()), ("later\n", Some(0)));
}

/// What needs no terminal and no pipes goes on when the connection breaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_a_broken_connection() {
    let server = Server::start(None).await;
    for (shell, file) in [("", "piped"), ("-tt", "terminal")] {
        // It has begun to ignore SIGHUP when it writes its first line.
        let wait = "while [ ! -e go ]; do sleep 0.05; done";
        let job = format!("echo started > {file}; {wait}; echo done > {file}.done");
        let start = format!("nohup sh -c '{job}' > /dev/null 2>&1 & sleep 1000");
        let mut command = server.ssh("alice", PASSWORD);
        command.args(Some(shell).filter(|shell| !shell.is_empty())).arg(start);
        let mut child = command.spawn().unwrap();
        server.line_of(file).await;
        // The client, and sshpass with it.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    std::fs::write(server.home.path().join("go"), "").unwrap();
    for file in ["piped.done", "terminal.done"] {
        assert_eq!(server.line_of(file).await, "done");
    }
}
