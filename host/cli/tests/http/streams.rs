//! What lasts as long as a pod: its events and its terminal.

use crate::service::{opened, shared, with_cluster};
use crate::support::customer::TIMEOUT;
use crate::support::fake::FakeCluster;
use crate::support::web::Web;
use crate::text;
use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use paygress_core::backend::cluster::ReadyPod;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ssh_host::SshHost;
use paygress_core::testing;
use paygress_sshd::{Account, Password, new_host_key, serve};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_sent_from_the_order_to_the_end() {
    let (_sandbox, _running, web, buyer) = opened(
        &[("PAYMENT_RATE_SATS_PER_HOUR", "3600"), ("RUN_MODE", "http"), ("END_NOTICES", "10")],
        "[policy.duration]\nminimum_seconds = 5\n",
    )
    .await;
    let body = json!({"cashu_token": buyer.token(26).await}).to_string();
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
    assert!(whole.contains("\"notice_seconds\":10"), "{whole}");
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

/// A terminal of this pod, after its customer's first message.
async fn say_hello(web: &Web, bought: &Value) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let url = format!("ws://{}/pods/{}/terminal", web.address, text(bought, "pod_name"));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let bearer = text(bought, "bearer_token");
    let hello = json!({"bearer_token": bearer, "columns": 80, "rows": 24}).to_string();
    socket.send(Message::text(hello)).await.unwrap();
    socket
}

/// The code and the reason with which the terminal of this pod is closed before anything is shown.
async fn refusal(web: &Web, bought: &Value) -> (u16, String) {
    let mut socket = say_hello(web, bought).await;
    let closed = tokio::time::timeout(TIMEOUT, socket.next()).await.expect("it is closed");
    match closed.unwrap().unwrap() {
        Message::Close(Some(frame)) => (u16::from(frame.code), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_host_key_than_the_pod_gets_no_terminal() {
    // At the node of the pod, where a service with many nodes looks for it.
    const NODE: &str = "127.0.0.1";
    const PASSWORD: &str = "the password of the pod";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let settings = [
        ("SSH_HOST", "192.0.2.1"),
        ("SSH_PORT_RANGE_START", port.as_str()),
        ("SSH_PORT_RANGE_END", port.as_str()),
    ];
    let host_keys = vec![HostKey::parse(testing::HOST_KEY).unwrap()];
    let ssh_host = Some(SshHost::parse(NODE).unwrap());
    let ready = ReadyPod { host_keys, ssh_host, ..ReadyPod::default() };
    let cluster = FakeCluster { ready, ..FakeCluster::default() };
    let (sandbox, _running, web, buyer) = with_cluster(&settings, cluster).await;
    let order = json!({"cashu_token": buyer.token(6).await, "ssh_password": PASSWORD});
    let bought = web.spawn(order).await.good();
    assert_eq!(bought["ssh_host_keys"], json!([testing::HOST_KEY]));
    assert_eq!(bought["ssh_host"], NODE);
    assert_eq!(bought["known_hosts"], json!(format!("[{NODE}]:{port} {}", testing::HOST_KEY)));
    // It would let the customer in.
    let account = Account::new("user", Password::new(PASSWORD), sandbox.directory.path());
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
    let (code, reason) = refusal(&web, &bought).await;
    assert_eq!(code, 4_502);
    assert!(reason.contains("its host key is not the pod's"), "{reason}");
}

/// Pods that have this port, into which the host puts the server.
fn with_server(port: &str) -> [(&str, &str); 4] {
    [
        ("SSH_SERVER_IMAGE", "example.com/ssh:1"),
        ("SSH_HOST", "127.0.0.1"),
        ("SSH_PORT_RANGE_START", port),
        ("SSH_PORT_RANGE_END", port),
    ]
}

/// A pod that was sold without host keys, though the host has put the server into it: the one that
/// answers may be anybody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_known_host_keys_gets_no_terminal_where_they_should_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let cluster = FakeCluster::default();
    let (_sandbox, _running, web, buyer) = with_cluster(&with_server(&port), cluster).await;
    let order = json!({"cashu_token": buyer.token(6).await, "ssh_password": "a long password"});
    let bought = web.spawn(order).await.good();
    assert_eq!(bought.get("ssh_host_keys"), None);
    let (code, reason) = refusal(&web, &bought).await;
    assert_eq!(code, 4_502);
    assert!(reason.contains("host keys are not known, so no password was sent"), "{reason}");
    let reached = listener.into_std().unwrap().accept();
    assert!(reached.is_err(), "nothing connects to what is at its address");
}

/// As one that the cluster has started in place of another, whose server could not be reached then.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_proves_its_host_keys_only_later_gets_a_terminal_then() {
    const PASSWORD: &str = "the password of the pod";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let key = new_host_key().unwrap();
    let host_key = HostKey::parse(&key.public_key().to_openssh().unwrap()).unwrap();
    let running_pod = ReadyPod { host_keys: vec![host_key.clone()], ..ReadyPod::default() };
    let cluster = FakeCluster { running_pod: Some(running_pod), ..FakeCluster::default() };
    let (sandbox, _running, web, buyer) = with_cluster(&with_server(&port), cluster).await;
    let order = json!({"cashu_token": buyer.token(6).await, "ssh_password": PASSWORD});
    let bought = web.spawn(order).await.good();
    assert_eq!(bought.get("ssh_host_keys"), None);
    let account = Account::new("user", Password::new(PASSWORD), sandbox.directory.path());
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, account, key, stopped));
    let mut socket = say_hello(&web, &bought).await;
    let shown = async {
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(_) => return,
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(TIMEOUT, shown).await.expect("the shell shows something");
    let path = format!("/pods/{}/access", text(&bought, "pod_name"));
    let access = web.get(&path, text(&bought, "bearer_token")).await.good();
    assert_eq!(access["ssh_host_keys"], json!([host_key.as_str()]), "the customer sees it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_key_has_no_password_anywhere() {
    let (_shared, web, buyer) = shared().await;
    let order = json!({"cashu_token": buyer.token(6).await, "ssh_public_key": testing::HOST_KEY});
    let bought = web.spawn(order).await.good();
    assert_eq!(bought["ssh_password"], Value::Null);
    let path = format!("/pods/{}/access", text(&bought, "pod_name"));
    let again = web.get(&path, text(&bought, "bearer_token")).await.good();
    assert_eq!(again["ssh_password"], Value::Null);
    let (code, reason) = refusal(&web, &bought).await;
    assert_eq!(code, 4_403);
    assert!(reason.contains("no password"), "{reason}");
}
