//! Through a proxy that was configured, and in tunnels only.
#![cfg(test)]

use hyper::Request;
use hyper::body::Bytes;
use paygress_core::error_chain;
use paygress_http_client::{HttpClient, HttpError, Proxies, Timeouts};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// Answers every connection of a proxy's client with `status`, and connects it to `server` if that is
/// 200; sends what was requested of it.
async fn proxy(
    status: &'static str,
    server: Option<SocketAddr>,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.unwrap());
            }
            sender.send(String::from_utf8(request).unwrap()).unwrap();
            client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            if let Some(server) = server {
                let mut server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (address, requests)
}

/// Sends the first bytes of each connection, and answers with an empty page.
async fn server() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let length = stream.read(&mut bytes).await.unwrap();
            bytes.truncate(length);
            sender.send(bytes).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (address, received)
}

fn client(proxy: &str, no_proxy: &str) -> HttpClient {
    let proxies = Proxies::from_variables(|name| match name {
        "ALL_PROXY" => Some(proxy.to_owned()),
        "NO_PROXY" => Some(no_proxy.to_owned()),
        _ => None,
    });
    HttpClient::with_proxies(Timeouts::all(Duration::from_secs(5)), proxies.unwrap()).unwrap()
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).header("authorization", "Bearer secret").body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn requests_go_through_a_tunnel_and_the_proxy_sees_only_where_to() {
    let (server, mut received) = server().await;
    let (proxy, mut requests) = proxy("200 Connection established", Some(server)).await;
    let client = client(&format!("http://us%65r:pass@{proxy}"), "direct.example");
    let response = client.send(get("http://mint.example/v1/info")).await.unwrap();
    assert_eq!(response.status(), 200);
    let connect = requests.recv().await.unwrap();
    assert!(connect.starts_with("CONNECT mint.example:80 HTTP/1.1\r\n"), "{connect}");
    assert!(connect.contains("Basic dXNlcjpwYXNz\r\n"), "{connect}");
    assert!(!connect.contains("secret") && !connect.contains("v1/info"), "{connect}");
    let request = String::from_utf8(received.recv().await.unwrap()).unwrap();
    assert!(request.starts_with("GET /v1/info HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("secret") && !request.contains("dXNlcjpwYXNz"), "{request}");

    // TLS is with the server, not with the proxy: it begins in the tunnel.
    let error = client.send(get("https://[fd00::1]:5000/v2/")).await.unwrap_err();
    assert!(error_chain(&error).contains("does not speak TLS"), "{error:?}");
    assert!(requests.recv().await.unwrap().starts_with("CONNECT [fd00::1]:5000 HTTP/1.1\r\n"));
    assert_eq!(received.recv().await.unwrap().first(), Some(&22), "a TLS handshake");

    // This machine, and what NO_PROXY names, is connected to directly.
    client.send(get(&format!("http://{server}/"))).await.unwrap();
    let error = client.send(get("http://direct.example/")).await.unwrap_err();
    assert!(error_chain(&error).contains("has no address"), "{error:?}");
    assert!(requests.try_recv().is_err(), "nothing else is requested of the proxy");
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_named_and_nothing_was_sent() {
    // It never listens.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    for (status, expected) in [
        ("407 Proxy Authentication Required", "requires a user and a password"),
        ("403 Forbidden", "does not connect to it"),
        ("", "cannot be reached: the connection was refused"),
    ] {
        let (address, _requests) = proxy(status, None).await;
        let address = if status.is_empty() { closed.local_addr().unwrap() } else { address };
        let client = client(&format!("http://user:secret@{address}"), "");
        let error = client.send(get("https://mint.example/v1/swap")).await.unwrap_err();
        assert!(matches!(error, HttpError::Unreachable { .. }), "{status}: {error}");
        let text = error_chain(&error);
        let expected = format!("mint.example cannot be reached: the proxy {address} {expected}");
        assert!(text.contains(&expected) && !text.contains("secret"), "{status}: {text}");
    }
}

#[tokio::test]
async fn a_silent_proxy_costs_the_time_of_a_silent_server() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (started, limit) = (Instant::now(), Duration::from_millis(200));
    let proxies = Proxies::from_variables(|name| (name == "HTTPS_PROXY").then(|| url.clone()));
    let client = HttpClient::with_proxies(Timeouts::all(limit), proxies.unwrap()).unwrap();
    let error = client.send(get("https://mint.example/")).await.unwrap_err();
    assert!(matches!(error, HttpError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(30));
}
