//! What sessions do not inherit.

use crate::rootfs::SERVER;
use crate::server::{PASSWORD, TIMEOUT, client, free_port, output, text};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As `nohup` and a script's `&` start it; an interrupt from a terminal would do nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_the_default_signals_whatever_the_server_ignores() {
    let (login, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(login.path().join("username"), "alice").unwrap();
    std::fs::write(login.path().join("password"), PASSWORD).unwrap();
    let port = free_port();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT QUIT; exec \"$0\" \"$@\"", SERVER, "--login"]);
    command.arg(login.path()).arg("--home").arg(home.path()).args(["--shell", "/bin/sh"]);
    command.args(["--listen", &format!("127.0.0.1:{port}")]).stdin(Stdio::null());
    let _server = Process(command.spawn().unwrap());
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < TIMEOUT, "the server does not listen");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut ssh = client("ssh", "-p", port, "ERROR");
    ssh.args(["alice@127.0.0.1", "exec grep SigIgn /proc/self/status"]);
    let done = output(ssh).await;
    // The lowest bits are those of the three.
    let mask = text(&done.stdout);
    let mask = mask.strip_prefix("SigIgn:").map(|mask| u64::from_str_radix(mask.trim(), 16));
    assert_eq!(mask.map(|mask| mask.unwrap() & 7), Some(0), "{}", text(&done.stderr));
}
