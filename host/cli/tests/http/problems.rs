//! Bad requests get a typed problem, and never a fault.

use crate::service::shared;
use crate::support::customer::TIMEOUT;
use crate::text;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
