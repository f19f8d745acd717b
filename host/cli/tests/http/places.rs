//! Who keeps a newcomer of their address out.

use crate::service::{opened, with_cluster};
use crate::support::customer::TIMEOUT;
use crate::support::fake::FakeCluster;
use crate::support::web::Web;
use crate::text;
use futures::{SinkExt, StreamExt};
use paygress_core::backend::cluster::ReadyPod;
use paygress_core::model::ssh_host::SshHost;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

const OWN: Ipv4Addr = Ipv4Addr::new(127, 30, 0, 1);
/// So many connections may an address have.
const OF_ADDRESS: usize = 64;

async fn connect(web: &Web) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((OWN, 0).into()).unwrap();
    socket.connect(web.address).await.unwrap()
}

/// The status of the answer to this request.
async fn status(stream: &mut TcpStream, head: &str) -> String {
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(TIMEOUT, stream.read_exact(&mut status)).await.expect("it is answered").unwrap();
    String::from_utf8_lossy(&status).into_owned()
}

/// A connection that is kept open after its answer.
async fn newcomer(web: &Web) -> TcpStream {
    let mut stream = connect(web).await;
    let status = status(&mut stream, "GET /offers HTTP/1.1\r\nHost: x").await;
    assert_eq!(status, "HTTP/1.1 200", "a newcomer is kept out");
    stream
}

fn upgrade() -> String {
    let key = generate_key();
    format!(
        "GET /pods/ssh-pod-aaaaaaaaaa/terminal HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
    )
}

/// A terminal whose customer has sent what authenticates them.
async fn terminal_of(web: &Web, bought: &Value) -> WebSocketStream<TcpStream> {
    let url = format!("ws://{}/pods/{}/terminal", web.address, text(bought, "pod_name"));
    let (mut terminal, _) = tokio_tungstenite::client_async(url, connect(web).await).await.unwrap();
    let hello = json!({"bearer_token": text(bought, "bearer_token"), "columns": 80, "rows": 24});
    terminal.send(Message::text(hello.to_string())).await.unwrap();
    terminal
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_keep_nobody_out_until_their_customer_has_logged_in() {
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    let order = json!({"cashu_token": buyer.token(6).await, "ssh_username": "alice"});
    let bought = web.spawn(order).await.good();
    let mut terminal = terminal_of(&web, &bought).await;
    let first = timeout(TIMEOUT, terminal.next()).await.expect("it opens").unwrap().unwrap();
    assert!(!matches!(first, Message::Close(_)), "{first:?}");

    let mut silent = Vec::new();
    for _ in 1..OF_ADDRESS {
        let mut stream = connect(&web).await;
        assert_eq!(status(&mut stream, &upgrade()).await, "HTTP/1.1 101");
        silent.push(stream);
    }
    let mut newcomers = Vec::new();
    for _ in 1..OF_ADDRESS {
        newcomers.push(newcomer(&web).await);
    }
    let keys = Message::binary(b"echo so says $USER; exit\n".to_vec());
    terminal.send(keys).await.unwrap();
    let mut shown = String::new();
    while let Some(Ok(message)) = timeout(TIMEOUT, terminal.next()).await.expect("it goes on") {
        if let Message::Binary(bytes) = message {
            shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(shown.contains("so says alice"), "the customer's terminal is cut: {shown}");
}

/// The connection of the login, to a pod that does not answer.
async fn login(pod: &TcpListener) -> TcpStream {
    loop {
        let (mut stream, _) = pod.accept().await.unwrap();
        if matches!(stream.read(&mut [0; 4]).await, Ok(1..)) {
            return stream;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_cut_no_login_that_waits_for_the_pod() {
    const NODE: &str = "127.0.0.1";
    let pod = TcpListener::bind((NODE, 0)).await.unwrap();
    let port = pod.local_addr().unwrap().port().to_string();
    let settings = [
        ("REQUESTS_PER_MINUTE", "100000"),
        ("SSH_HOST", "192.0.2.1"),
        ("SSH_PORT_RANGE_START", port.as_str()),
        ("SSH_PORT_RANGE_END", port.as_str()),
    ];
    let ssh_host = Some(SshHost::parse(NODE).unwrap());
    let ready = ReadyPod { ssh_host, ..ReadyPod::default() };
    let cluster = FakeCluster { ready, ..FakeCluster::default() };
    let (_sandbox, _running, web, buyer) = with_cluster(&settings, cluster).await;
    let order =
        json!({"cashu_token": buyer.token(6).await, "ssh_password": "the password of the pod"});
    let bought = web.spawn(order).await.good();
    let mut terminal = terminal_of(&web, &bought).await;
    let login = timeout(TIMEOUT, login(&pod)).await.expect("the service logs in");
    let mut newcomers = Vec::new();
    for _ in 0..OF_ADDRESS {
        newcomers.push(newcomer(&web).await);
    }
    drop((login, pod));
    let end = timeout(TIMEOUT, terminal.next()).await.expect("the login has failed");
    let Some(Ok(Message::Close(Some(frame)))) = &end else { panic!("it is cut: {end:?}") };
    // By the service, on a slow machine for the time that the login has taken.
    assert_eq!(u16::from(frame.code), 4_502, "{}", frame.reason);
}

/// All that an address may have are event streams, on which the service sends what happens.
#[tokio::test(flavor = "multi_thread")]
async fn where_all_places_are_taken_probes_are_answered_and_orders_refused() {
    let settings = [("REQUESTS_PER_MINUTE", "100000")];
    let (_sandbox, _running, web, buyer) = with_cluster(&settings, FakeCluster::default()).await;
    let mut streams = Vec::new();
    for _ in 0..OF_ADDRESS / 8 {
        let order = json!({"cashu_token": buyer.token(6).await});
        let bought = web.spawn(order).await.good();
        let (pod, bearer) = (text(&bought, "pod_name"), text(&bought, "bearer_token"));
        let request =
            format!("GET /pods/{pod}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}");
        for _ in 0..8 {
            let mut stream = connect(&web).await;
            assert_eq!(status(&mut stream, &request).await, "HTTP/1.1 200");
            streams.push(stream);
        }
    }
    for path in ["/healthz", "/readyz"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x");
        assert_eq!(status(&mut connect(&web).await, &request).await, "HTTP/1.1 200", "{path}");
    }
    let mut order = connect(&web).await;
    let request = "POST /spawn-pod HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    order.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = timeout(TIMEOUT, order.read_to_string(&mut answer)).await;
    read.expect("its connection is closed").unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"error_type\":\"resource_unavailable\""), "{answer}");
    assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
}
