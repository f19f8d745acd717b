//! A server that is silent, slow, endless or sends us elsewhere costs a bounded time and memory.
#![cfg(test)]

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use paygress_core::error_chain;
use paygress_http_client::{HttpClient, HttpError, Phase, RedirectError, RedirectPolicy, Timeouts};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;

/// Answers every connection with the next of these texts and keeps it open; returns its URL and the
/// heads of the requests.
async fn server(answers: Vec<String>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut open = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).await.unwrap();
            request.truncate(length);
            sender.send(String::from_utf8(request).unwrap()).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            open.push(stream);
        }
        std::future::pending::<()>().await;
    });
    (url, requests)
}

fn client(head: u64, whole: u64) -> HttpClient {
    let milliseconds = Duration::from_millis;
    let connect = Duration::from_secs(5);
    HttpClient::new(Timeouts { connect, head: milliseconds(head), whole: milliseconds(whole) })
        .unwrap()
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

fn redirect(to: &str) -> String {
    format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\nconnection: close\r\n\
         content-length: 0\r\n\r\n"
    )
}

const FINE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nfine";

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let (url, _requests) = server(vec![String::new(), String::new()]).await;
    let started = Instant::now();
    let error = client(100, 60_000).send(get(&url)).await.unwrap_err();
    assert!(
        matches!(error, HttpError::TimedOut { phase: Phase::Head, limit, .. } if limit == Duration::from_millis(100)),
        "{error}"
    );
    assert!(error.to_string().contains("within 0.1 s"), "{error}");
    // The limit of a request with a body is the whole one.
    let request = Request::post(&url).body(Bytes::from_static(b"x")).unwrap();
    let error = client(1, 300).send(request).await.unwrap_err();
    assert!(
        matches!(error, HttpError::TimedOut { limit, .. } if limit == Duration::from_millis(300)),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(50));
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let stalled = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin".to_owned();
    let (url, _requests) = server(vec![stalled]).await;
    let response = client(5_000, 3_000).send(get(&url)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let error = response.bytes(1_000).await.unwrap_err();
    assert!(
        matches!(error, HttpError::TimedOut { phase: Phase::Body, limit, .. } if limit == Duration::from_secs(3)),
        "{error}"
    );
}

#[tokio::test]
async fn a_body_has_a_limit_whether_or_not_it_says_its_length() {
    let chunk = "x".repeat(100);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n{chunk}\r\n");
    let declared = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{chunk}");
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let tiny = format!("{head}{}", "1\r\nx\r\n".repeat(5_000));
    let (url, _requests) = server(vec![chunked, declared, tiny, FINE.to_owned()]).await;
    let client = client(5_000, 5_000);
    for _ in 0..2 {
        let error = client.send(get(&url)).await.unwrap().bytes(99).await.unwrap_err();
        assert!(matches!(error, HttpError::BodyTooLarge { limit: 99, .. }), "{error}");
    }
    let error = client.send(get(&url)).await.unwrap().bytes(9_999).await.unwrap_err();
    assert!(matches!(error, HttpError::TinyPieces { .. }), "{error}");
    assert_eq!(client.send(get(&url)).await.unwrap().bytes(4).await.unwrap(), "fine");
}

#[tokio::test]
async fn errors_keep_their_source() {
    // It never listens.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/secret?token=secret", closed.local_addr().unwrap());
    let error = client(5_000, 5_000).send(get(&url)).await.unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error}");
    let text = error_chain(&error);
    assert!(text.to_lowercase().contains("refused") && !text.contains("secret"), "{text}");

    let short = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: nonsense\r\n\r\n";
    let (url, _requests) = server(vec![short.to_owned()]).await;
    let error = client(5_000, 5_000).send(get(&url)).await.unwrap_err();
    assert!(matches!(error, HttpError::Disconnected { .. }), "{error}");
    for bad in ["http://user:secret@127.0.0.1/", "ftp://127.0.0.1/", "/only/a/path"] {
        let error = client(5_000, 5_000).send(get(bad)).await.unwrap_err();
        assert!(matches!(error, HttpError::InvalidUrl), "{bad}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_followed_on_request_and_without_credentials_for_others() {
    let (other, mut other_requests) = server(vec![FINE.to_owned()]).await;
    let (url, mut requests) = server(vec![redirect("/again"), redirect(&other)]).await;
    let client = client(5_000, 5_000);
    let response = client.send(get(&url)).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.location().unwrap(), format!("{url}again").as_str());

    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Basic x"))]);
    let response = client.follow(response, headers, RedirectPolicy { max_hops: 3 }).await.unwrap();
    assert_eq!(response.url(), other.as_str());
    assert_eq!(response.bytes(4).await.unwrap(), "fine");
    assert!(requests.recv().await.unwrap().starts_with("GET / "));
    let second = requests.recv().await.unwrap();
    assert!(second.starts_with("GET /again ") && second.contains("authorization: Basic x"));
    assert!(!other_requests.recv().await.unwrap().contains("authorization"));
}

#[tokio::test]
async fn redirects_end() {
    let (url, mut requests) = server(vec![redirect("/"); 5]).await;
    let client = client(5_000, 5_000);
    let response = client.send(get(&url)).await.unwrap();
    let error = client
        .follow(response, HeaderMap::new(), RedirectPolicy { max_hops: 3 })
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            HttpError::Redirect { source: RedirectError::TooManyHops { max_hops: 3 }, .. }
        ),
        "{error}"
    );
    for _ in 0..4 {
        requests.recv().await.unwrap();
    }
    assert!(requests.try_recv().is_err(), "no fifth request");

    let (url, _requests) = server(vec![redirect("http://elsewhere.example/")]).await;
    let response = client.send(get(&url)).await.unwrap();
    let error = client
        .follow(response, HeaderMap::new(), RedirectPolicy { max_hops: 3 })
        .await
        .unwrap_err();
    assert!(error_chain(&error).contains("not https"), "{error}");
}
