//! Many buyers at once, and clients that would hold everybody up.
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use crate::service::{opened, shared};
use crate::support::command::printed;
use crate::support::customer::{TIMEOUT, until};
use crate::support::web::{Answer, Web};
use crate::text;
use futures::stream::{self, StreamExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const BUYERS: usize = 200;
/// How long the service waits for a body.
const BODY: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_buyers_at_once_each_get_their_pod() {
    // Behind a proxy: each buyer has an address of their own.
    let (sandbox, _running, web, buyer) =
        opened(&[("TRUSTED_PROXIES", "127.0.0.1"), ("REQUESTS_PER_MINUTE", "30")], "").await;
    buyer.wallet.fill(2_000).await.unwrap();
    let mut tokens = Vec::new();
    for _ in 0..BUYERS {
        tokens.push(buyer.token(4).await);
    }
    // And in between clients that would hold everybody up, if they could.
    let (answers, ()) = tokio::join!(buy(&web, tokens), hostile_clients_are_cut_off(&web));
    let pods: HashSet<String> =
        answers.iter().map(|answer| text(&answer.good(), "pod_name").to_owned()).collect();
    assert_eq!(pods.len(), BUYERS, "each buyer has their own pod");

    // The ledger has each order.
    let listed = printed(&sandbox, &["ledger", "list"]).await;
    let is_ours =
        |line: &str| line.contains(" active ") && pods.iter().any(|pod| line.contains(pod));
    assert_eq!(listed.lines().filter(|line| is_ours(line)).count(), BUYERS);
    one_address_sends_so_many_requests(&web).await;
}

/// Each for themselves, at the same time.
async fn buy(web: &Web, tokens: Vec<String>) -> Vec<Answer> {
    let buying = (1..).zip(tokens).map(async |(n, token): (u8, String)| {
        let address = format!("198.51.100.{n}");
        let headers = [("x-forwarded-for", address.as_str()), ("x-cashu", token.as_str())];
        web.ask("POST", "/spawn-pod", &headers, "{}").await
    });
    futures::future::join_all(buying).await
}

/// Whoever has many addresses has no more than their network's share of the connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_full_of_addresses_leaves_room_for_others() {
    let (_shared, web, _buyer) = shared().await;
    let usual = newcomer(&web).await;
    let held = hold_too_many(&web).await;
    println!("6 addresses of one /24 hold {} of 384 connections", held.len());
    assert_eq!(held.len(), 256);
    // A pause of the machine meets one newcomer, and not three.
    let took = [newcomer(&web).await, newcomer(&web).await, newcomer(&web).await];
    println!("another network is answered after {took:?}, before after {usual:?}");
    let longest = Duration::from_secs(2) + 10 * usual;
    assert!(took.iter().any(|took| *took < longest), "{took:?}, before {usual:?}");
    drop(held);
    let begun = Instant::now();
    while connect_from(&web, Ipv4Addr::new(127, 0, 9, 7)).await.is_none() {
        assert!(begun.elapsed() < TIMEOUT, "the network has its connections back");
    }
}

/// How long it takes that somebody of another network is served.
async fn newcomer(web: &Web) -> Duration {
    let begun = Instant::now();
    assert!(connect_from(web, Ipv4Addr::new(127, 0, 10, 1)).await.is_some());
    begun.elapsed()
}

/// More connections of a network than it may have, whose bodies do not come: those that are left.
async fn hold_too_many(web: &Web) -> Vec<TcpStream> {
    let mut more_tries = 0..2;
    loop {
        let begun = Instant::now();
        let opened = (0..384_u16).map(|number| {
            let [_, address] = (number / 64 + 1).to_be_bytes();
            hold_from(web, Ipv4Addr::new(127, 0, 9, address))
        });
        let mut held: Vec<TcpStream> =
            futures::future::join_all(opened).await.into_iter().flatten().collect();
        // Each waits for its client, and has taken the place of another if there was none.
        until("a network holds more than its share", async || {
            held.retain(is_open);
            (held.len() <= 256).then_some(())
        })
        .await;
        // Later the service has given up some of them.
        if begun.elapsed() < BODY || more_tries.next().is_none() {
            return held;
        }
    }
}

/// All connections are taken from 32 addresses of two /16, and none of these clients goes on for more than
/// a trickle.
#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_and_unread_answers_keep_nobody_out() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let (_sandbox, _running, web, _buyer) = opened(&[], "").await;
    let _held = take_all_places(&web).await;

    let begun = Instant::now();
    let own = Ipv4Addr::new(127, 20, 0, 1);
    for from in [Ipv4Addr::new(127, 10, 0, 1), Ipv4Addr::new(127, 21, 9, 9), own] {
        assert!(connect_from(&web, from).await.is_some(), "{from} is kept out");
    }
    println!("three newcomers are served after {:?}", begun.elapsed());
    let mut more_tries = 0..2;
    loop {
        let begun = Instant::now();
        let answer = upload_among_newcomers(&web, own).await;
        // Later the service has given up the upload.
        if begun.elapsed() < BODY || more_tries.next().is_none() {
            let answer = answer.unwrap();
            assert!(answer.contains("HTTP/1.1 402"), "the upload is cut: {answer}");
            break;
        }
    }
}

/// Takes all places, at the same time.
async fn take_all_places(web: &Web) -> Vec<SlowClient> {
    let addresses = (0..32).map(|n: u8| Ipv4Addr::new(127, 20 + n / 16, n / 4 % 4, 1 + n % 4));
    let all: Vec<(Ipv4Addr, u8)> =
        addresses.flat_map(|from| (0..64).map(move |n| (from, n))).collect();
    assert_eq!(all.len(), 2_048, "those are all places");
    let (begun, mut held) = (Instant::now(), Vec::<SlowClient>::new());
    // Where this takes longer than the service waits, those that it has given up are opened again.
    while held.len() < all.len() {
        assert!(begun.elapsed() < 3 * TIMEOUT, "{} places are taken", held.len());
        let taken: HashSet<(Ipv4Addr, u8)> = held.iter().map(|client| client.number).collect();
        let missing = all.iter().copied().filter(|number| !taken.contains(number));
        let opened = stream::iter(missing).map(|number| SlowClient::open(web, number));
        let opened = opened.buffer_unordered(256).filter_map(std::future::ready);
        held.extend(opened.collect::<Vec<_>>().await);
        trickle(&mut held).await;
        held.retain(SlowClient::is_open);
    }
    held
}

/// Sends a body in pieces, between which all places of the address change hands twice; the answer.
async fn upload_among_newcomers(web: &Web, from: Ipv4Addr) -> io::Result<String> {
    // So many bytes a piece that a slow machine is not a slow client.
    const PIECE: usize = 7 << 10;
    let body = format!("{{{}}}", " ".repeat(9 * PIECE - 2));
    let mut upload = begin_body(web, from, body.len()).await.expect("an upload is kept out");
    // Each piece is sent at once.
    upload.set_nodelay(true)?;
    let pieces: Vec<&[u8]> = body.as_bytes().chunks(PIECE).collect();
    let (last, first) = pieces.split_last().unwrap();
    let mut idle = Vec::new();
    for piece in first {
        upload.write_all(piece).await?;
        for _ in 0..16 {
            idle.push(connect_from(web, from).await.expect("a newcomer is kept out"));
        }
    }
    upload.write_all(last).await?;
    let mut answer = Vec::new();
    while !answer.windows(12).any(|status| status.starts_with(b"HTTP/1.1 "))
        && upload.read_buf(&mut answer).await? > 0
    {}
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A client that reads or sends no more than a byte now and then.
struct SlowClient {
    /// Its address, and which of its connections this is: the first does not read the answers, the second
    /// sends a trickle, and of the others nothing comes.
    number: (Ipv4Addr, u8),
    opened: Instant,
    stream: TcpStream,
}

impl SlowClient {
    async fn open(web: &Web, number: (Ipv4Addr, u8)) -> Option<Self> {
        let (opened, (from, n)) = (Instant::now(), number);
        let stream = if n == 0 { unread_from(web, from).await } else { hold_from(web, from).await };
        stream.map(|stream| Self { number, opened, stream })
    }

    fn is_open(&self) -> bool {
        if self.number.1 > 0 {
            return is_open(&self.stream);
        }
        // More of its answer is here, also once it has been cut; but by then it is older than this.
        self.opened.elapsed() < BODY && matches!(self.stream.try_read(&mut [0]), Ok(1))
    }
}

/// For three seconds, some of these clients read or send a byte now and then.
async fn trickle(held: &mut [SlowClient]) {
    const OFTEN: Duration = Duration::from_millis(500);
    for _ in 0..6 {
        for client in held.iter_mut() {
            let _ = match client.number.1 {
                0 => client.stream.read(&mut [0]).await,
                1 => client.stream.write(b" ").await,
                _ => Ok(0),
            };
        }
        tokio::time::sleep(OFTEN).await;
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let mut read = [0; 64];
    loop {
        match stream.try_read(&mut read) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Requests from this address whose answers are not read, if the first one is answered.
async fn unread_from(web: &Web, from: Ipv4Addr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(web.address).await.unwrap();
    // More than the system keeps for a client.
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64);
    stream.write_all(requests.as_bytes()).await.ok()?;
    stream.readable().await.ok()?;
    Some(stream)
}

/// A connection from this address, if it has a place; it is kept open.
async fn connect_from(web: &Web, from: Ipv4Addr) -> Option<TcpStream> {
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    begin_from(web, from, request, b"HTTP/1.1 200").await
}

/// A request from this address whose body does not come, if it is served.
async fn hold_from(web: &Web, from: Ipv4Addr) -> Option<TcpStream> {
    begin_body(web, from, 900).await
}

/// The same of a body of so many bytes.
async fn begin_body(web: &Web, from: Ipv4Addr, length: usize) -> Option<TcpStream> {
    let request = format!(
        "POST /spawn-pod HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    begin_from(web, from, &request, b"HTTP/1.1 100").await
}

async fn begin_from(
    web: &Web,
    from: Ipv4Addr,
    request: &str,
    expected: &[u8; 12],
) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(web.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        (stream.read_buf(&mut head).await.ok()? > 0).then_some(())?;
    }
    // Where there is no place probes are answered too, and the connection ends.
    let is_over = head.to_ascii_lowercase().windows(17).any(|it| it == b"connection: close");
    (head.starts_with(expected) && !is_over).then_some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_address_families_are_served() {
    let (_sandbox, _running, web, _buyer) = opened(&[("BIND_ADDR", "[::]:0")], "").await;
    let port = web.address.port();
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let answer = Web::new((address, port).into()).ask("GET", "/healthz", &[], "").await;
        assert_eq!(answer.body, "ok", "{address}");
    }
}

async fn hostile_clients_are_cut_off(web: &Web) {
    let lorises = (0..80).map(|_| slow(web, "POST /spawn-pod HTTP/1.1\r\nX-Slow: "));
    let drips = (0..8).map(|_| {
        slow(web, "POST /spawn-pod HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{\"a\": \"")
    });
    let oversized = (0..8).map(|_| oversized(web));
    let (_cut_off, drips, oversized) = tokio::join!(
        futures::future::join_all(lorises),
        futures::future::join_all(drips),
        futures::future::join_all(oversized)
    );
    assert!(drips.iter().all(|response| response.starts_with("HTTP/1.1 408")), "{drips:?}");
    assert!(oversized.iter().all(|response| response.starts_with("HTTP/1.1 413")), "{oversized:?}");
}

/// A client that sends too many gets Retry-After; the others are served.
async fn one_address_sends_so_many_requests(web: &Web) {
    let greedy = [("x-forwarded-for", "203.0.113.5")];
    let mut response = web.ask("GET", "/offers", &greedy, "").await;
    for _ in 0..40 {
        response = web.ask("GET", "/offers", &greedy, "").await;
    }
    response.is(429, "too_many_requests");
    assert!(response.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    // Preflights of web pages count as well.
    let page = [
        ("x-forwarded-for", "203.0.113.7"),
        ("origin", "https://wallet.example"),
        ("access-control-request-method", "POST"),
    ];
    let mut response = web.ask("OPTIONS", "/pay", &page, "").await;
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.headers["access-control-max-age"], "7200");
    for _ in 0..40 {
        response = web.ask("OPTIONS", "/pay", &page, "").await;
    }
    response.is(429, "too_many_requests");
    assert_eq!(response.headers["x-content-type-options"], "nosniff");
    assert_eq!(
        web.ask("GET", "/offers", &[("x-forwarded-for", "203.0.113.6")], "").await.status,
        200
    );
}

/// Sends this and then a byte a second, until it is cut off; the response.
async fn slow(web: &Web, head: &str) -> String {
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let (mut read, mut write) = stream.split();
    let drip = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        _ = read.read_to_end(&mut response) => {}
        () = drip => {}
        () = tokio::time::sleep(TIMEOUT) => panic!("it was not cut off"),
    }
    String::from_utf8_lossy(&response).into_owned()
}

/// Sends a body that does not end; gives the response.
async fn oversized(web: &Web) -> String {
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    stream
        .write_all(b"POST /spawn-pod HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let (mut read, mut write) = stream.split();
    let flood = async {
        while write.write_all(&[b'x'; 4_096]).await.is_ok() {}
        std::future::pending::<()>().await
    };
    let mut response = [0_u8; 64];
    tokio::select! {
        length = read.read(&mut response) => String::from_utf8_lossy(&response[..length.unwrap_or(0)]).into_owned(),
        () = flood => unreachable!("it waits for ever"),
        () = tokio::time::sleep(TIMEOUT) => panic!("it was not cut off"),
    }
}
