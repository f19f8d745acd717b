//! A server of one test, and clients of it.

use paygress_sshd::{
    Account, HostKeys, Password, listen_on_both_families, new_host_key, parse_keys, serve,
    serve_lease,
};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

pub(crate) const PASSWORD: &str = r#"it's "$HOME"; a:b `x` \ %s"#;
/// What takes longer has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A port on which a program can listen later. It is below those that the system gives to outgoing
/// connections. This socket does not listen: a child that another test starts has a copy of it until it
/// is another program.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::UNSPECIFIED, *port).into()).is_ok()
    };
    let first = std::process::id().wrapping_mul(257);
    let next = || first.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % 7_000;
    let ports = std::iter::repeat_with(next).map(|number| u16::try_from(number).unwrap());
    ports.map(|port| port.saturating_add(22_000)).take(7_000).find(is_free).unwrap()
}

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) home: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start(keys: Option<&str>) -> Self {
        Self::start_with(keys, new_host_key().unwrap()).await
    }

    pub(crate) async fn start_with(keys: Option<&str>, host_keys: impl Into<HostKeys>) -> Self {
        let (server, listener, account, stopped) = Self::new(keys).await;
        tokio::spawn(serve(listener, account, host_keys.into(), stopped));
        server
    }

    /// One whose user has this shell.
    pub(crate) async fn start_with_shell(shell: &str) -> Self {
        let (server, listener, mut account, stopped) = Self::new(None).await;
        account.shell = PathBuf::from(shell);
        tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
        server
    }

    /// One of a lease whose end is in this directory.
    pub(crate) async fn start_of_lease(directory: &Path) -> Self {
        let (server, listener, account, stopped) = Self::new(None).await;
        let (host_key, directory) = (new_host_key().unwrap(), directory.to_owned());
        tokio::spawn(serve_lease(listener, account, host_key, directory, stopped));
        server
    }

    /// One that is not served yet.
    async fn new(keys: Option<&str>) -> (Self, TcpListener, Account, watch::Receiver<bool>) {
        let home = tempfile::tempdir().unwrap();
        let listener = listen_on_both_families(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        let account = Account {
            aliases: vec!["admin".to_owned()],
            keys: parse_keys(keys.unwrap_or_default()).unwrap(),
            environment: [("OF_IMAGE", "its own"), ("HOME", "/of/image")]
                .map(|(name, value)| (name.into(), value.into()))
                .to_vec(),
            ..Account::new("alice", Password::new(PASSWORD), home.path())
        };
        (Self { port, stop, home }, listener, account, stopped)
    }

    /// One of OpenSSH's programs, which gets the password. `PORT` is its option for the port.
    pub(crate) fn client(&self, program: &str, port: &str) -> Command {
        self.client_that_logs(program, port, "ERROR")
    }

    pub(crate) fn client_that_logs(&self, program: &str, port: &str, level: &str) -> Command {
        client(program, port, self.port, level)
    }

    pub(crate) fn ssh(&self, user: &str, password: &str) -> Command {
        let mut command = self.client("ssh", "-p");
        command.env("SSHPASS", password).arg(format!("{user}@127.0.0.1"));
        command
    }

    /// `ssh` with this command.
    pub(crate) fn run(&self, command: &str) -> Command {
        let mut ssh = self.ssh("alice", PASSWORD);
        ssh.arg(command);
        ssh
    }

    /// The content of a file in the home, when a line of it is complete.
    pub(crate) async fn line_of(&self, file: &str) -> String {
        let path = self.home.path().join(file);
        let started = Instant::now();
        loop {
            match std::fs::read_to_string(&path) {
                Ok(line) if line.ends_with('\n') => return line.trim().to_owned(),
                _ => assert!(started.elapsed() < TIMEOUT, "{file} is not written"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One of OpenSSH's programs with the password, for a server at this port.
pub(crate) fn client(program: &str, option: &str, port: u16, level: &str) -> Command {
    let mut command = Command::new("sshpass");
    command.env("SSHPASS", PASSWORD).args(["-e", program, option, &port.to_string()]);
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        &format!("LogLevel={level}"),
        "NumberOfPasswordPrompts=1",
        "PreferredAuthentications=password",
    ] {
        command.args(["-o", option]);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

pub(crate) async fn finished(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where a program is.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    // Debian has sshd there, which is not in everybody's path.
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join(name)).find(|program| program.exists())
}

/// Whether these programs are there; if not, the test says so, and fails in CI.
pub(crate) fn are_there(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|name| program(name).is_none()).collect();
    if !missing.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "{missing:?} are not installed");
        println!("NOT RUN: {missing:?} are not installed");
    }
    missing.is_empty()
}

/// Makes a key with these options of `ssh-keygen`.
pub(crate) fn keygen(file: &Path, options: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", "me@home", "-f"]).arg(file).arg("-t").args(options);
    assert!(command.status().unwrap().success(), "{options:?}");
}

/// A security key (FIDO), played by an agent.
pub(crate) struct SecurityKey {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl SecurityKey {
    /// Its keys, one of each kind, and one that signs without a touch.
    pub(crate) const NAMES: [&str; 3] = ["sk-ed25519", "sk-ecdsa", "sk-untouched"];

    /// Its public keys are in the directory then; `None` without Node.
    pub(crate) fn start(directory: &Path) -> Option<Self> {
        let (script, socket) = (directory.join("security-key.mjs"), directory.join("agent"));
        std::fs::write(&script, include_str!("security-key.mjs")).unwrap();
        let mut command = Command::new(program("node")?);
        let mut child = command.arg(script).arg(&socket).arg(directory).spawn().unwrap();
        let started = Instant::now();
        while !socket.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the agent has ended");
            assert!(started.elapsed() < TIMEOUT, "the agent does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, socket })
    }
}

impl Drop for SecurityKey {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
