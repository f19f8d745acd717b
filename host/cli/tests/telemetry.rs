//! Traces: where they are sent, what they contain, and what they must not. A program of its own,
//! since it sets the global subscriber.
#![cfg(test)]

mod support;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use paygress::sandbox::Sandbox;
use paygress::telemetry;
use serde_json::json;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use support::customer::{Buyer, Running};
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A collector that stores what it receives.
async fn collector() -> (String, Arc<Mutex<Vec<(String, Vec<u8>)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let keep = Arc::clone(&keep);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let keep = Arc::clone(&keep);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                    keep.lock().unwrap().push((path, body));
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (endpoint, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_a_trace_and_its_secrets_are_not_in_it() {
    let (endpoint, kept) = collector().await;
    let (layer, traces) = telemetry::layer(&endpoint).unwrap();
    tracing_subscriber::registry().with(layer).init();
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let digest = paygress_core::Policy::report(&**app.policies.host())[0].digest.clone();
    let running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let token = buyer.token(11).await;
    let password = "a very secret password";
    let answer = buyer
        .ask(json!({"cashu_token": token, "ssh_password": password, "ssh_username": "trudy"}))
        .await;
    assert!(answer["pod_name"].is_string(), "{answer}");
    let refused = buyer.ask(json!({"cashu_token": buyer.token(2).await, "tier": "galactic"})).await;
    assert_eq!(refused["error_type"], "invalid_spec");
    drop(running);
    tokio::task::spawn_blocking(move || drop(traces)).await.unwrap();

    let kept = std::mem::take(&mut *kept.lock().unwrap());
    assert!(kept.iter().all(|(path, _)| path == "/v1/traces"));
    let bytes: Vec<u8> = kept.iter().flat_map(|(_, body)| body.clone()).collect();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for text in [
        "paygress",
        "order",
        "step",
        "policy",
        "pod-template",
        "received",
        "provisioning",
        "outcome",
        "invalid_spec",
        "yes",
    ] {
        assert!(has(text), "{text} is not in the traces");
    }
    assert!(has(digest.as_str()), "the digest of the component that decided");
    for secret in [&token[..], password, "trudy", "cashuA", "cashuB", "nsec1"] {
        assert!(!has(secret), "a secret is in the traces");
    }
}
