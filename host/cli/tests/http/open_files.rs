//! The program as a shell or systemd starts it: with a soft limit of file descriptors that is lower than
//! what its connections need.

use crate::support::customer::{TIMEOUT, until};
use crate::support::secrets::SearchedLog;
use paygress::sandbox::Sandbox;
use paygress_sandbox::free_port;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Enough for the start, and less than the connections below need.
const START: &str = "ulimit -Sn 256 && exec \"$0\" serve";
/// An API server that does not answer: the service serves all the same.
const KUBECONFIG: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {}}]}"#;

struct Service {
    child: Child,
    // Searched after the child is killed.
    _log: SearchedLog,
}

impl Service {
    fn start(sandbox: &Sandbox) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", START, env!("CARGO_BIN_EXE_paygress")]);
        command.env_clear().envs(&sandbox.environment);
        let log = NamedTempFile::new().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.reopen().unwrap());
        let log = SearchedLog::new(log.into_file(), &sandbox.environment);
        Self { child: command.spawn().unwrap(), _log: log }
    }

    /// The soft and the hard limit.
    fn limits(&self) -> [String; 2] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut fields = line.split_whitespace().map(str::to_owned);
        [fields.next().unwrap(), fields.next().unwrap()]
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(service: SocketAddr, from: Ipv4Addr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(service).await.ok()
}

async fn is_answered(service: SocketAddr, from: Ipv4Addr) -> bool {
    let Some(mut stream) = connect(service, from).await else { return false };
    let mut status = [0; 12];
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok()
        && stream.read_exact(&mut status).await.is_ok()
        && &status == b"HTTP/1.1 200"
}

/// How long a connection may take to send its head.
const HEAD: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_the_service_file_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let service = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let bind = service.to_string();
    let settings = [("BIND_ADDR", bind.as_str()), ("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let sandbox = Sandbox::new(&settings, "").await.unwrap();
    let running = Service::start(&sandbox);
    until("it does not serve", async || {
        is_answered(service, Ipv4Addr::LOCALHOST).await.then_some(())
    })
    .await;
    let [soft, hard] = running.limits();
    assert_eq!(soft, hard);

    let mut more_tries = 0..2;
    loop {
        let begun = Instant::now();
        // No address and no network has more than its share.
        let mut held = Vec::new();
        for network in 20..30 {
            for _ in 0..32 {
                held.push(connect(service, Ipv4Addr::new(127, 0, network, 1)).await.unwrap());
            }
        }
        let newcomer = is_answered(service, Ipv4Addr::new(127, 40, 0, 1));
        assert!(timeout(TIMEOUT, newcomer).await.expect("a newcomer is answered"));
        // So it has not waited until the service gave up one of these.
        let is_open = |stream: &TcpStream| {
            let read = stream.try_read(&mut [0]);
            read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        let are_open = held.iter().all(is_open);
        // On a busy machine their time may be over.
        if are_open || begun.elapsed() < HEAD || more_tries.next().is_none() {
            assert!(are_open, "some were cut off");
            return;
        }
    }
}
