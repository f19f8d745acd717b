//! What an order is made of, with the bare libraries: cdk receives its token, kube creates its Job, and
//! its pod becomes ready.

use crate::support::testbed::Market;
use crate::{in_workloads, objects};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::{self, Event};
use paygress_cluster::connection::client;
use paygress_sandbox::TestWallet;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// As many as the service pays at a mint at the same time.
const AT_ONCE: usize = 16;
const LEASE: &str = "paygress.dev/lease";
const INSTANCE: &str = "paygress.dev/instance";
const OTHERS: &str = "bare";
/// How long the last of their pods may take.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// How many there are in a second.
pub(super) struct Speed {
    /// Until all Jobs are created.
    pub(super) created: f64,
    /// Until all pods are ready.
    pub(super) ready: f64,
}

/// How fast they are, with these tokens. The Jobs are those of the service, with ports from this one on.
pub(super) fn orders_per_second(market: &Market, tokens: Vec<String>, first_port: usize) -> Speed {
    let (template, count) = (Template::of_a_lease(), tokens.len());
    let orders: Vec<(String, Job)> = tokens
        .into_iter()
        .enumerate()
        .map(|(number, token)| (token, template.job(number, first_port + number)))
        .collect();
    let (created, ready) = market.runtime().block_on(async {
        let client = client(Some(market.kubeconfig())).await.unwrap();
        let jobs: Api<Job> = Api::namespaced(client.clone(), "user-workloads");
        let pods: Api<Pod> = Api::namespaced(client, "user-workloads");
        let mut working = Vec::new();
        for orders in orders.chunks(count.div_ceil(AT_ONCE)) {
            let wallet = TestWallet::new(market.mint()).await.unwrap();
            working.push(work(wallet, jobs.clone(), orders.to_vec()));
        }
        let ready = tokio::spawn(wait_ready(pods, count));
        let begun = Instant::now();
        working.into_iter().collect::<JoinSet<()>>().join_all().await;
        let created = begun.elapsed();
        tokio::time::timeout(READY_WITHIN, ready).await.expect("the pods become ready").unwrap();
        (created, begun.elapsed())
    });
    let per_second = |took: Duration| f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64();
    Speed { created: per_second(created), ready: per_second(ready) }
}

/// Waits until so many of these pods are ready.
async fn wait_ready(pods: Api<Pod>, count: usize) {
    let config = watcher::Config::default().labels(&format!("{INSTANCE}={OTHERS}"));
    let mut events = std::pin::pin!(watcher::watcher(pods, config));
    let mut ready = BTreeSet::new();
    while ready.len() < count {
        let event = events.next().await.expect("a watch does not end");
        if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event
            && is_ready(&pod)
        {
            ready.insert(pod.name_any());
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn work(wallet: TestWallet, jobs: Api<Job>, orders: Vec<(String, Job)>) {
    for (token, job) in orders {
        wallet.receive(&token).await.unwrap();
        jobs.create(&PostParams::default(), &job).await.unwrap();
    }
}

/// The Job of a lease, as text.
struct Template {
    text: String,
    lease: String,
    /// With its name, as it stands in the text.
    port: String,
}

impl Template {
    fn of_a_lease() -> Self {
        let names = objects("job");
        let name = names.lines().next().expect("there is a lease");
        let job: Value = serde_json::from_str(&in_workloads(&["get", name, "-o", "json"])).unwrap();
        let lease = job["metadata"]["labels"][LEASE].as_str().unwrap().to_owned();
        let mut labels = job["metadata"]["labels"].clone();
        // The service leaves those of others alone.
        labels[INSTANCE] = json!(OTHERS);
        let mut spec = job["spec"].clone();
        spec.as_object_mut().unwrap().remove("selector");
        spec["template"]["metadata"] = json!({"labels": labels});
        let port = host_port(&spec).to_string();
        let text = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job["metadata"]["name"], "labels": labels},
            "spec": spec,
        });
        Self { text: text.to_string(), lease, port: format!("\"hostPort\":{port}") }
    }

    fn job(&self, number: usize, port: usize) -> Job {
        // As long as those of leases, and of their alphabet.
        let digits = format!("{number:06}");
        let suffix: String = digits.bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        let lease = format!("bare{suffix}");
        let text = self.text.replace(&self.lease, &lease);
        serde_json::from_str(&text.replace(&self.port, &format!("\"hostPort\":{port}"))).unwrap()
    }
}

fn host_port(spec: &Value) -> u64 {
    let containers = spec["template"]["spec"]["containers"].as_array().unwrap();
    let mut ports =
        containers.iter().flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.find_map(|port| port["hostPort"].as_u64()).expect("it has a port of its node")
}
