//! The cluster's capacity at one moment.

use super::demand::{NodeRules, PodDemand};
use super::extra::ExtraCapacity;
use super::nodes::{Node, Nodes, Pending, group};
use super::pods::{Owner, Place, Pod};
use super::quota::Quota;
use super::shapes::Shapes;
use crate::guard::Allowed;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// What is counted of all watched objects.
pub(super) struct Snapshot {
    /// None without the right to read them.
    nodes: Option<Nodes>,
    /// The pods that the scheduler has not placed yet.
    pending: Vec<Pod>,
    /// The leases that have a pod: their reservations are counted by it.
    leases: HashSet<String>,
    /// What the pods of the namespace leave of each.
    quotas: Vec<Quota>,
    utilisation: Utilisation,
}

/// Reservations and pods that have no place yet.
struct Unplaced {
    /// Without a pod: no quota counts them yet.
    reserved: Vec<PodDemand>,
    pending: Pending,
}

impl Snapshot {
    pub(super) fn new<'a>(
        nodes: Option<impl Iterator<Item = &'a Node>>,
        pods: impl Iterator<Item = &'a Pod> + Clone,
        quotas: impl Iterator<Item = &'a Quota> + Clone,
        extra: Option<&ExtraCapacity>,
        usable: &NodeRules,
    ) -> Self {
        let bound = pods.clone().filter_map(|pod| match &pod.place {
            Place::Node(node) => Some((node.as_str(), &pod.demand)),
            Place::Pending | Place::Gated => None,
        });
        let nodes = nodes.map(|nodes| Nodes::new(nodes, bound, extra, usable));
        let counted = pods.clone().filter(|pod| pod.owner.is_some()).map(|pod| &pod.demand);
        let full = |names: [&str; 3]| {
            let shares = quotas.clone().map(|quota| quota.utilisation(&names, counted.clone()));
            shares.max().unwrap_or(0)
        };
        let utilisation = nodes.as_ref().map_or_else(
            || Utilisation {
                cpu: full(["cpu", "requests.cpu", "limits.cpu"]),
                memory: full(["memory", "requests.memory", "limits.memory"]),
            },
            |nodes| nodes.utilisation(std::iter::empty()),
        );
        let leases = pods.clone().filter_map(|pod| match &pod.owner {
            Some(Owner::Lease(lease)) => Some(lease.clone()),
            Some(Owner::Probe | Owner::Other) | None => None,
        });
        Self {
            nodes,
            leases: leases.collect(),
            quotas: quotas.clone().map(|quota| quota.without(counted.clone())).collect(),
            utilisation,
            pending: pods.filter(|pod| pod.place == Place::Pending).cloned().collect(),
        }
    }

    /// Of these reservations, those of leases without a pod.
    fn without_pod(&self, reserved: &[Reservation]) -> Vec<PodDemand> {
        reserved
            .iter()
            .filter(|reserved| !self.leases.contains(reserved.lease.as_str()))
            .filter_map(|reserved| PodDemand::read(&reserved.demand))
            .collect()
    }

    /// What gets a place before or beside a pod of this priority.
    fn unplaced(&self, reserved: &[Reservation], priority: i32) -> Unplaced {
        let reserved = self.without_pod(reserved);
        let (ours, others): (Vec<&Pod>, Vec<&Pod>) =
            self.pending.iter().partition(|pod| matches!(pod.owner, Some(Owner::Lease(_))));
        let others = others.into_iter().map(|pod| &pod.demand);
        let ours = ours.into_iter().map(|pod| &pod.demand).chain(&reserved);
        let pending = Pending {
            others: group(others.filter(|demand| demand.priority >= priority).cloned()),
            ours: group(ours.cloned()),
        };
        Unplaced { reserved, pending }
    }

    fn quotas<'a>(&'a self, unplaced: &'a Unplaced) -> impl Iterator<Item = Quota> + 'a {
        self.quotas.iter().map(|quota| quota.without(unplaced.reserved.iter()))
    }

    fn check(&self, reserved: &[Reservation], new: &PodDemand) -> Result<(), NoCapacity> {
        let unplaced = self.unplaced(reserved, new.priority);
        self.quotas(&unplaced).try_for_each(|quota| quota.check(new))?;
        self.nodes.as_ref().map_or(Ok(()), |nodes| nodes.check(&unplaced.pending, new))
    }

    /// Whether one is counted, and why not.
    fn fits(&self, reserved: &[Reservation], pod: &PodDemand) -> Result<(), NoCapacity> {
        let unplaced = self.unplaced(reserved, pod.priority);
        self.quotas(&unplaced).try_for_each(|quota| quota.check(pod))?;
        self.nodes.as_ref().map_or(Ok(()), |nodes| nodes.fits(&unplaced.pending, pod))
    }

    fn count(&self, reserved: &[Reservation], pod: &PodDemand, most: u32) -> u32 {
        let unplaced = self.unplaced(reserved, pod.priority);
        let most = self.quotas(&unplaced).map(|quota| quota.count(pod, most)).min().unwrap_or(most);
        self.nodes.as_ref().map_or(most, |nodes| nodes.count(&unplaced.pending, pod, most))
    }

    /// Pods of others that wait for a node may wait for ever: they are not counted.
    fn node_utilisation(&self, reserved: &[Reservation]) -> Option<Utilisation> {
        let nodes = self.nodes.as_ref()?;
        let reserved = self.without_pod(reserved);
        let is_ours = |pod: &&Pod| matches!(pod.owner, Some(Owner::Lease(_)));
        let pending = self.pending.iter().filter(is_ours).map(|pod| &pod.demand);
        Some(nodes.utilisation(pending.chain(&reserved)))
    }
}

/// A snapshot, and what the pods of each tier have needed.
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) shapes: Shapes,
    pub(super) allowed: Allowed,
}

impl Capacity for View {
    fn check(&self, reserved: &[Reservation], demand: &Demand) -> Result<(), NoCapacity> {
        PodDemand::read(demand).map_or(Ok(()), |demand| self.snapshot.check(reserved, &demand))
    }

    fn fits(&self, reserved: &[Reservation], tier: &Tier) -> Result<(), NoCapacity> {
        let mut refused: Option<NoCapacity> = None;
        for pod in self.shapes.of(tier, &self.allowed, Instant::now()) {
            match self.snapshot.fits(reserved, &pod) {
                Ok(()) => return Ok(()),
                Err(reason) => {
                    refused = refused.filter(|before| !before.is_lasting()).or(Some(reason));
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Where the template asks for one thing now and for another then, as many as the most modest
    /// of them: an offer is sold out when none fits.
    fn count(&self, reserved: &[Reservation], tier: &Tier, most: u32) -> u32 {
        let pods = self.shapes.of(tier, &self.allowed, Instant::now());
        let counts = pods.iter().map(|pod| self.snapshot.count(reserved, pod, most));
        counts.max().unwrap_or(most)
    }

    fn known_demands(&self, tier: &Tier) -> Vec<Demand> {
        let seen = self.shapes.seen(tier, Instant::now());
        seen.iter().map(PodDemand::to_demand).collect()
    }

    fn utilisation(&self) -> Utilisation {
        self.snapshot.utilisation
    }

    fn node_utilisation(&self, reserved: &[Reservation]) -> Option<Utilisation> {
        self.snapshot.node_utilisation(reserved)
    }
}
