//! What a running service of version 0.1.0 sent: the same requests get the same bytes, but for what
//! is of one run. See `fixtures/v0.1.0/README.md`.

use crate::service::opened;
use crate::support::customer::Buyer;
use crate::support::web::{Answer, Web};
use crate::text;
use paygress_core::protocol::OfferContent;
use paygress_sandbox::token::requested_payment;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const RECORDED: &str = include_str!("../fixtures/v0.1.0/wire/http.jsonl");
const HOST: &str = "node.example.com";
const BEARER: &str = "Bearer pg_fixture-bearer-token-0000000000000000000000000";
const ANOTHER: &str = "Bearer pg_another-bearer-token-000000000000000000000000";

/// Not recorded.
const OTHER_HEADERS: &[&str] = &["content-length", "date"];

/// Of CORS, for web pages: each answer has them since.
const ADDED_HEADERS: [(&str, &str); 2] =
    [("access-control-expose-headers", "x-cashu,location,retry-after"), ("vary", "origin")];

/// The texts of problems that were reworded since, as they were and as they are.
const REWORDED: [(&str, &str, &str); 5] = [
    (
        "invalid request",
        "the request is not a JSON object with the known fields (line 1, column 2)",
        r#"this is not JSON (line 1, column 2); send an object such as {"cashu_token": "cashuB…"}"#,
    ),
    (
        "invalid token",
        "this is not a Cashu token; a token begins with cashuA or cashuB and is copied whole",
        "the token is incomplete or damaged; copy it whole, from cashu to its last character",
    ),
    (
        "unauthorized",
        "say who you are: Authorization: Bearer, with the bearer_token that came with the pod, or a NIP-98 signature",
        "authenticate: Authorization: Bearer, with the bearer_token that came with the pod, or a NIP-98 signature",
    ),
    ("no such page", "there is nothing here; see /docs", "there is no such page; see /docs"),
    (
        "method not allowed",
        "this is not asked with that method; see /docs",
        "the path does not support this method; see /docs",
    ),
];

/// Properties that were added since.
const ADDED: &[&str] =
    &["end_reason", "images", "known_hosts", "policies", "receipt", "root", "ssh_host_keys"];

/// Properties whose values are of one run.
const OF_ONE_RUN: &[&str] = &[
    "bearer_token",
    "expires_at",
    "instructions",
    "new_expires_at",
    "node_port",
    "order_id",
    "p2pk_pubkey",
    "payment_request",
    "pod_name",
    "pod_npub",
    "refund_fee_sats",
    "refund_token",
    "refund_tokens",
    "refunded_sats",
    "ssh_port",
    "time_remaining_seconds",
];

/// A client of version 0.1.0 that repeats what it did.
struct Client {
    web: Web,
    buyer: Buyer,
    pod: String,
}

impl Client {
    async fn ask(&mut self, name: &str, request: &Value) -> Answer {
        let path = text(request, "path").replace("POD", &self.pod);
        let body = match name {
            "spawned" => {
                let token = self.buyer.token(61).await;
                json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": "fixture password"})
                    .to_string()
            }
            "topped up" => {
                json!({"cashu_token": self.buyer.token(31).await, "pod_name": self.pod}).to_string()
            }
            _ => request["body"].as_str().unwrap_or_default().to_owned(),
        };
        let bearer = match name {
            "spawned" | "topped up" | "pods" | "a pod" | "no such pod" | "stopped" => Some(BEARER),
            "another's pod" => Some(ANOTHER),
            _ => None,
        };
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.map(|bearer| ("authorization", bearer)));
        let answer = self.web.ask(text(request, "method"), &path, &headers, &body).await;
        if name == "spawned" {
            self.pod = text(&answer.good(), "pod_name").to_owned();
        }
        answer
    }
}

/// Without what was added, and with the kinds of values that are of one run.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !ADDED.contains(&name.as_str()));
            let compare = |(name, value): (&String, &Value)| {
                let is_of_one_run = OF_ONE_RUN.contains(&name.as_str());
                (name.clone(), if is_of_one_run { kind(value) } else { comparable(value) })
            };
            Value::Object(kept.map(compare).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(comparable).collect()),
        other => other.clone(),
    }
}

fn kind(value: &Value) -> Value {
    json!(match value {
        Value::String(_) => "a string",
        Value::Number(_) => "a number",
        Value::Array(items) if items.iter().all(Value::is_string) => "strings",
        other => panic!("{other} differs in each run"),
    })
}

/// The fields are in the order in which they were sent: sorted, or in an offer its own.
fn assert_order(name: &str, body: &str) {
    let again = if name == "offers" {
        serde_json::to_string(&serde_json::from_str::<OfferContent>(body).unwrap()).unwrap()
    } else {
        serde_json::from_str::<Value>(body).unwrap().to_string()
    };
    assert_eq!(again, body, "{name}");
}

fn headers(answer: &Answer) -> BTreeMap<String, String> {
    let sent = answer.headers.iter();
    sent.filter(|(name, _)| !OTHER_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect()
}

/// A price, in band and to be scanned: of the same form, of one mint.
fn assert_requests(recorded: &str, sent: &str) {
    let (recorded, sent) = (requested_payment(recorded).unwrap(), requested_payment(sent).unwrap());
    assert_eq!(sent.has_transport, recorded.has_transport);
    assert_eq!(sent.mints.len(), recorded.mints.len());
    // Since then it includes the mint's input fee.
    assert_eq!((recorded.sat, sent.sat), (10, 11));
}

fn assert_same_headers(name: &str, recorded: &Value, answer: &Answer) {
    let pairs: Vec<(String, String)> = serde_json::from_value(recorded["headers"].clone()).unwrap();
    let mut recorded: BTreeMap<String, String> = pairs.into_iter().collect();
    let mut sent = headers(answer);
    for (added, value) in ADDED_HEADERS {
        assert_eq!(sent.remove(added).as_deref(), Some(value), "{name}: {added}");
    }
    if let Some(request) = recorded.remove("x-cashu") {
        assert_requests(&request, &sent.remove("x-cashu").unwrap());
    }
    assert_eq!(sent, recorded, "{name}");
}

fn assert_same_body(name: &str, recorded: &str, sent: &str) {
    if name == "healthz" {
        return assert_eq!(sent, recorded);
    }
    assert_order(name, recorded);
    assert_order(name, sent);
    let read = |body: &str| serde_json::from_str::<Value>(body).unwrap();
    let (mut recorded, mut sent) = (read(recorded), read(sent));
    if let Some(request) = recorded["payment_request"].as_str() {
        assert_requests(request, text(&sent, "payment_request"));
    }
    if name == "spawned" {
        assert_same_instructions(&recorded, &sent);
    }
    if let Some((_, before, now)) = REWORDED.iter().find(|(problem, ..)| *problem == name) {
        for (value, text) in [(&mut recorded, before), (&mut sent, now)] {
            for field in ["detail", "message"] {
                assert_eq!(value[field], *text, "{name}");
                value[field] = kind(&value[field]);
            }
        }
    }
    // How refunds are summed up has changed.
    if name == "stopped" {
        for value in [&mut recorded, &mut sent] {
            value["message"] = kind(&value["message"]);
        }
    }
    assert_eq!(comparable(&sent), comparable(&recorded), "{name}");
}

/// The login's command and its end; then what was added.
fn assert_same_instructions(recorded: &Value, sent: &Value) {
    let instructions = |answer: &Value| -> Vec<String> {
        let port = answer["ssh_port"].to_string();
        let (end, pod) = (text(answer, "expires_at"), text(answer, "pod_name"));
        let lines = answer["instructions"].as_array().unwrap().iter().take(2);
        lines
            .map(|line| line.as_str().unwrap())
            .map(|line| line.replace(&port, "PORT").replace(end, "END").replace(pod, "POD"))
            .collect()
    };
    assert_eq!(instructions(sent), instructions(recorded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_version_0_1_0_gets_the_same_answers() {
    let (sandbox, _running, web, buyer) = opened(&[("SSH_HOST", HOST)], "").await;
    let mut client = Client { web, buyer, pod: String::new() };
    let mut compared = 0;
    for line in RECORDED.lines() {
        let recorded: Value = serde_json::from_str(line).unwrap();
        let name = text(&recorded, "name");
        let answer = client.ask(name, &recorded["request"]).await;
        assert_eq!(recorded["status"], answer.status, "{name}: {}", answer.body);
        assert_same_headers(name, &recorded, &answer);
        let sent = answer.body.replace(sandbox.mint.url(), "MINT");
        assert_same_body(name, text(&recorded, "body"), &sent);
        compared += 1;
    }
    assert_eq!(compared, 15);
}
