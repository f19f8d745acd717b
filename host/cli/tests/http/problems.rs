//! Bad requests get a typed problem, and never a fault.

use crate::service::shared;
use crate::support::customer::TIMEOUT;
use crate::support::web::Web;
use crate::text;
use serde_json::json;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_order_is_refused() {
    let (_shared, web, _buyer) = shared().await;
    for body in [
        "nonsense",
        "[]",
        "{\"a\"",
        "{\"cashu_token\":7}",
        "{\"pod_name\":\"x\"}",
        "\u{0}",
        "{\"ssh_username\":\"a;rm\"}",
        "{\"cashu_token\":\"a\",\"cashu_token\":\"b\"}",
    ] {
        web.ask("POST", "/spawn-pod", &[], body).await.is(400, "invalid_request");
    }
    web.ask("POST", "/spawn-pod", &[], &"x".repeat(200_000)).await.is(413, "payload_too_large");
    web.spawn(json!({"cashu_token": "cashuBgarbage"})).await.is(400, "invalid_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_path_or_header_is_refused() {
    let (_shared, web, _buyer) = shared().await;
    let (nobody, long) = (format!("/pay?for=bearer:{}", "a".repeat(64)), "n".repeat(5_000));
    let long = format!("/pods/{long}");
    let bearer = format!("Bearer {}", "b".repeat(40));
    for (method, path, authorization, (status, code)) in [
        ("POST", "/spawn-pod", "Basic eDp5", (401, "unauthorized")),
        ("POST", "/spawn-pod", "Nostr e30=", (401, "unauthorized")),
        ("GET", "/pods/%ff", &bearer, (400, "invalid_request")),
        ("GET", &long, &bearer, (404, "not_found")),
    ] {
        let body = if method == "POST" { "{}" } else { "" };
        let answer = web.ask(method, path, &[("authorization", authorization)], body).await;
        answer.is(status, code);
    }
    web.ask("POST", "/pay?for=me", &[], "{}").await.is(400, "invalid_request");
    web.ask("POST", &nobody, &[], "{}").await.is(400, "invalid_token");
}

/// Whatever is wrong, the answer names it, in bodies, payments and queries.
#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_wrong_is_named() {
    let (_shared, web, _buyer) = shared().await;
    let nobody = format!("/pay?for=bearer:{}", "a".repeat(64));
    let minutes = "duration_minutes must be a whole number from 1 to 5256000, or be left out";
    let proof = |amount: &str| {
        format!(
            r#"{{"mint":"https://m","unit":"sat","proofs":[{{"amount":{amount},"id":"00","secret":"s"}}]}}"#
        )
    };
    let (no_signature, no_amount) = (proof("1"), proof("\"secret\""));
    let unlisted = format!("{nobody}&duration_minutes=-1");
    for (method, path, body, detail) in [
        ("POST", "/spawn-pod", r#"{"duration_minutes":-1}"#, minutes),
        ("POST", "/spawn-pod", r#"{"duration_minutes":1.5}"#, minutes),
        ("POST", "/spawn-pod", r#"{"duration_minutes":"soon"}"#, minutes),
        ("POST", "/top-up-pod", r#"{"pod_name":"x","duration_minutes":0}"#, minutes),
        ("GET", "/auth?duration_minutes=1.5", "", minutes),
        ("POST", unlisted.as_str(), "", minutes),
        ("POST", "/spawn-pod", r#"{"ssh_username":7}"#, "ssh_username must be a string"),
        ("POST", "/spawn-pod", r#"{"tier":"a","tier":"b"}"#, "tier is there twice; send it once"),
        ("POST", "/pay", "{}", "for is missing"),
        ("POST", "/pay?for=a&for=b", "{}", "for is there twice; send it once"),
        ("POST", nobody.as_str(), "{}", "mint is missing"),
        ("POST", nobody.as_str(), &no_signature, "proofs[0].C is missing"),
        ("POST", nobody.as_str(), &no_amount, "proofs[0].amount must be a whole number"),
    ] {
        let answer = web.ask(method, path, &[], body).await.json();
        assert_eq!(text(&answer, "detail"), detail, "{method} {path} {body}");
    }
    for minutes in ["1.0", "\"1\"", "1"] {
        let body = format!(r#"{{"duration_minutes":{minutes}}}"#);
        let price = web.ask("POST", "/spawn-pod", &[], &body).await.is(402, "payment_required");
        assert_eq!(price["duration_seconds"], 60, "{body}");
    }
}

/// A legal body in an unusual form is read, or refused with what to send instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_another_form_is_read_or_explained() {
    let (_shared, web, buyer) = shared().await;
    let token = buyer.token(3).await;
    for coding in ["gzip", "br", "identity, gzip", "zstd"] {
        let answer =
            web.ask("POST", "/spawn-pod", &[("content-encoding", coding)], "\u{1f}x").await;
        let problem = answer.is(415, "unsupported_media_type");
        assert!(text(&problem, "detail").contains("Accept-Encoding: identity"), "{problem}");
        assert_eq!(answer.headers["accept-encoding"], "identity");
    }
    let marked = "\u{feff}{\"duration_minutes\": 5}";
    for (headers, body) in [
        (&[("content-encoding", "identity")][..], "{\"duration_minutes\": 5}"),
        (&[("content-encoding", "gzip")], ""),
        (&[], marked),
        (&[], "\u{feff}"),
    ] {
        web.ask("POST", "/spawn-pod", headers, body).await.is(402, "payment_required");
    }
    for sent in ["hi", token.as_str()] {
        let problem = web.ask("POST", "/spawn-pod", &[], sent).await.is(400, "invalid_request");
        assert!(text(&problem, "detail").contains(r#"{"cashu_token": "cashuB…"}"#), "{problem}");
    }
    let bearer = format!("Bearer {token}");
    let answer = web.ask("POST", "/spawn-pod", &[("authorization", &bearer)], "{}").await;
    let problem = answer.is(401, "unauthorized");
    assert!(text(&problem, "detail").contains("Authorization: Cashu"), "{problem}");
    assert!(!answer.body.contains(&token), "the token is quoted");
    assert!(buyer.wallet.receive(&token).await.unwrap() > 0);
}

/// Of the kinds that the pod's SSH server does not verify; the token stays good.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_could_not_log_in_is_refused_before_payment() {
    let (_shared, web, buyer) = shared().await;
    let token = buyer.token(6).await;
    for key in [
        "ssh-dss AAAAB3NzaC1kc3MAAACBAP7 me@home",
        "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t",
        "webauthn-sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20=",
    ] {
        let order = json!({"cashu_token": token, "ssh_public_key": key});
        let problem = web.spawn(order).await.is(400, "invalid_request");
        let detail = text(&problem, "detail");
        let kinds = paygress_sshd::key_kinds().join(", ");
        assert!(detail.starts_with("ssh_public_key: ") && detail.ends_with(&kinds), "{detail}");
    }
    assert!(buyer.wallet.receive(&token).await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_leaves_its_token_good() {
    let (_shared, web, buyer) = shared().await;
    let token = buyer.token(3).await;
    let second = json!({"cashu_token": buyer.token(3).await}).to_string();
    let two = web.ask("POST", "/spawn-pod", &[("x-cashu", &token)], &second).await;
    assert!(text(&two.is(400, "invalid_request"), "detail").contains("two tokens"));
    let unknown = "{\"pod_name\":\"ssh-pod-unknown\"}";
    web.ask("POST", "/top-up-pod", &[("x-cashu", &token)], unknown).await.is(404, "not_found");
    let headers = [("x-cashu", token.as_str()), ("prefer", "wait=nonsense; ,,")];
    web.ask("POST", "/spawn-pod", &headers, "{\"tier\":\"none\"}").await.is(400, "invalid_spec");
    assert!(buyer.wallet.receive(&token).await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_are_cut_off() {
    let (_shared, web, _buyer) = shared().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /spawn-pod HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(web.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut response = Vec::new();
        tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut response))
            .await
            .expect("it is cut off")
            .unwrap_or(0);
    }
    assert_eq!(web.ask("GET", "/healthz", &[], "").await.status, 200);
}

/// Whoever is answered before their body was read sees the answer, and knows whether the connection
/// may be used again.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_seen_although_the_body_was_not_read() {
    let (_shared, web, _buyer) = shared().await;
    let head = |path: &str, length: usize, more: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{more}\r\n")
    };
    for (head, sent, status, closes) in [
        (head("/spawn-pod", 900_000, ""), 900_000, "413", false),
        (head("/nowhere", 900_000, ""), 900_000, "404", false),
        (head("/pods", 900_000, ""), 900_000, "405", false),
        (head("/spawn-pod", 50_000_000, ""), 1_500_000, "413", true),
        (head("/spawn-pod", 900_000, ""), 200_000, "413", true),
        (head("/nowhere", 900_000, "expect: 100-continue\r\n"), 0, "404", true),
    ] {
        let mut stream = TcpStream::connect(web.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; sent]).await.unwrap();
        let answer = head_of(&mut stream).await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{head}: {answer}");
        assert_eq!(answer.contains("\r\nconnection: close\r\n"), closes, "{head}: {answer}");
    }
}

/// A piece costs the service more than its byte, wherever it is read, and more is not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_tiny_pieces_is_refused() {
    let (_shared, web, _buyer) = shared().await;
    let flood = (0..32).map(|_| in_pieces(&web, "/spawn-pod", 60_000));
    for answer in futures::future::join_all(flood).await {
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains("in larger chunks"), "{answer}");
    }
    let answer = in_pieces(&web, "/nowhere", 60_000).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");

    let answer = in_pieces(&web, "/spawn-pod", 4_000).await;
    assert!(answer.starts_with("HTTP/1.1 402 "), "{answer}");
}

/// Sends so many chunks of a space as a body; the answer.
async fn in_pieces(web: &Web, path: &str, pieces: usize) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    // So many connections are no one else's.
    socket.bind((Ipv4Addr::new(127, 32, 0, 1), 0).into()).unwrap();
    let mut stream = socket.connect(web.address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let body = format!("{head}{}0\r\n\r\n", "1\r\n \r\n".repeat(pieces));
    let (mut read, mut write) = stream.split();
    let send = async {
        // The service may close the connection before all of it is sent.
        let _ = write.write_all(body.as_bytes()).await;
        std::future::pending::<()>().await
    };
    let mut answer = Vec::new();
    let receive = async {
        while !answer.ends_with(b"}") && matches!(read.read_buf(&mut answer).await, Ok(1..)) {}
    };
    tokio::select! {
        () = receive => {}
        () = send => unreachable!("it waits for ever"),
        () = tokio::time::sleep(TIMEOUT) => panic!("it is not answered"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of an answer, in lower case.
async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(TIMEOUT, stream.read_u8()).await.expect("it is answered");
        head.push(byte.expect("the answer is not lost"));
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}
