//! `paygress-nostr reply`, as an init container runs it, at relays that work, are silent or refuse.
#![cfg(test)]

use nostr_sdk::{Client, Filter, Kind, RelayUrl};
use paygress_core::testing::HOST_KEY;
use paygress_nostr::gift_wrap::{DirectMessage, unwrap};
use paygress_nostr::{EventId, Keys, npub};
use paygress_pod_nostr::ReplyReport;
use paygress_sandbox::Relay;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpSocket;

const PASSWORD: &str = "a good password";
/// All relays together have 10 s.
const BOUND: Duration = Duration::from_secs(15);

fn message(recipient: &Keys, relays: &[String]) -> Value {
    json!({
        "recipient": recipient.public_key().to_hex(),
        "relays": relays,
        "request": EventId::all_zeros().to_hex(),
        "reply": {
            "type": "access_details",
            "pod_name": "ssh-pod-abcdefghij",
            "ssh_host": "node.example.com",
            "ssh_port": 20_427,
            "ssh_password": PASSWORD,
            "root": true,
        },
    })
}

/// What the init container of the SSH server has left.
fn pod() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("host-keys");
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(keys.join("ssh_host_ed25519_key"), "a private key").unwrap();
    std::fs::write(keys.join("ssh_host_ed25519_key.pub"), format!("{HOST_KEY} pod\n")).unwrap();
    directory
}

/// What it reports; it must succeed, print no password, and be in time.
async fn reply(message: &str) -> ReplyReport {
    let pod = pod();
    let at = |name: &str| pod.path().join(name);
    std::fs::write(at("message"), message).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress-nostr"));
    command.env_clear().arg("reply").arg("--message").arg(at("message"));
    command.arg("--host-keys").arg(at("host-keys"));
    command.arg("--termination-message").arg(at("report"));
    let begun = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{printed}");
    let report = std::fs::read_to_string(at("report")).unwrap();
    assert!(!printed.contains(PASSWORD) && !report.contains(PASSWORD), "{printed}{report}");
    ReplyReport::parse(&report).unwrap()
}

async fn received(relay: &RelayUrl, keys: &Keys) -> Vec<DirectMessage> {
    let client = Client::builder().signer(keys.clone()).build();
    client.add_relay(relay).await.unwrap();
    client.connect().await;
    client.wait_for_connection(BOUND).await;
    let filter = Filter::new().kind(Kind::GiftWrap).pubkey(keys.public_key());
    let wraps = client.fetch_events(filter, Duration::from_secs(5)).await.unwrap();
    wraps.iter().map(|wrap| unwrap(keys, wrap).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_customer_gets_the_message_from_the_key_that_is_reported() {
    let (relays, customer) =
        ([Relay::start().await.unwrap(), Relay::start().await.unwrap()], Keys::generate());
    let mut urls = Vec::new();
    for relay in &relays {
        urls.push(relay.url().await.to_string());
    }
    let report = reply(&message(&customer, &urls).to_string()).await;
    assert_eq!((&report.accepted, &report.error), (&urls, &None));
    assert_eq!(report.host_keys.iter().map(ToString::to_string).collect::<Vec<_>>(), [HOST_KEY]);
    let other = reply(&message(&customer, &urls).to_string()).await;
    assert_ne!(other.public_key, report.public_key, "each pod has its own key");
    for relay in &relays {
        let received = received(&relay.url().await, &customer).await;
        let is_its =
            |message: &&DirectMessage| message.sender.to_hex() == report.public_key.as_str();
        let message = received.iter().find(is_its).unwrap();
        assert_eq!((received.len(), message.answers), (2, Some(EventId::all_zeros())));
        let content: Value = serde_json::from_str(&message.text).unwrap();
        assert_eq!(content["ssh_password"], PASSWORD);
        assert_eq!(content["root"], true);
        assert_eq!(content["pod_npub"], npub(&message.sender));
        assert_eq!(content["ssh_host_keys"], json!([HOST_KEY]));
        let line = format!("[node.example.com]:20427 {HOST_KEY}");
        assert_eq!(content["known_hosts"], line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_wants_authentication_gets_it() {
    let (relay, customer) = (Relay::start_guarded().await.unwrap(), Keys::generate());
    let urls = [relay.url().await.to_string()];
    let report = reply(&message(&customer, &urls).to_string()).await;
    assert_eq!((report.accepted.as_slice(), report.error), (&urls[..], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_are_silent_or_refuse_cost_seconds_and_no_pod() {
    let customer = Keys::generate();
    // Nobody accepts its connections.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("ws://{}", silent.local_addr().unwrap());
    // It never listens.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let bad = vec![silent, format!("ws://{}", refusing.local_addr().unwrap())];
    let report = reply(&message(&customer, &bad).to_string()).await;
    assert!(report.accepted.is_empty() && report.event.is_some(), "{report:?}");
    let error = report.error.unwrap();
    assert!(error.contains("no relay took the message"), "{error}");
    // They keep it from no other.
    let relay = Relay::start().await.unwrap();
    let good = relay.url().await.to_string();
    let relays = [bad, vec![good.clone()]].concat();
    let report = reply(&message(&customer, &relays).to_string()).await;
    assert_eq!((report.accepted, report.error), (vec![good], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_reported_and_keeps_no_pod_from_starting() {
    let customer = Keys::generate();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut message = message(&customer, &["wss://relay.invalid".to_owned()]);
        change(&mut message);
        message.to_string()
    };
    for (message, expected) in [
        (String::new(), "not JSON"),
        (format!("{}{}", with(&|_| ()), " ".repeat(70_000)), "longer than 65536 bytes"),
        (with(&|it| it["recipient"] = json!("npub1abc")), "not JSON of the form"),
        (with(&|it| it["request"] = json!("x")), "not an event's id"),
        (with(&|it| it["relays"] = json!(["https://relay.invalid"])), "no relay is named"),
        (with(&|it| it["reply"]["ssh_port"] = json!(0.5)), "no ssh_host and ssh_port"),
    ] {
        let report = reply(&message).await;
        let error = report.error.unwrap();
        assert!(error.contains(expected) && report.accepted.is_empty(), "{expected}: {error}");
        assert_eq!(report.public_key.as_str().len(), 64);
    }
}
