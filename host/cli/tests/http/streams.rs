//! What lasts as long as a pod: its events and its terminal.

use crate::service::{opened, shared};
use crate::support::customer::TIMEOUT;
use crate::text;
use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_sent_from_the_order_to_the_end() {
    let (_sandbox, _running, web, buyer) = opened(
        &[("PAYMENT_RATE_SATS_PER_HOUR", "3600"), ("RUN_MODE", "http"), ("END_NOTICES", "4")],
        "[policy.duration]\nminimum_seconds = 5\n",
    )
    .await;
    let body = json!({"cashu_token": buyer.token(9).await}).to_string();
    let response =
        web.ask("POST", "/spawn-pod", &[("prefer", "respond-async")], &body).await.good();
    let path = format!("/pods/{}/events", text(&response, "pod_name"));
    let bearer = format!("Bearer {}", text(&response, "bearer_token"));
    let response = web.open("GET", &path, &[("authorization", &bearer)], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let whole = tokio::time::timeout(TIMEOUT, response.into_body().collect())
        .await
        .expect("the stream ends with the pod")
        .unwrap();
    let whole = String::from_utf8(whole.to_bytes().to_vec()).unwrap();
    let stages: Vec<&str> = whole.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let at = |stage: &str| {
        stages
            .iter()
            .position(|response| *response == stage)
            .unwrap_or_else(|| panic!("{stage} was not sent: {stages:?}"))
    };
    assert!(at("ready") < at("expiring") && at("expiring") < at("ended"), "{stages:?}");
    assert!(whole.contains("\"expires_at\":\"20"), "{whole}");
    assert!(whole.contains("\"notice_seconds\":4"), "{whole}");
    assert!(whole.contains("\"end_reason\":\"expired\""), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_opens_for_its_customer_only() {
    let (_shared, web, buyer) = shared().await;
    let bought = web
        .spawn(json!({"cashu_token": buyer.token(6).await, "ssh_username": "alice"}))
        .await
        .good();
    let url = format!("ws://{}/pods/{}/terminal", web.address, text(&bought, "pod_name"));
    let hello = |bearer: &str| {
        Message::text(json!({"bearer_token": bearer, "columns": 80, "rows": 24}).to_string())
    };
    for wrong in
        [hello(&"x".repeat(40)), hello(""), Message::text("nonsense"), Message::binary(vec![0; 4])]
    {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        socket.send(wrong).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert!(
            matches!(&answer, Message::Close(Some(frame)) if u16::from(frame.code) == 4_403),
            "{answer:?}"
        );
    }
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send(hello(text(&bought, "bearer_token"))).await.unwrap();
    socket.send(Message::text(json!({"columns": 132, "rows": 40}).to_string())).await.unwrap();
    socket.send(Message::binary(b"stty size; echo so says $USER; exit\n".to_vec())).await.unwrap();
    let mut shown = String::new();
    let closed = loop {
        match tokio::time::timeout(TIMEOUT, socket.next())
            .await
            .expect("the shell ends")
            .unwrap()
            .unwrap()
        {
            Message::Binary(bytes) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            Message::Close(frame) => break frame,
            _ => {}
        }
    };
    assert!(shown.contains("40 132") && shown.contains("so says alice"), "{shown}");
    assert_eq!(u16::from(closed.unwrap().code), 1_000);
}
