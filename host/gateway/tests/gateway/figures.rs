//! How fast the ways to a pod are, beside plain TCP in the same run. By hand, in release.

use crate::jump::{AnyServer, by_secret, forward};
use crate::openssh::Customer;
use crate::peer::{Peer, Transport};
use crate::pods::SshPod;
use crate::process::raise_file_limit;
use crate::relay::Relay;
use crate::support::{LONG, Pods, Running, SECRET, pod, until};
use paygress_core::model::ids::PodName;
use paygress_gateway::{
    ByteStream, EndpointKey, EndpointOptions, GatewayHostKey, GatewayTicket, IrohEndpoint, JumpHost,
};
use russh::client::{Config, Handle, connect_stream};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const SESSIONS: usize = 200;
/// No lease, address or endpoint has more than it may.
const PODS: [char; 10] = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'];
/// Logins at the same time: fewer than cost somebody a place.
const LOGINS: usize = 8;
const ROUND_TRIPS: usize = 50;
const BYTES: u64 = 200_000_000;
const MEGABYTES: f64 = 200.0;

#[derive(Clone, Copy, Debug)]
enum Route {
    PlainTcp,
    JumpHost,
    IrohDirect,
    IrohRelayed,
}

const ROUTES: [Route; 4] =
    [Route::PlainTcp, Route::JumpHost, Route::IrohDirect, Route::IrohRelayed];

#[derive(Clone, Copy)]
struct Figures {
    logins: Duration,
    median: Duration,
    slow: Duration,
    transfer: Duration,
}

/// `cat` in a pod.
struct Session {
    stream: Box<dyn ByteStream>,
    _ssh: Handle<AnyServer>,
    _jump: Option<Handle<AnyServer>>,
}

struct Site {
    customer: Customer,
    pods: Vec<(PodName, SshPod)>,
    jump: SocketAddr,
    direct: Vec<Arc<Peer>>,
    relayed: Vec<Arc<Peer>>,
    _gateway: Running,
}

/// The endpoint's clients, one for each pod; those without a relay from addresses of their own.
async fn peers(ticket: &GatewayTicket) -> (Vec<Arc<Peer>>, Vec<Arc<Peer>>) {
    let (mut direct, mut relayed) = (Vec::new(), Vec::new());
    for number in (1..).take(PODS.len()) {
        let transport = Transport::Direct(Ipv4Addr::new(127, 0, 1, number));
        direct.push(Arc::new(Peer::new(ticket, transport).await));
        relayed.push(Arc::new(Peer::new(ticket, Transport::Relayed).await));
    }
    (direct, relayed)
}

impl Site {
    async fn start(relay: &Relay) -> Self {
        let customer = Customer::new();
        let mut pods = Vec::new();
        for end in PODS {
            let name = pod(&format!("ssh-pod-figures{end}{end}{end}"));
            pods.push((name, SshPod::start(vec![customer.own.clone()]).await));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let jump = listener.local_addr().unwrap();
        let key = GatewayHostKey::generate().unwrap();
        let mut known = vec![(format!("[127.0.0.1]:{}", jump.port()), key.public_line().unwrap())];
        known.extend(pods.iter().map(|(name, pod)| (name.to_string(), pod.host_key.clone())));
        let known: Vec<(String, &str)> =
            known.iter().map(|(host, line)| (host.clone(), line.as_str())).collect();
        customer.configure(&known, ["publickey"; 2], "own");
        let mut options = EndpointOptions::new(EndpointKey::generate());
        options.udp = vec!["127.0.0.1:0".parse().unwrap()];
        options.relays = vec![relay.url.parse().unwrap()];
        let endpoint = IrohEndpoint::bind(options).await.unwrap();
        let ticket = endpoint.ticket().unwrap();
        let servers = Pods::of(pods.iter().map(|(name, pod)| (name.clone(), pod.address)));
        let gateway = Running::start_before(servers, |gateway| {
            gateway.with_jump_host(JumpHost::new(listener, key)).with_endpoint(endpoint)
        });
        for (name, _) in &pods {
            gateway.leases.add(name.clone(), vec![customer.own.clone()], Some(SECRET));
        }
        until("the gateway is at its relay", || relay.clients() > 0).await;
        let (direct, relayed) = peers(&ticket).await;
        Self { customer, pods, jump, direct, relayed, _gateway: gateway }
    }

    /// A connection to a pod's SSH server, and what it needs to stay open.
    async fn open(
        &self,
        route: Route,
        number: usize,
    ) -> (Box<dyn ByteStream>, Option<Handle<AnyServer>>) {
        let (name, pod) = &self.pods[number];
        match route {
            Route::PlainTcp => {
                let stream = TcpStream::connect(pod.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                (Box::new(stream), None)
            }
            Route::JumpHost => {
                let jump = by_secret(self.jump, name, SECRET).await.unwrap();
                let channel = forward(&jump, name.as_str(), 22).await.unwrap();
                (Box::new(channel.into_stream()), Some(jump))
            }
            Route::IrohDirect => (self.direct[number].open(name).await, None),
            Route::IrohRelayed => (self.relayed[number].open(name).await, None),
        }
    }

    async fn session(self: Arc<Self>, route: Route, number: usize) -> Session {
        let (stream, jump) = self.open(route, number).await;
        let connected = connect_stream(Arc::new(Config::default()), stream, AnyServer);
        let mut ssh = connected.await.unwrap();
        assert!(ssh.authenticate_password("alice", SECRET).await.unwrap().success());
        let channel = ssh.channel_open_session().await.unwrap();
        channel.exec(false, "cat").await.unwrap();
        Session { stream: Box::new(channel.into_stream()), _ssh: ssh, _jump: jump }
    }

    async fn sessions(self: &Arc<Self>, route: Route) -> Vec<Session> {
        let (mut tasks, mut sessions) = (JoinSet::new(), Vec::new());
        for number in (0..PODS.len()).cycle().take(SESSIONS) {
            if tasks.len() >= LOGINS {
                sessions.push(tasks.join_next().await.unwrap().unwrap());
            }
            tasks.spawn(Arc::clone(self).session(route, number));
        }
        sessions.extend(tasks.join_all().await);
        sessions
    }

    /// OpenSSH's client on this way to the first pod.
    async fn client(&self, route: Route) -> Command {
        let (name, pod) = &self.pods[0];
        let mut ssh = self.customer.client("ssh");
        let port = match route {
            Route::JumpHost => {
                ssh.arg("-J").arg(format!("{name}@{}", self.jump)).arg(format!("alice@{name}"));
                return ssh;
            }
            Route::PlainTcp => pod.address.port(),
            Route::IrohDirect => Arc::clone(&self.direct[0]).bridge(name.clone()).await,
            Route::IrohRelayed => Arc::clone(&self.relayed[0]).bridge(name.clone()).await,
        };
        ssh.args(["-o", &format!("HostKeyAlias={name}"), "-p", &port.to_string()]);
        ssh.arg("alice@127.0.0.1");
        ssh
    }

    /// How long it takes to get [`BYTES`].
    async fn transfer(&self, route: Route) -> Duration {
        let mut ssh = self.client(route).await;
        ssh.arg(format!("head -c {BYTES} /dev/zero")).stdout(Stdio::piped());
        let transferred = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let mut child = ssh.spawn().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let bytes = std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
            let took = started.elapsed();
            assert!(child.wait().unwrap().success());
            (bytes, took)
        });
        let (bytes, took) = transferred.await.unwrap();
        assert_eq!(bytes, BYTES, "{route:?}");
        took
    }

    async fn measure(self: &Arc<Self>, route: Route) -> Figures {
        let started = Instant::now();
        let sessions = self.sessions(route).await;
        let logins = started.elapsed();
        let (sessions, mut times) = echoes(sessions, ROUND_TRIPS).await;
        times.sort_unstable();
        let transfer = self.transfer(route).await;
        // All are there to the end.
        let (sessions, _) = echoes(sessions, 1).await;
        assert_eq!(sessions.len(), SESSIONS, "{route:?}");
        let at = |percent: usize| {
            times[times.len().saturating_sub(1).saturating_mul(percent).div_euclid(100)]
        };
        Figures { logins, median: at(50), slow: at(99), transfer }
    }
}

async fn echo(mut session: Session, times: usize) -> (Session, Vec<Duration>) {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        session.stream.write_all(b"x").await.unwrap();
        session.stream.flush().await.unwrap();
        let mut answer = [0];
        let read = session.stream.read_exact(&mut answer);
        tokio::time::timeout(LONG, read).await.expect("an answer").unwrap();
        assert_eq!(answer, *b"x");
        took.push(started.elapsed());
    }
    (session, took)
}

/// One character after the other in all sessions at once.
async fn echoes(sessions: Vec<Session>, times: usize) -> (Vec<Session>, Vec<Duration>) {
    let mut tasks = JoinSet::new();
    for session in sessions {
        tasks.spawn(echo(session, times));
    }
    let (sessions, took): (Vec<Session>, Vec<Vec<Duration>>) =
        tasks.join_all().await.into_iter().unzip();
    (sessions, took.into_iter().flatten().collect())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, by hand in release: docs/testing.md"]
async fn figures() {
    raise_file_limit();
    let relay = Relay::start("127.0.0.1:0").await;
    let site = Arc::new(Site::start(&relay).await);
    println!("{SESSIONS} sessions at once, and 200 MB by OpenSSH's client; × is beside plain TCP");
    let mut plain = None;
    for route in ROUTES {
        let Figures { logins, median, slow, transfer } = site.measure(route).await;
        let (of_median, of_transfer) = *plain.get_or_insert((median, transfer));
        println!(
            "{route:?}: logins {logins:.2?}; a character {median:.2?} (×{:.1}), of a hundred one \
             {slow:.2?}; {:.0} MB/s (×{:.2} of the time)",
            median.div_duration_f64(of_median),
            MEGABYTES / transfer.as_secs_f64(),
            transfer.div_duration_f64(of_transfer),
        );
    }
    let relayed = relay.bytes();
    assert!(relayed > BYTES, "{relayed} bytes went by the relay");
}
