//! What is kept of a pod.

use super::demand::{NodeRules, PodDemand};
use crate::objects::{LEASE, PROBE};
use k8s_openapi::api::core::v1;
use kube::ResourceExt;

/// What is kept of a pod that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) demand: PodDemand,
    pub(super) place: Place,
    /// None: it is in another namespace than customers' pods.
    pub(super) owner: Option<Owner>,
    /// What it belongs to may be gone already.
    pub(super) is_ending: bool,
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Node(String),
    /// The scheduler will look for a node.
    Pending,
    /// Scheduling gates keep it from the scheduler, and it is not a lease's: it may never run.
    Gated,
}

/// Whose a pod of the customers' namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The id of the lease.
    Lease(String),
    /// Nobody's: it is gone as soon as an order needs its room.
    Probe,
    Other,
}

impl Pod {
    pub(super) fn of(pod: &v1::Pod, namespace: &str) -> Self {
        let mut demand = PodDemand::of(pod);
        let spec = pod.spec.as_ref();
        let node = spec.and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
        let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
        let is_ours = pod.metadata.namespace.as_deref() == Some(namespace);
        let owner = is_ours.then(|| match pod.labels().get(LEASE) {
            Some(_) if pod.labels().contains_key(PROBE) => Owner::Probe,
            Some(lease) => Owner::Lease(lease.clone()),
            None => Owner::Other,
        });
        // That of a lease was sold a place: its reservation is counted by it, gated or not.
        let is_lease = matches!(owner, Some(Owner::Lease(_)));
        let place = match node {
            Some(node) => Place::Node(node),
            None if !is_lease && gates.is_some_and(|gates| !gates.is_empty()) => Place::Gated,
            None => Place::Pending,
        };
        if place != Place::Pending {
            demand.nodes = NodeRules::default();
        }
        let is_ending = pod.metadata.deletion_timestamp.is_some();
        Self { demand, place, owner, is_ending }
    }
}
