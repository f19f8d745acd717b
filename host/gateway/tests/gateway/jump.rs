//! The jump host, with russh as the client.

use crate::support::{LONG, PORT, Pods, Running, SECRET, alice, bob, silent, until};
use paygress_core::model::ids::PodName;
use paygress_gateway::{GatewayHostKey, JumpHost, Rejection, Way};
use paygress_sshd::new_host_key;
use russh::client::{Config, Handle, Handler, KeyboardInteractiveAuthResponse, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, ChannelOpenFailure, Disconnect, Error, Preferred, kex};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Any host key will do.
pub(crate) struct AnyServer;

impl Handler for AnyServer {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }
}

async fn start() -> (SocketAddr, Running) {
    start_before(Pods::default()).await
}

async fn start_before(pods: Pods) -> (SocketAddr, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let key = GatewayHostKey::generate().unwrap();
    let jump_host = JumpHost::new(listener, key);
    (address, Running::start_before(pods, |gateway| gateway.with_jump_host(jump_host)))
}

async fn connect(address: SocketAddr) -> Handle<AnyServer> {
    let stream = TcpStream::connect(address).await.unwrap();
    russh::client::connect_stream(Arc::new(Config::default()), stream, AnyServer).await.unwrap()
}

pub(crate) async fn by_secret(
    address: SocketAddr,
    pod: &PodName,
    secret: &str,
) -> Option<Handle<AnyServer>> {
    logged_in(connect(address).await, pod, secret).await
}

async fn logged_in(
    mut client: Handle<AnyServer>,
    pod: &PodName,
    secret: &str,
) -> Option<Handle<AnyServer>> {
    let result = client.authenticate_password(pod.as_str(), secret).await.unwrap();
    result.success().then_some(client)
}

async fn by_key(address: SocketAddr, pod: &PodName, key: &PrivateKey) -> Option<Handle<AnyServer>> {
    let mut client = connect(address).await;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
    let result = client.authenticate_publickey(pod.as_str(), key).await.unwrap();
    result.success().then_some(client)
}

pub(crate) async fn forward(
    client: &Handle<AnyServer>,
    host: &str,
    port: u32,
) -> Result<Channel<Msg>, Error> {
    client.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await
}

/// Sends so many bytes, and gets them back.
pub(crate) async fn echoes(channel: Channel<Msg>, bytes: usize) {
    let (mut read, mut write) = tokio::io::split(channel.into_stream());
    let sent: Vec<u8> = (0_u8..=255).cycle().take(bytes).collect();
    let mut received = vec![0; bytes];
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
    };
    let (received_all, ()) = tokio::join!(read.read_exact(&mut received), send);
    received_all.unwrap();
    assert!(received == sent, "{bytes} bytes come back as they were");
}

fn refusal(result: Result<Channel<Msg>, Error>) -> ChannelOpenFailure {
    match result {
        Err(Error::ChannelOpenFailure(failure)) => failure,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the channel was opened"),
    }
}

#[tokio::test]
async fn a_lease_s_key_or_secret_reaches_its_pod() {
    let (address, gateway) = start().await;
    let key = new_host_key().unwrap();
    gateway.leases.add(bob(), vec![key.public_key().clone()], None);

    let client = by_secret(address, &alice(), SECRET).await.unwrap();
    for (host, port) in [(alice().as_str(), 22), ("localhost", u32::from(PORT))] {
        echoes(forward(&client, host, port).await.unwrap(), 20).await;
    }
    let client = by_key(address, &bob(), &key).await.unwrap();
    echoes(forward(&client, bob().as_str(), 22).await.unwrap(), 3 << 20).await;

    assert_eq!(gateway.counts.sessions(Way::JumpHost), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_has_only_slow_key_exchanges_is_refused() {
    let (address, gateway) = start().await;
    for slow in [kex::DH_G18_SHA512, kex::DH_G16_SHA512, kex::DH_GEX_SHA256] {
        let preferred = Preferred { kex: vec![slow].into(), ..Preferred::default() };
        let config = Arc::new(Config { preferred, ..Config::default() });
        let stream = TcpStream::connect(address).await.unwrap();
        let refused = russh::client::connect_stream(config, stream, AnyServer).await.err();
        let is_negotiated =
            matches!(refused, Some(Error::NoCommonAlgo { kind: AlgorithmKind::Kex, .. }));
        assert!(is_negotiated, "{slow:?}: {refused:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_secret_may_be_typed() {
    let (address, gateway) = start().await;
    let mut client = connect(address).await;
    let user = alice().to_string();
    let asks = client.authenticate_keyboard_interactive_start(user, None::<String>).await.unwrap();
    assert!(matches!(asks, KeyboardInteractiveAuthResponse::InfoRequest { .. }));
    let answer = vec![SECRET.to_owned()];
    let result = client.authenticate_keyboard_interactive_respond(answer).await.unwrap();
    assert!(matches!(result, KeyboardInteractiveAuthResponse::Success));
    echoes(forward(&client, alice().as_str(), 22).await.unwrap(), 20).await;
    gateway.stop().await;
}

#[tokio::test]
async fn nobody_else_s_key_or_secret_does() {
    let (address, gateway) = start().await;
    let (own, other) = (new_host_key().unwrap(), new_host_key().unwrap());
    gateway.leases.add(alice(), vec![own.public_key().clone()], None);
    gateway.leases.add(bob(), vec![other.public_key().clone()], Some("battery staple"));

    assert!(by_key(address, &alice(), &other).await.is_none());
    assert!(by_secret(address, &alice(), "battery staple").await.is_none());
    assert!(by_secret(address, &alice(), "").await.is_none(), "a lease without a secret");
    gateway.leases.end(&bob());
    assert!(by_key(address, &bob(), &other).await.is_none(), "its lease has ended");
    assert_eq!(gateway.counts.rejections(Rejection::Credentials), 2);
    assert_eq!(gateway.counts.sessions(Way::JumpHost), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_gets_nothing_but_its_pod_s_ssh_port() {
    let (address, gateway) = start().await;
    let client = by_secret(address, &alice(), SECRET).await.unwrap();
    for (host, port) in [
        (bob().as_str(), 22),
        ("10.96.0.1", 443),
        ("169.254.169.254", 22),
        (alice().as_str(), 80),
        ("localhost", u32::from(address.port())),
    ] {
        let failure = refusal(forward(&client, host, port).await);
        assert_eq!(failure.code(), 1, "{host}:{port}: {failure:?}");
    }
    assert_eq!(refusal(client.channel_open_session().await).code(), 1);
    assert!(client.tcpip_forward("127.0.0.1", 0).await.is_err(), "no listener");
    assert_eq!(gateway.counts.rejections(Rejection::NotPermitted), 6);
    echoes(forward(&client, alice().as_str(), 22).await.unwrap(), 20).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_pod_that_does_not_answer_is_a_failed_connection() {
    let (address, gateway) = start().await;
    let client = by_secret(address, &silent(), SECRET).await.unwrap();
    assert_eq!(refusal(forward(&client, silent().as_str(), 22).await).code(), 2);
    assert_eq!(gateway.counts.rejections(Rejection::Unreachable), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn the_end_of_a_lease_cuts_its_sessions_and_no_others() {
    let (address, gateway) = start().await;
    let (ending, staying) = (alice(), bob());
    let cut = by_secret(address, &ending, SECRET).await.unwrap();
    let mut stream = forward(&cut, ending.as_str(), 22).await.unwrap().into_stream();
    let kept = by_secret(address, &staying, SECRET).await.unwrap();
    let channel = forward(&kept, staying.as_str(), 22).await.unwrap();

    gateway.leases.end(&ending);
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is cut");
    assert!(rest.is_empty());
    let _ = tokio::time::timeout(LONG, cut).await.expect("and its connection");
    echoes(channel, 20).await;
    until("one is open", || gateway.counts.open_sessions(Way::JumpHost) == 1).await;
    assert!(by_secret(address, &ending, SECRET).await.is_none());
    gateway.stop().await;
}

/// The way to a server of a client that may end at any time. A socket that is closed before all is
/// read is reset, and then what it has sent may be lost: this one is read to its end.
async fn read_to_the_end(address: SocketAddr) -> DuplexStream {
    let (client, pipe) = tokio::io::duplex(64 << 10);
    let mut stream = TcpStream::connect(address).await.unwrap();
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = tokio::io::split(pipe);
        let (mut from_server, mut to_server) = stream.split();
        let sent = async {
            let _ = copy(&mut from_client, &mut to_server).await;
            let _ = to_server.shutdown().await;
        };
        let received = async {
            let _ = copy(&mut from_server, &mut to_client).await;
            let _ = copy(&mut from_server, &mut tokio::io::sink()).await;
        };
        tokio::join!(sent, received);
    });
    client
}

/// How a client is done with a channel that it has just written to.
#[derive(Clone, Copy, Debug)]
enum End {
    Channel,
    Connection,
}

/// As with OpenSSH's server.
#[tokio::test]
async fn a_pod_gets_all_that_was_sent_before_the_end() {
    /// More than a socket takes at once, and less than the window of a channel.
    const BYTES: usize = 768 << 10;
    /// So many that what happens rarely happens to one of them.
    const TIMES: usize = 16;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pods = Pods::of([(alice(), pod.local_addr().unwrap())]);
    let (address, gateway) = start_before(pods).await;
    for end in [End::Channel, End::Connection].into_iter().cycle().take(2 * TIMES) {
        let stream = read_to_the_end(address).await;
        let client = russh::client::connect_stream(Arc::default(), stream, AnyServer).await;
        let client = logged_in(client.unwrap(), &alice(), SECRET).await.unwrap();
        let channel = forward(&client, alice().as_str(), 22).await.unwrap();
        channel.data_bytes(vec![b'x'; BYTES]).await.unwrap();
        match end {
            End::Channel => channel.close().await.unwrap(),
            End::Connection => {
                client.disconnect(Disconnect::ByApplication, "", "en").await.unwrap();
            }
        }
        let (mut stream, _) = pod.accept().await.unwrap();
        let mut received = Vec::new();
        let read = tokio::time::timeout(LONG, stream.read_to_end(&mut received)).await;
        assert_eq!(read.expect("it ends").unwrap(), BYTES, "{end:?}");
    }
    until("the sessions end", || gateway.counts.open_sessions(Way::JumpHost) == 0).await;
    gateway.stop().await;
}

/// Comes from this address, and stays until the server has begun the handshake, or dropped it.
async fn begins_handshake(address: SocketAddr, source: [u8; 4]) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let _ = stream.write_all(b"SSH-2.0-flood\r\n").await;
    let mut read = Vec::new();
    loop {
        let greeting = read.windows(2).position(|bytes| bytes == b"\r\n");
        if greeting.is_some_and(|end| read.len() > end.saturating_add(2)) {
            return true;
        }
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return false;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_has_the_rate_of_its_address_and_locks_nobody_out() {
    const AT_ONCE: u32 = 256;
    const A_SECOND: u32 = 32;
    let (address, gateway) = start().await;
    let (own, elsewhere) = ([127, 0, 0, 1], [127, 0, 1, 7]);
    let begun = Instant::now();
    for _ in 0..AT_ONCE + A_SECOND {
        assert!(begins_handshake(address, own).await, "nobody is dropped");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");

    let mut flood: JoinSet<()> = JoinSet::new();
    for _ in 0..4 {
        flood.spawn(async move {
            loop {
                begins_handshake(address, own).await;
            }
        });
    }
    for source in [elsewhere, own] {
        let begun = tokio::time::timeout(LONG, begins_handshake(address, source)).await;
        assert!(begun.expect("it is not locked out"), "{source:?}");
    }
    let alice = alice();
    let login = tokio::time::timeout(LONG, by_secret(address, &alice, SECRET));
    let client = login.await.expect("nor is a customer of the same address").unwrap();
    flood.shutdown().await;
    echoes(forward(&client, alice.as_str(), 22).await.unwrap(), 20).await;
    gateway.stop().await;
}

/// All come from one address, the customer's too.
#[tokio::test]
async fn a_crowd_that_does_not_log_in_leaves_it_serving() {
    const CROWD: usize = 200;
    const SHARE: usize = 64;
    let (address, gateway) = start().await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    let client = by_secret(address, &alice(), SECRET).await.unwrap();
    echoes(forward(&client, alice().as_str(), 22).await.unwrap(), 20).await;
    let dropped = u64::try_from(CROWD - SHARE).unwrap();
    until("the others are dropped", || {
        gateway.counts.rejections(Rejection::NotAuthenticated) >= dropped
    })
    .await;
    drop(crowd);
    gateway.stop().await;
}

/// Opens idle connections, of the address of all here, until more have lost their place to others than
/// there are places.
async fn open_idle(address: SocketAddr, gateway: &Running) {
    const SHARE: u64 = 64;
    let dropped = || gateway.counts.rejections(Rejection::NotAuthenticated);
    let before = dropped();
    let mut idle = Vec::new();
    for _ in 0..3 * SHARE {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    until("most are dropped", || dropped() >= before.saturating_add(2 * SHARE)).await;
}

/// Source NAT gives others the customer's address, and they connect again and again while the customer
/// logs in.
#[tokio::test]
async fn a_login_goes_on_while_idle_connections_of_its_address_take_all_places() {
    let (address, gateway) = start().await;
    open_idle(address, &gateway).await;
    let mut client = connect(address).await;
    for secret in ["battery staple", SECRET] {
        open_idle(address, &gateway).await;
        let result = client.authenticate_password(alice().as_str(), secret).await.unwrap();
        assert_eq!(result.success(), secret == SECRET, "{secret}");
    }
    open_idle(address, &gateway).await;
    echoes(forward(&client, alice().as_str(), 22).await.unwrap(), 20).await;
    gateway.stop().await;
}
