//! Ten thousand connections that do not log in: the gateway serves on, and its memory is bounded.

use crate::jump::{by_secret, echoes, forward};
use crate::process::{GATEWAY, Process, Settings, raise_file_limit, until};
use crate::support::{SECRET, bob};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const CROWD: usize = 10_000;
/// What else is open here.
const OTHER_FILES: usize = 500;
/// Half of them come from the customer's own address.
const SOURCES: usize = 16;
/// Unauthenticated connections that it has at the same time, at the most.
const WAITING: u64 = 256;
/// What a crowd may cost, in KiB: if each had its 40 kB, it would be 400 MB.
const MEMORY: u64 = 100 << 10;
/// A login may take so much longer than ten without a crowd.
const SLOWER: Duration = Duration::from_secs(2);

/// So many connections, each of which was answered or dropped.
async fn connections(address: SocketAddr, source: Ipv4Addr, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(count);
    let mut greeting = [0; 8];
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let _ = stream.read(&mut greeting).await;
        held.push(stream);
    }
    held
}

async fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut tasks = JoinSet::new();
    for number in 0..SOURCES {
        let source = match number % 2 {
            0 => Ipv4Addr::LOCALHOST,
            _ => Ipv4Addr::new(127, 0, 1, u8::try_from(number).unwrap()),
        };
        tasks.spawn(connections(address, source, count.div_euclid(SOURCES)));
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// How long a login takes, to the first bytes from the pod.
async fn login(address: SocketAddr) -> Duration {
    let started = Instant::now();
    let client = by_secret(address, &bob(), SECRET).await.unwrap();
    echoes(forward(&client, bob().as_str(), 22).await.unwrap(), 20).await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_leave_the_jump_host_serving() {
    let room = raise_file_limit().saturating_sub(OTHER_FILES);
    let is_ci = std::env::var_os("CI").is_some();
    assert!(room >= CROWD || !is_ci, "the limit of open files is too low: {room}");
    let mut gateway = Process::start(GATEWAY, &Settings::default());
    let address = gateway.value("jump").parse().unwrap();
    let (usual, before) = (login(address).await, gateway.memory("VmRSS:"));

    let started = Instant::now();
    let held = crowd(address, CROWD.min(room)).await;
    println!("{} connections in {:?}", held.len(), started.elapsed());
    let during = login(address).await;
    println!("a login takes {usual:?}, and {during:?} meanwhile");
    assert!(during < usual.saturating_mul(10).saturating_add(SLOWER), "{during:?}");

    let dropped = u64::try_from(held.len()).unwrap().saturating_sub(WAITING);
    until(&mut gateway, "not-authenticated", |count| count >= dropped).await;
    let (after, most) = (gateway.memory("VmRSS:"), gateway.memory("VmHWM:"));
    println!("the gateway's memory: {before} KiB before, {most} at most, {after} with the crowd");
    assert!(most.saturating_sub(before) < MEMORY, "{most} KiB");
    drop(held);
}
