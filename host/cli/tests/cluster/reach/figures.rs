//! How fast the ways to a pod are, beside a port of its node in the same run: `cargo xtask cluster
//! reach`.

use super::networks::{PUBLIC, Protocol, ROUTER};
use super::programs::{BRIDGE, Program, Settings, raise_file_limit};
use super::session::{Client, NoSession, Pod, Session, Way};
use super::{IROH_PORT, SSH_PORT, ServedBy, Setup, Site};
use crate::goal::Goal;
use crate::machines::SERVER;
use crate::support::testbed::{CLUSTER, GatewayDaemon};
use std::fmt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// `cargo xtask cluster reach` sets it.
const REQUESTED: &str = "REACH_FIGURES";
/// A whole core: with a tenth of one, the tier's limit would be measured.
const TIER: &str = "id = \"core\", cpu_millicores = 1000, memory_mib = 128";
/// Of which the node has two.
const OVERCOMMIT: (&str, &str) = ("POD_CPU_OVERCOMMIT", "8");
/// 2500 seconds after the mint's fee.
const LEASE: u64 = 501;
const PODS: usize = 8;
const SESSIONS: usize = 200;
const LOGINS: usize = 11;
const BYTES: u64 = 200_000_000;
const MEGABYTES: f64 = 200.0;
const ROUND_TRIPS: usize = 20;
/// What each of the sessions sends and gets back when all do at once.
const PIECE: usize = 500_000;
const PIECES_MEGABYTES: f64 = 100.0;
/// The gateway refuses what comes too often; a session is tried again until then.
const LIMIT: Duration = Duration::from_secs(180);
const AGAIN: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// By TCP: the pod's port at its node.
    HostPort,
    JumpHost,
    IrohDirect,
    IrohRelayed,
}

const ROUTES: [Route; 4] =
    [Route::HostPort, Route::JumpHost, Route::IrohDirect, Route::IrohRelayed];

impl Route {
    fn name(self) -> &'static str {
        match self {
            Self::HostPort => "host port",
            Self::JumpHost => "jump host",
            Self::IrohDirect => "iroh direct",
            Self::IrohRelayed => "iroh relayed",
        }
    }

    fn way(self) -> Way {
        match self {
            Self::HostPort => Way::HostPort,
            Self::JumpHost => Way::JumpHost,
            Self::IrohDirect | Self::IrohRelayed => Way::Iroh,
        }
    }
}

struct Figures {
    /// Of one login after the other, the median.
    login: Duration,
    /// Until all bytes were there.
    transfer: Duration,
    /// Until all sessions were open.
    opened: Duration,
    /// A character and back in all of them at once.
    median: Duration,
    slow: Duration,
    /// As much as each may, in all of them at once.
    all: Duration,
    /// With all of them, in which characters were typed.
    typed: Memory,
    /// After each of them had as much as it may.
    copied: Memory,
}

/// Of the gateway's process, in kibibytes.
struct Memory {
    resident: u64,
    /// Of it, what it has written…
    anonymous: u64,
    /// …and pages of files, most of all of the program, which the kernel may drop.
    files: u64,
}

impl Memory {
    fn of(gateway: &GatewayDaemon) -> Self {
        let names = ["VmRSS:", "RssAnon:", "RssFile:"];
        let [resident, anonymous, files] = names.map(|name| gateway.memory(name));
        Self { resident, anonymous, files }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = [self.resident, self.anonymous, self.files].map(megabytes);
        let [resident, anonymous, files] = of;
        write!(f, "{resident:.1} MB ({anonymous:.1} anonymous, {files:.1} of files)")
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn login(pod: &Pod, way: Way) -> Duration {
    let started = Instant::now();
    pod.run(way, "true");
    started.elapsed()
}

/// How long it takes to get [`BYTES`], the login included.
fn transfer(pod: &Pod, way: Way) -> Duration {
    let started = Instant::now();
    let mut ssh = pod.ssh(&pod.client(way), &format!("head -c {BYTES} /dev/zero"));
    let mut client = ssh.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = client.stdout.take().unwrap();
    let received = std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let took = started.elapsed();
    assert!(client.wait().unwrap().success());
    assert_eq!(received, BYTES, "{way:?}");
    took
}

/// What logs in to this pod many times: by iroh one process in the place of as many.
fn command(pod: &Pod, way: Way, bridge: Option<&mut Program>) -> String {
    match bridge {
        Some(bridge) => {
            let (name, port) = (pod.name(), bridge.value(pod.name()));
            format!("ssh -o HostKeyAlias={name} -p {port} alice@127.0.0.1")
        }
        None => pod.client(way).command.to_owned(),
    }
}

fn session(pod: &Pod, client: &Client<'_>) -> Session {
    let started = Instant::now();
    loop {
        match pod.try_session(client) {
            Ok(session) => return session,
            Err(NoSession(shown)) => assert!(started.elapsed() < LIMIT, "{shown}"),
        }
        thread::sleep(AGAIN);
    }
}

/// As many with each pod, one after the other, and with all pods at the same time.
fn sessions(pods: &[Pod], way: Way, commands: &[String]) -> Vec<Session> {
    thread::scope(|scope| {
        let opening: Vec<_> = pods
            .iter()
            .zip(commands)
            .map(|(pod, command)| {
                scope.spawn(move || {
                    let client = Client { command, ..pod.client(way) };
                    let opened = std::iter::repeat_with(|| session(pod, &client));
                    opened.take(SESSIONS / PODS).collect::<Vec<_>>()
                })
            })
            .collect();
        opening.into_iter().flat_map(|opened| opened.join().unwrap()).collect()
    })
}

/// How long each takes, in all sessions at once.
fn echoes(sessions: &mut [Session], bytes: &[u8], times: usize) -> Vec<Duration> {
    thread::scope(|scope| {
        let echoing: Vec<_> = sessions
            .iter_mut()
            .map(|session| {
                let echo = move || session.echoes(bytes);
                scope.spawn(move || std::iter::repeat_with(echo).take(times).collect::<Vec<_>>())
            })
            .collect();
        echoing.into_iter().flat_map(|echoed| echoed.join().unwrap()).collect()
    })
}

fn measure(site: &Site, pods: &[Pod], gateway: &GatewayDaemon, route: Route) -> Figures {
    let way = route.way();
    let login = median((0..LOGINS).map(|_| login(&pods[0], way)).collect());
    let transfer = transfer(&pods[0], way);
    let mut bridge = (way == Way::Iroh).then(|| {
        let ticket = pods[0].way(way)["ticket"].as_str().unwrap();
        let settings = Settings { ticket, ..Settings::default() };
        Program::start(BRIDGE, &site.networks.customer(), &settings)
    });
    let commands: Vec<String> = pods.iter().map(|pod| command(pod, way, bridge.as_mut())).collect();
    let started = Instant::now();
    let mut sessions = sessions(pods, way, &commands);
    let opened = started.elapsed();
    assert_eq!(sessions.len(), SESSIONS, "{route:?}");
    let mut times = echoes(&mut sessions, b"x", ROUND_TRIPS);
    times.sort_unstable();
    let typed = Memory::of(gateway);
    let started = Instant::now();
    echoes(&mut sessions, &vec![7; PIECE], 1);
    let all = started.elapsed();
    let copied = Memory::of(gateway);
    // All are there to the end.
    echoes(&mut sessions, b"x", 1);
    let (median, slow) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    Figures { login, transfer, opened, median, slow, all, typed, copied }
}

fn print(route: Route, of: &Figures, tcp: &Figures) {
    println!(
        "{:<12} {:>7.0?} ×{:.2} {:>7.1} MB/s {:>4.0} % {:>8.1?} {:>9.1?} ×{:<4.1} {:>9.1?} {:>6.1} MB/s  {}, {}",
        route.name(),
        of.login,
        of.login.div_duration_f64(tcp.login),
        MEGABYTES / of.transfer.as_secs_f64(),
        100.0 * tcp.transfer.div_duration_f64(of.transfer),
        of.opened,
        of.median,
        of.median.div_duration_f64(tcp.median),
        of.slow,
        PIECES_MEGABYTES / of.all.as_secs_f64(),
        of.typed,
        of.copied,
    );
}

fn megabytes(kibibytes: u64) -> f64 {
    f64::from(u32::try_from(kibibytes).unwrap()) * 1_024.0 / 1e6
}

fn print_goals(all: &[Figures]) {
    let [tcp, jump, direct, relayed] = all else { panic!("{} ways", all.len()) };
    let login = |of: &Figures| of.login.div_duration_f64(tcp.login);
    let speed = |of: &Figures| tcp.transfer.div_duration_f64(of.transfer);
    let of_all = [jump, direct, relayed].into_iter().flat_map(|of| [&of.typed, &of.copied]);
    let most = of_all.map(|memory| memory.resident).max().unwrap();
    Goal::AtMost(1.1).print("a login by iroh directly, to one by TCP", login(direct));
    Goal::AtLeast(0.75).print("200 MB directly, to TCP", speed(direct));
    Goal::AtLeast(0.55).print("200 MB by a relay, to TCP", speed(relayed));
    Goal::AtMost(40.0).print("MB of the gateway with 200 sessions", megabytes(most));
}

#[test]
#[ignore = "figures: run `cargo xtask cluster reach`"]
fn figures() {
    if std::env::var_os(REQUESTED).is_none() {
        println!("NOT RUN: the figures; `cargo xtask cluster reach` prints them");
        return;
    }
    let _alone = CLUSTER.lock();
    raise_file_limit();
    let setup = Setup {
        tier: TIER,
        shared: &[("ACCESS", "host-port,gateway"), ("SSH_SERVER_IMAGE", SERVER), OVERCOMMIT],
        own: &[],
        ..Setup::new("reach-figures", ServedBy::Process)
    };
    let mut site = Site::start(&setup);
    let _ports = site.networks.forward(Protocol::Tcp, "20100:20199");
    let _tcp = site.networks.forward(Protocol::Tcp, &SSH_PORT.to_string());
    let mut udp = Some(site.networks.forward(Protocol::Udp, &IROH_PORT.to_string()));
    let gateway = site.testbed.start_gateway();
    site.wait_for_relay();
    let pods: Vec<Pod> = (0..PODS).map(|_| site.buy(LEASE)).collect();
    println!(
        "the node is {ROUTER}, relays are at {PUBLIC}; {SESSIONS} sessions with {PODS} pods; the gateway's \
         memory without any: {}",
        Memory::of(&gateway)
    );
    println!(
        "             one login     200 MB, of TCP   200 open  a character  of 100, one  all at once   gateway's memory, and after these copies"
    );
    let mut all: Vec<Figures> = Vec::new();
    for route in ROUTES {
        if route == Route::IrohRelayed {
            udp = None;
        }
        let before = site.relay().number("bytes");
        let figures = measure(&site, &pods, &gateway, route);
        let relayed = site.relay().number("bytes") - before;
        match route {
            Route::IrohRelayed => assert!(relayed > BYTES, "{relayed} bytes went by the relay"),
            _ => assert!(relayed < BYTES / 10, "{route:?}: {relayed} bytes went by the relay"),
        }
        print(route, &figures, all.first().unwrap_or(&figures));
        all.push(figures);
    }
    drop(udp);
    print_goals(&all);
}
