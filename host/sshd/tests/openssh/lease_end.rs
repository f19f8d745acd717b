//! Lines about the end of the pod: in every terminal, and in nothing else.

use crate::server::{PASSWORD, Server, TIMEOUT, finished, output, text};
use paygress_sshd::{END_FILE, LeaseEnd};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The directory of a lease, with notices ten minutes and a minute before its end.
struct Lease(TempDir);

impl Lease {
    fn new(ends_in: u64) -> Self {
        let lease = Self(tempfile::tempdir().unwrap());
        lease.ends_in(ends_in);
        lease
    }

    fn ends_in(&self, seconds: u64) {
        self.has_notices(seconds, &[600, 60]);
    }

    fn has_notices(&self, ends_in: u64, notices: &[u64]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let end = LeaseEnd::new(now.saturating_add(ends_in), notices.to_vec()).unwrap();
        self.write(&end.to_json());
    }

    fn write(&self, content: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.0.path().join(END_FILE)).unwrap();
    }
}

/// A terminal of OpenSSH's client, and all that it has shown.
struct Terminal {
    client: Child,
    _keys: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// Opens one whose program is there.
    async fn open(server: &Server) -> Self {
        let mut ssh = server.ssh("alice", PASSWORD);
        ssh.args(["-tt", "echo ready; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = ssh.spawn().unwrap();
        let (keys, mut screen) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let terminal = Self { client, _keys: keys, shown: Arc::clone(&shown) };
        std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            while let Ok(read @ 1..) = screen.read(&mut piece) {
                shown.lock().unwrap().push_str(&text(&piece[..read]));
            }
        });
        terminal.shows("ready").await;
        terminal
    }

    /// Waits until it has shown this; all that it has shown.
    async fn shows(&self, expected: &str) -> String {
        let started = Instant::now();
        loop {
            let shown = self.shown.lock().unwrap().clone();
            if shown.contains(expected) {
                return shown;
            }
            assert!(started.elapsed() < TIMEOUT, "{expected:?} is not in {shown:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until its client ends, which is a failure.
    async fn ends(&mut self) {
        let started = Instant::now();
        while self.client.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < TIMEOUT, "the client goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!self.client.wait().unwrap().success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// What a new terminal shows of a program that prints nothing.
async fn at_login(server: &Server) -> String {
    let mut ssh = server.ssh("alice", PASSWORD);
    ssh.args(["-tt", "true"]);
    text(&output(ssh).await.stdout)
}

/// Programs with pipes and file transfers, open while terminals get their lines.
struct Transfers {
    command: Child,
    sftp: Child,
    sftp_commands: ChildStdin,
    directory: TempDir,
}

const CONTENT: &str = "what is moved\n";

impl Transfers {
    async fn begin(server: &Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("up"), CONTENT).unwrap();
        let loops = "echo in > running; until [ -e go ]; do printf 0123456789; sleep 0.01; done";
        let mut command = server.run(loops);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut sftp = server.client("sftp", "-P");
        sftp.args(["-o", "BatchMode=no", "-b", "-", "alice@127.0.0.1"]).current_dir(&directory);
        sftp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut sftp = sftp.spawn().unwrap();
        let mut sftp_commands = sftp.stdin.take().unwrap();
        sftp_commands.write_all(b"put up moved\n").unwrap();
        server.line_of("running").await;
        server.line_of("moved").await;
        Self { command, sftp, sftp_commands, directory }
    }

    /// They have what was sent, and no byte besides.
    async fn end(self, server: &Server) {
        let Self { command, sftp, mut sftp_commands, directory } = self;
        std::fs::write(server.home.path().join("go"), "").unwrap();
        let done = finished(command).await;
        assert_eq!((text(&done.stderr).as_str(), done.status.code()), ("", Some(0)));
        assert!(!done.stdout.is_empty());
        let whole = done.stdout.chunks(10).all(|piece| piece == b"0123456789");
        assert!(whole, "{}", text(&done.stdout));
        sftp_commands.write_all(b"get moved down\n").unwrap();
        drop(sftp_commands);
        let done = finished(sftp).await;
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(std::fs::read_to_string(directory.path().join("down")).unwrap(), CONTENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_show_notices_and_extensions_and_other_channels_get_no_byte() {
    let lease = Lease::new(3_600);
    let server = Server::start_of_lease(lease.0.path()).await;
    let (first, second) = (Terminal::open(&server).await, Terminal::open(&server).await);
    assert!(!at_login(&server).await.contains("This pod"), "an hour is left");
    let transfers = Transfers::begin(&server).await;
    lease.write("broken");
    lease.ends_in(600);
    for terminal in [&first, &second] {
        let shown = terminal.shows("in 10 minutes.").await;
        assert!(shown.contains("\r\nThis pod ends at "), "{shown:?}");
    }
    let shown = at_login(&server).await;
    assert!(shown.starts_with("\r\nThis pod ends at "), "{shown:?}");
    lease.ends_in(7_200);
    for terminal in [&first, &second] {
        let shown = terminal.shows("This pod was extended until ").await;
        assert_eq!(shown.matches("This pod ends at ").count(), 1, "{shown:?}");
    }
    assert!(!at_login(&server).await.contains("This pod"), "two hours are left");
    transfers.end(&server).await;
}

/// Without a change of the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_shown_when_it_is_due() {
    let lease = Lease(tempfile::tempdir().unwrap());
    lease.has_notices(65, &[60]);
    let server = Server::start_of_lease(lease.0.path()).await;
    let terminal = Terminal::open(&server).await;
    let shown = terminal.shows("in 1 minute.").await;
    assert_eq!(shown.matches("This pod ends at ").count(), 1, "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_show_why_the_server_stops() {
    for (ends_in, expected) in [
        (Some(2), "This pod ends: its time is over.\r\n"),
        (Some(3_600), "This pod is stopped before its time is over.\r\n"),
        (None, ""),
    ] {
        let lease = Lease(tempfile::tempdir().unwrap());
        if let Some(ends_in) = ends_in {
            lease.ends_in(ends_in);
        }
        let server = Server::start_of_lease(lease.0.path()).await;
        let mut terminal = Terminal::open(&server).await;
        let mut command = server.run("echo in > running; exec sleep 1000");
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        server.line_of("running").await;
        server.stop.send_replace(true);
        terminal.ends().await;
        let shown = terminal.shows(expected).await;
        assert_eq!(shown.contains("This pod"), !expected.is_empty(), "{shown:?}");
        let ended = finished(command).await;
        assert_eq!((text(&ended.stdout).as_str(), ended.status.success()), ("", false));
    }
}
