//! The watches, of an API server that denies rights.

use super::super::watch::{CapacityWatch, RightsRetry};
use super::*;
use kube::{Client, Config};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const NAMESPACE_PODS: &str = "/api/v1/namespaces/user-workloads/pods";
const QUOTAS: &str = "/api/v1/namespaces/user-workloads/resourcequotas";

/// So many pods with 1 core and with 2 cores fit: a node of 4 cores, and a quota of 3 pods…
const ALL: Option<(u32, u32)> = Some((3, 2));
/// …without the node…
const QUOTA_ALONE: Option<(u32, u32)> = Some((3, 3));
/// …and without the quota.
const NODE_ALONE: Option<(u32, u32)> = Some((4, 2));

#[derive(Default)]
struct Requests {
    /// How many of the next requests for a path are denied.
    denied: HashMap<&'static str, usize>,
    /// How many for a path were served since.
    served: HashMap<String, usize>,
}

impl Requests {
    /// Whether this request is denied.
    fn deny(&mut self, path: &str) -> bool {
        match self.denied.get_mut(path) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => {
                *self.served.entry(path.to_owned()).or_default() += 1;
                false
            }
        }
    }
}

struct ApiServer {
    requests: Mutex<Requests>,
    /// Ends the watches that are open.
    broken: watch::Sender<()>,
}

fn list(path: &str) -> String {
    let items = match path {
        NODES => vec![node("a", 4, 8, 10)],
        QUOTAS => {
            let metadata = json!({"name": "customers", "namespace": NAMESPACE});
            vec![json!({"metadata": metadata, "spec": {"hard": {"pods": "3"}}})]
        }
        _ => vec![],
    };
    let metadata = json!({"resourceVersion": "1"});
    json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string()
}

impl ApiServer {
    async fn start() -> (Arc<Self>, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let broken = watch::Sender::new(());
        let server = Arc::new(Self { requests: Mutex::default(), broken });
        let accepting = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).serve(stream));
            }
        });
        let mut config = Config::new(url.parse().unwrap());
        config.default_retry = false;
        (server, Client::try_from(config).unwrap())
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut broken = self.broken.subscribe();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        let request = String::from_utf8(request).unwrap();
        let target = request.split(' ').nth(1).unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_watch = query.contains("watch=true");
        let is_denied = self.requests.lock().unwrap().deny(path);
        let (status, body) = match (is_denied, is_watch) {
            (true, _) => ("403 Forbidden", denial()),
            (false, true) => ("200 OK", String::new()),
            (false, false) => ("200 OK", list(path)),
        };
        // Without a length, the answer ends with the connection.
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).await.is_ok() && is_watch && !is_denied {
            let _ = broken.changed().await;
        }
        let _ = stream.shutdown().await;
    }

    /// Denies so many requests for this path from now on, and ends all watches.
    fn deny(&self, path: &'static str, times: usize) {
        let mut requests = self.requests.lock().unwrap();
        requests.denied.insert(path, times);
        requests.served.remove(path);
        drop(requests);
        self.broken.send_replace(());
    }

    fn has_served(&self, path: &str) -> bool {
        self.requests.lock().unwrap().served.contains_key(path)
    }
}

fn denial() -> String {
    let reason = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "forbidden", "reason": "Forbidden", "code": 403});
    reason.to_string()
}

async fn counts(watch: &CapacityWatch) -> Option<(u32, u32)> {
    let capacity = watch.capacity().await?;
    let count = |cores: u32| capacity.count(&[], &tier(cores), 9);
    Some((count(1), count(2)))
}

/// Polls until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), poll).await.is_ok(), "{what}");
}

fn begin(client: Client) -> CapacityWatch {
    let retry = RightsRetry { first: Duration::from_millis(5), later: Duration::from_millis(20) };
    CapacityWatch::begin_with(client, NAMESPACE, &Allowed::default(), None, retry)
}

/// An API server that has just started denies what it permits a moment later.
#[tokio::test]
async fn what_is_known_is_kept_while_a_right_is_missing_for_a_moment() {
    for (path, times) in [NODES, PODS, QUOTAS].map(|path| [(path, 1), (path, 5)]).concat() {
        let (server, client) = ApiServer::start().await;
        let watch = begin(client);
        until("the first lists", async || counts(&watch).await == ALL).await;
        server.deny(path, times);
        until("it is not tried again", async || {
            assert_eq!(counts(&watch).await, ALL, "{path}, denied {times} times");
            server.has_served(path)
        })
        .await;
        assert_eq!(counts(&watch).await, ALL, "{path}, denied {times} times");
    }
}

#[tokio::test]
async fn what_lasts_is_a_missing_right() {
    let (server, client) = ApiServer::start().await;
    let watch = begin(client);
    until("the first lists", async || counts(&watch).await == ALL).await;
    server.deny(QUOTAS, usize::MAX);
    until("the quotas are no longer counted", async || counts(&watch).await == NODE_ALONE).await;
    server.deny(QUOTAS, 0);
    until("the quotas are counted again", async || counts(&watch).await == ALL).await;
    for path in [NODES, PODS] {
        server.deny(path, usize::MAX);
        until("the nodes are no longer counted", async || counts(&watch).await == QUOTA_ALONE)
            .await;
        // The pods of the namespace are kept in the same way.
        server.deny(NAMESPACE_PODS, 1);
        until("it is not tried again", async || {
            assert_eq!(counts(&watch).await, QUOTA_ALONE, "{path}");
            server.has_served(NAMESPACE_PODS)
        })
        .await;
        server.deny(NAMESPACE_PODS, usize::MAX);
        until("nothing is counted", async || watch.is_pending()).await;
        server.deny(NAMESPACE_PODS, 0);
        until("the quota is counted again", async || counts(&watch).await == QUOTA_ALONE).await;
        server.deny(path, 0);
        until("the nodes are counted again", async || counts(&watch).await == ALL).await;
    }
}

/// Nothing is known that could be kept: the quotas are counted at once.
#[tokio::test]
async fn a_right_that_is_missing_from_the_start_is_not_waited_for() {
    let (server, client) = ApiServer::start().await;
    server.deny(NODES, usize::MAX);
    let retry = RightsRetry { first: Duration::from_secs(3_600), ..RightsRetry::default() };
    let watch = CapacityWatch::begin_with(client, NAMESPACE, &Allowed::default(), None, retry);
    assert!(watch.is_pending());
    until("the quota", async || counts(&watch).await == QUOTA_ALONE).await;
    assert!(!watch.is_pending());
}

/// Keeps the fields of each warning.
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if *event.metadata().level() == Level::WARN {
            let mut fields = EventFields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct EventFields(String);

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{field}: {value:?}; "));
    }
}

#[tokio::test]
async fn without_the_rights_the_log_says_that_only_quotas_are_counted() {
    for (path, missing) in [(NODES, "nodes"), (PODS, "pods")] {
        let warnings = Arc::default();
        let _logged = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
        let (server, client) = ApiServer::start().await;
        server.deny(path, usize::MAX);
        let watch = begin(client);
        until("the quota", async || counts(&watch).await == QUOTA_ALONE).await;
        let warnings = warnings.lock().unwrap();
        let missing = format!("missing: \"{missing}\"");
        let texts = [missing.as_str(), "only quotas are counted", "k8s/base/capacity.yaml"];
        let is_logged = |warning: &String| texts.iter().all(|text| warning.contains(text));
        assert!(warnings.iter().any(is_logged), "{missing}: {warnings:?}");
    }
}
