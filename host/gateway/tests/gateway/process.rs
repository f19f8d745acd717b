//! Gateways, relays and clients in processes of their own: they can be killed, have a memory and
//! files of their own, and may run in another network.

use crate::pods::SshPod;
use crate::relay;
use crate::support::{Pods, Running, alice};
use paygress_core::model::secret::Secret;
use paygress_gateway::{
    EndpointKey, EndpointOptions, GatewayHostKey, GatewayTicket, IrohEndpoint, JumpHost, Rejection,
    connect, proxy_command,
};
use paygress_sshd::parse_keys;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt::Display;
use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::net::{TcpListener, TcpStream};

pub(crate) const GATEWAY: &str = "process::gateway";
pub(crate) const RELAY: &str = "process::relay";
pub(crate) const CLIENT: &str = "process::client";
const PROXY: &str = "process::proxy";

/// Without it those below do nothing: they are no tests.
const PROCESS: &str = "GATEWAY_TEST_PROCESS";
const KEY: &str = "GATEWAY_TEST_KEY";
const UDP: &str = "GATEWAY_TEST_UDP";
const RELAYS: &str = "GATEWAY_TEST_RELAY";
const POD_KEY: &str = "GATEWAY_TEST_POD_KEY";
const LISTEN: &str = "GATEWAY_TEST_LISTEN";
const TICKET: &str = "GATEWAY_TEST_TICKET";

/// What a process gets; all of it may be absent.
#[derive(Default)]
pub(crate) struct Settings<'a> {
    /// The network namespace; none: that of the test.
    pub(crate) network: Option<&'a str>,
    /// A gateway's: its endpoint's key, its UDP address, its relay, and whose key the pod accepts.
    pub(crate) key: &'a str,
    pub(crate) udp: &'a str,
    pub(crate) relay: &'a str,
    pub(crate) pod_key: &'a str,
    /// A relay's.
    pub(crate) listen: &'a str,
    /// A client's.
    pub(crate) ticket: &'a str,
}

/// One of the processes below. It ends with this, or with its standard input.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(part: &str, settings: &Settings<'_>) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = match settings.network {
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/var/run/netns/{network}")).arg(own);
                command
            }
            None => Command::new(own),
        };
        command.args(["--exact", part, "--ignored", "--nocapture"]).env(PROCESS, "yes");
        for (name, value) in [
            (KEY, settings.key),
            (UDP, settings.udp),
            (RELAYS, settings.relay),
            (POD_KEY, settings.pod_key),
            (LISTEN, settings.listen),
            (TICKET, settings.ticket),
        ] {
            command.env(name, value);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, lines) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, lines: BufReader::new(lines) }
    }

    /// The value of this name, as it is now.
    pub(crate) fn value(&mut self, name: &str) -> String {
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

    pub(crate) fn number(&mut self, name: &str) -> u64 {
        self.value(name).parse().unwrap()
    }

    /// Kibibytes, by this name in `/proc/PID/status`.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
    }

    /// By SIGKILL.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// As many open files as this process may have.
pub(crate) fn raise_file_limit() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// A setting, if it is there.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Prints what is requested, until there is nobody any more.
async fn answer(mut value: impl FnMut(&str) -> String) {
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(name)) = lines.next_line().await {
        println!("@{name} {}", value(&name));
    }
}

fn unknown(name: impl Display) -> String {
    panic!("there is no {name} here")
}

/// Not a test: a gateway with both ways, before Alice's pod with the real SSH server.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests as a process"]
async fn gateway() {
    if setting(PROCESS).is_none() {
        return;
    }
    raise_file_limit();
    let pod = SshPod::start(parse_keys(&setting(POD_KEY).unwrap_or_default()).unwrap()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jump = listener.local_addr().unwrap();
    let jump_host = JumpHost::new(listener, GatewayHostKey::generate().unwrap());
    let key = match setting(KEY) {
        Some(key) => EndpointKey::parse(&Secret::new(key)).unwrap(),
        None => EndpointKey::generate(),
    };
    let mut options = EndpointOptions::new(key);
    options.udp = setting(UDP).map(|address| address.parse().unwrap()).into_iter().collect();
    options.relays = setting(RELAYS).map(|relay| relay.parse().unwrap()).into_iter().collect();
    let endpoint = IrohEndpoint::bind(options).await.unwrap();
    let served = endpoint.clone();
    let running = Running::start_before(Pods::of([(alice(), pod.address)]), |gateway| {
        gateway.with_jump_host(jump_host).with_endpoint(served)
    });
    answer(|name| match name {
        "jump" => jump.to_string(),
        "host-key" => pod.host_key.clone(),
        "ticket" => endpoint.ticket().unwrap().to_string(),
        "not-authenticated" => running.counts.rejections(Rejection::NotAuthenticated).to_string(),
        other => unknown(other),
    })
    .await;
}

/// Not a test: a relay.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests as a process"]
async fn relay() {
    if setting(PROCESS).is_none() {
        return;
    }
    let relay = relay::Relay::start(&setting(LISTEN).unwrap()).await;
    answer(|name| match name {
        "url" => relay.url.clone(),
        "clients" => relay.clients().to_string(),
        "bytes" => relay.bytes().to_string(),
        other => unknown(other),
    })
    .await;
}

/// Not a test: a port of 127.0.0.1 that leads to Alice's pod by the client of this crate.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests as a process"]
async fn client() {
    if setting(PROCESS).is_none() {
        return;
    }
    let ticket: GatewayTicket = setting(TICKET).unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(carry(stream, ticket.clone()));
        }
    });
    answer(|name| match name {
        "port" => port.to_string(),
        other => unknown(other),
    })
    .await;
}

async fn carry(stream: TcpStream, ticket: GatewayTicket) {
    let (read, write) = stream.into_split();
    if let Ok(tunnel) = Box::pin(connect(&ticket, &alice())).await {
        let _ = Box::pin(tunnel.run(read, write, pending())).await;
    }
}

/// A `ProxyCommand`, with pipes in the place of what `ssh` gives it.
pub(crate) fn start_proxy(ticket: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", PROXY, "--ignored", "--nocapture"]);
    command.env(PROCESS, "yes").env(TICKET, ticket);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Not a test: a `ProxyCommand` that leads to Alice's pod.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests as a process"]
async fn proxy() {
    if setting(PROCESS).is_none() {
        return;
    }
    let ticket: GatewayTicket = setting(TICKET).unwrap().parse().unwrap();
    let end = Box::pin(proxy_command(&ticket, &alice())).await;
    let code = i32::from(end.result.is_err());
    end.finish().await;
    // Until whoever has started it has seen what it lets go of.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(code);
}

/// Waits until a number of a process is what is meant.
pub(crate) async fn until(process: &mut Process, name: &str, is_meant: impl Fn(u64) -> bool) {
    let reached = async {
        while !is_meant(process.number(name)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(crate::support::LONG, reached).await.is_ok(), "{name}");
}
