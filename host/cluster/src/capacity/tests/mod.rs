//! Everything that is counted, from the objects as the API server sends them.
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod counting;
mod placing;
mod watching;

use super::demand::{LeaseObjects, PodDemand};
use super::extra::ExtraCapacity;
use super::objects::{Objects, Scope};
use super::shapes::{Shapes, usable_nodes};
use super::snapshot::View;
use crate::guard::{Allowed, Overcommit};
use crate::objects::LEASE;
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota};
use kube::runtime::watcher::Event;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::policy::Resources;
use paygress_core::model::ids::{LeaseId, OrderId, TierId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "user-workloads";

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The cluster of a test.
#[derive(Default)]
struct Cluster {
    nodes: Vec<Value>,
    pods: Vec<Value>,
    quotas: Vec<Value>,
    extra: Option<&'static str>,
    allowed: Allowed,
}

impl Cluster {
    fn of(nodes: Vec<Value>) -> Self {
        Self { nodes, ..Self::default() }
    }

    fn objects(&self) -> Objects {
        let items = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let extra = self.extra.map(|text| ExtraCapacity::parse(&items(text)).unwrap());
        let mut objects = Objects::new(NAMESPACE, extra, usable_nodes(&self.allowed));
        objects.node_event(Event::Init);
        objects.pod_event(Event::Init);
        for node in &self.nodes {
            objects.node_event(Event::InitApply(object(node.clone())));
        }
        for pod in &self.pods {
            objects.pod_event(Event::InitApply(object(pod.clone())));
        }
        for quota in &self.quotas {
            objects.quota_event(Event::InitApply(object(quota.clone())));
        }
        objects.node_event(Event::<Node>::InitDone);
        objects.pod_event(Event::<Pod>::InitDone);
        objects.quota_event(Event::<ResourceQuota>::InitDone);
        objects
    }

    fn view(&self) -> View {
        let snapshot = self.objects().snapshot().unwrap();
        View { snapshot, shapes: Shapes::default(), allowed: self.allowed.clone() }
    }

    fn check(&self, reserved: &[Reservation], pod: &Value) -> Result<(), NoCapacity> {
        self.view().check(reserved, &demand(pod))
    }
}

/// A ready node with so many cores, GiB and places for pods.
fn node(name: &str, cpu: u32, memory: u32, pods: u32) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "size": cpu.to_string()}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": cpu.to_string(), "memory": format!("{memory}Gi"), "pods": pods.to_string(), "nvidia.com/gpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// Of pods with so many cores and 1 GiB.
fn tier(cores: u32) -> Tier {
    let resources = Resources { cpu_millicores: cores * 1_000, memory_mib: 1_024 };
    Tier { id: TierId::parse("basic").unwrap(), resources }
}

/// The specification of a pod with these requests, which are its limits too.
fn spec(cpu: &str, memory: &str) -> Value {
    let amounts = json!({"cpu": cpu, "memory": memory});
    json!({"containers": [{"name": "ssh", "resources": {"requests": amounts, "limits": amounts}}]})
}

/// With other fields.
fn with(mut spec: Value, fields: Value) -> Value {
    let fields = fields.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    spec
}

fn with_port(mut spec: Value, port: u16) -> Value {
    spec["containers"][0]["ports"] = json!([{"containerPort": 2222, "hostPort": port}]);
    spec
}

fn demand(spec: &Value) -> Demand {
    PodDemand::of(&object(json!({"spec": spec}))).to_demand()
}

fn lease() -> LeaseId {
    LeaseId::of(&OrderId::random())
}

fn reserved(spec: &Value) -> Reservation {
    Reservation { lease: lease(), demand: demand(spec) }
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "other"}, "spec": spec, "status": {"phase": "Pending"}})
}

fn on(node: &str, spec: Value) -> Value {
    with(spec, json!({"nodeName": node}))
}

fn pod_of(lease: &LeaseId, spec: Value) -> Value {
    let metadata =
        json!({"name": lease.as_str(), "namespace": NAMESPACE, "labels": {LEASE: lease.as_str()}});
    json!({"metadata": metadata, "spec": spec})
}
