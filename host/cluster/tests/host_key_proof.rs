//! A pod whose server has to prove its host keys is not ready before it has, whatever the kubelet
//! reports.
#![cfg(test)]

mod support;

use paygress_cluster::{Kubernetes, Settings};
use paygress_core::backend::cluster::{ClusterError, PodLauncher, ReadyPod};
use paygress_core::model::access::AccessModes;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::PodName;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::Seconds;
use paygress_sshd::{Account, HostKeySecret, HostKeys, Password, serve};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use support::{kubeconfig, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const POD: &str = "ssh-pod-abcdefghij";
const LEASE: &str = "abcdefghij";
const JOB: &str = r#"{"kind": "Job", "apiVersion": "batch/v1",
    "metadata": {"name": "ssh-pod-abcdefghij", "uid": "a"}}"#;
const SOON: Duration = Duration::from_secs(60);
/// With the pauses between them they take longer than a probe pod, or one that replaces another, is
/// waited for.
const ATTEMPTS: usize = 64;

/// The list of the pods: one, with the server mounted, which listens there and is ready for the
/// kubelet.
fn pods(port: u16) -> String {
    let command = ["/.paygress/paygress-sshd", "--listen", &format!("[::]:{port}")];
    let spec = json!({
        "containers": [{"name": "ssh", "command": command}],
        "volumes": [{"name": "paygress", "image": {"reference": "server:1"}}],
    });
    let conditions =
        ["PodScheduled", "Ready"].map(|condition| json!({"type": condition, "status": "True"}));
    let status = json!({"phase": "Running", "podIP": "127.0.0.1", "conditions": conditions});
    let labels = json!({"paygress.dev/lease": LEASE});
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": POD, "uid": "a",
        "controller": true});
    let metadata = json!({
        "name": POD,
        "namespace": "user-workloads",
        "labels": labels,
        "ownerReferences": [owner],
    });
    let pod = json!({"metadata": metadata, "spec": spec, "status": status});
    let of_list = json!({"resourceVersion": "1"});
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": of_list, "items": [pod]}).to_string()
}

/// Answers one request of an API server with these pods, or their Job, in which nothing ever changes.
async fn answer(mut stream: TcpStream, pods: String) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    let request = String::from_utf8_lossy(&request);
    if request.contains("watch=true") {
        return std::future::pending().await;
    }
    let body = if request.contains("/jobs/") { JOB } else { &pods };
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let answer = format!("{head}content-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn api_server(pods: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, pods.clone()));
        }
    });
    address
}

/// The wait for the pod whose server listens so.
async fn waiting_for(
    server: &TcpListener,
    ready_within: Seconds,
) -> JoinHandle<Result<ReadyPod, ClusterError>> {
    let api_server = api_server(pods(server.local_addr().unwrap().port())).await;
    let file = kubeconfig(&format!("server: \"http://{api_server}\""));
    let settings = Settings { ready_within, ..settings("test", AccessModes::default()) };
    let cluster = Kubernetes::connect(Some(file.path()), settings).await.unwrap();
    tokio::spawn(async move { cluster.ready(&PodName::parse(POD).unwrap()).await })
}

/// The order fails, and its money goes back.
#[tokio::test]
async fn a_pod_is_not_ready_while_somebody_keeps_its_proof_away() {
    // Nothing is ever answered at its address.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let waiting = waiting_for(&server, Seconds(2)).await;
    let failed = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    let Err(error @ ClusterError::NotReady(_)) = failed else { panic!("{failed:?}") };
    let refusal = Refusal::from(error);
    assert_eq!(refusal.code, ErrorType::ProvisioningError);
    let why = "it runs, and its SSH server could not be reached from the service";
    assert!(refusal.message.contains(why), "{refusal:?}");
}

#[tokio::test]
async fn a_pod_is_ready_with_a_proof_that_comes_in_time() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let waiting = waiting_for(&server, Seconds(600)).await;
    for attempt in 0..ATTEMPTS {
        let tried = tokio::time::timeout(SOON, server.accept()).await;
        drop(tried.expect("it is tried again").unwrap());
        assert!(!waiting.is_finished(), "attempt {attempt}");
    }
    let directory = tempfile::tempdir().unwrap();
    // As the service's own: the settings have the seed.
    let secret = HostKeySecret::derive(b"of a test", POD);
    let host_keys = HostKeys::proved(directory.path(), secret).unwrap();
    let account = Account::new("alice", Password::none(), "/");
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(server, account, host_keys, stopped));
    let ready = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    let kinds: Vec<&str> = ready.host_keys.iter().map(HostKey::kind).collect();
    assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256"]);
}
