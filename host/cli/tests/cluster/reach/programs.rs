//! Processes in other networks: a relay of iroh, a crowd that does not log in, and ports that lead to
//! pods by the customer's client.

use crate::support::testbed::in_namespace;
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use paygress_core::model::ids::PodName;
use paygress_gateway::GatewayTicket;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

pub(super) const RELAY: &str = "reach::programs::relay";
pub(super) const CROWD: &str = "reach::programs::crowd";
pub(super) const BRIDGE: &str = "reach::programs::bridge";

/// Without it those below do nothing: they are no tests.
const PROGRAM: &str = "REACH_PROGRAM";
const ADDRESS: &str = "REACH_ADDRESS";
const SOURCES: &str = "REACH_SOURCES";
const COUNT: &str = "REACH_COUNT";
const TICKET: &str = "REACH_TICKET";

/// Much longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// What a program gets; all of it may be absent.
#[derive(Default)]
pub(super) struct Settings<'a> {
    /// Where a relay listens, or what a crowd connects to.
    pub(super) address: &'a str,
    /// A crowd's own addresses, separated by commas.
    pub(super) sources: &'a str,
    /// How many a crowd is.
    pub(super) count: usize,
    /// The gateway, for a bridge.
    pub(super) ticket: &'a str,
}

/// One of the processes below. It ends with this, or with its standard input.
pub(super) struct Program {
    child: Child,
    input: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it in this network namespace.
    pub(super) fn start(part: &str, namespace: &str, settings: &Settings<'_>) -> Self {
        let mut command = in_namespace(Some(namespace), std::env::current_exe().unwrap());
        command.args(["--exact", part, "--ignored", "--nocapture"]).env(PROGRAM, part);
        command.env(ADDRESS, settings.address).env(SOURCES, settings.sources);
        command.env(COUNT, settings.count.to_string()).env(TICKET, settings.ticket);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, lines) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, lines: BufReader::new(lines) }
    }

    /// The value of this name, as it is now.
    pub(super) fn value(&mut self, name: &str) -> String {
        writeln!(self.input, "{name}").unwrap();
        // What the test program prints itself may stand before it, on the same line.
        let mark = format!("@{name} ");
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Some((_, value)) = line.split_once(&mark) {
                return value.trim().to_owned();
            }
            line.clear();
        }
        panic!("the process ended before it printed {name}");
    }

    pub(super) fn number(&mut self, name: &str) -> u64 {
        self.value(name).parse().unwrap()
    }

    /// By SIGKILL.
    pub(super) fn kill(self) {
        drop(self);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As many open files as this process may have, for what it starts too.
pub(super) fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn is_started(part: &str) -> bool {
    std::env::var(PROGRAM).is_ok_and(|started| started == part)
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// Prints what is requested, until there is nobody any more. Its thread is none of those that serve.
fn answer(value: impl Fn(&str) -> String) {
    for name in std::io::stdin().lines() {
        let name = name.unwrap();
        println!("@{name} {}", value(&name));
    }
}

/// Not a test: a relay without TLS.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests as a process"]
async fn relay() {
    if !is_started(RELAY) {
        return;
    }
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(setting(ADDRESS).parse::<SocketAddr>().unwrap()));
    let server = Server::spawn(config).await.unwrap();
    answer(|name| match name {
        "clients" => server.metrics().server.accepts.get().to_string(),
        "bytes" => server.metrics().server.bytes_sent.get().to_string(),
        other => panic!("a relay has no {other}"),
    });
}

/// So many connections, each of which was answered or dropped.
async fn connections(address: SocketAddr, source: IpAddr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::with_capacity(count);
    let mut greeting = [0; 8];
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let _ = tokio::time::timeout(LONG, stream.read(&mut greeting)).await;
        open.push(stream);
    }
    open
}

/// Not a test: connections that do not log in.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests as a process"]
async fn crowd() {
    if !is_started(CROWD) {
        return;
    }
    raise_file_limit();
    let address = setting(ADDRESS).parse().unwrap();
    let sources: Vec<IpAddr> =
        setting(SOURCES).split(',').map(|source| source.parse().unwrap()).collect();
    let each = setting(COUNT).parse::<usize>().unwrap().div_ceil(sources.len());
    let mut tasks = JoinSet::new();
    for source in sources {
        tasks.spawn(connections(address, source, each));
    }
    let open: Vec<TcpStream> = tasks.join_all().await.into_iter().flatten().collect();
    answer(|name| match name {
        "opened" => open.len().to_string(),
        other => panic!("a crowd has no {other}"),
    });
}

/// Not a test: ports of 127.0.0.1 that lead to pods, each connection by a client of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests as a process"]
async fn bridge() {
    if !is_started(BRIDGE) {
        return;
    }
    raise_file_limit();
    let ticket: GatewayTicket = setting(TICKET).parse().unwrap();
    answer(|name| {
        let pod = PodName::parse(name).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(accept(listener, ticket.clone(), pod));
        port.to_string()
    });
}

async fn accept(listener: TcpListener, ticket: GatewayTicket, pod: PodName) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(carry(stream, ticket.clone(), pod.clone()));
    }
}

async fn carry(stream: TcpStream, ticket: GatewayTicket, pod: PodName) {
    stream.set_nodelay(true).unwrap();
    let (read, write) = stream.into_split();
    if let Ok(tunnel) = Box::pin(paygress_gateway::connect(&ticket, &pod)).await {
        let _ = Box::pin(tunnel.run(read, write, pending())).await;
    }
}
