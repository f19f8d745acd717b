//! Placing pods on nodes, as the scheduler does.

use super::amounts::Amounts;
use super::demand::{HostPort, NodeRules, PodDemand, Taint};
use super::extra::ExtraCapacity;
use super::thousandths;
use crate::quantity::whole;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use paygress_core::backend::capacity::{NoCapacity, Utilisation};
use paygress_core::model::units::UnixTime;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Where a node comes from. The cluster's own come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Autoscaler,
    Cluster,
}

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    name: String,
    origin: Origin,
    labels: BTreeMap<String, String>,
    /// Those that keep pods away.
    taints: Vec<Taint>,
    allocatable: Amounts,
    pods: u64,
    /// It is ready, and not cordoned.
    is_schedulable: bool,
    /// Its kubelet was ready, or was expected to be, and is not.
    is_unready: bool,
}

fn ready_condition(node: &v1::Node) -> Option<&v1::NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// What a node reports of its kubelet; none: it has not reported yet.
fn readiness(node: &v1::Node) -> Option<&str> {
    ready_condition(node).map(|ready| ready.status.as_str())
}

/// Whether a node's kubelet is not ready, or does not report.
pub(crate) fn is_unready(node: &v1::Node) -> bool {
    readiness(node).is_some_and(|status| status != "True")
}

/// Until when a node was ready that is not, by its own clock and the cluster's; none where they do not
/// say. One that does not report was ready at its last report, of which the kubelet sends one in five
/// minutes at least; the cluster notices its silence later.
pub(crate) fn ready_until(node: &v1::Node) -> Option<UnixTime> {
    let ready = ready_condition(node)?;
    let changed = ready.last_transition_time.as_ref();
    let at = match ready.status.as_str() {
        "True" => None,
        "Unknown" => ready.last_heartbeat_time.as_ref().or(changed),
        _ => changed,
    }?;
    u64::try_from(at.0.as_second()).ok().map(UnixTime)
}

impl Node {
    pub(super) fn of(node: &v1::Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        let is_ready = readiness(node) == Some("True");
        let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let pods: Option<&Quantity> = allocatable.and_then(|amounts| amounts.get("pods"));
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            origin: Origin::Cluster,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints
                .filter(|taint| taint.effect != "PreferNoSchedule")
                .map(Taint::of)
                .collect(),
            allocatable: Amounts::of(allocatable),
            pods: pods.and_then(whole).unwrap_or(0),
            is_schedulable: is_ready && spec.is_none_or(|spec| spec.unschedulable != Some(true)),
            is_unready: is_unready(node),
        }
    }

    /// Its name, if it is not ready.
    pub(super) fn unready(&self) -> Option<&str> {
        self.is_unready.then_some(self.name.as_str())
    }

    fn added(extra: &ExtraCapacity) -> Self {
        Self {
            name: String::new(),
            origin: Origin::Autoscaler,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            allocatable: extra.allocatable.clone(),
            pods: extra.pods,
            is_schedulable: true,
            is_unready: false,
        }
    }

    /// The labels and taints of nodes that are not there yet are not known: the operator names
    /// those that take the pods.
    fn permits(&self, rules: &NodeRules) -> bool {
        self.origin == Origin::Autoscaler || rules.permit(&self.name, &self.labels, &self.taints)
    }

    fn takes(&self, rules: &NodeRules) -> bool {
        self.is_schedulable && self.permits(rules)
    }
}

/// What is left of a node.
#[derive(Clone, Debug)]
struct Free {
    amounts: Amounts,
    pods: u64,
    ports: BTreeSet<HostPort>,
}

impl Free {
    fn take(&mut self, requests: &Amounts, ports: &[HostPort]) {
        self.amounts.subtract(requests);
        self.pods = self.pods.saturating_sub(1);
        self.ports.extend(ports);
    }
}

/// The next node for a pod is the greatest: the one with the largest share free.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    origin: Origin,
    free: u32,
    index: Reverse<usize>,
}

/// Pods that differ in their ports alone, and their ports.
pub(super) type Groups = BTreeMap<PodDemand, Vec<Vec<HostPort>>>;

pub(super) fn group(demands: impl Iterator<Item = PodDemand>) -> Groups {
    let mut groups = Groups::new();
    for mut demand in demands {
        let ports = std::mem::take(&mut demand.host_ports);
        groups.entry(demand).or_default().push(ports);
    }
    groups
}

/// Pods that have no node yet.
#[derive(Default)]
pub(super) struct Pending {
    /// Of others, with the priority of ours or a higher one.
    pub(super) others: Groups,
    pub(super) ours: Groups,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.others.is_empty() && self.ours.is_empty()
    }
}

/// The nodes, and what the pods on them leave.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    free: Vec<Free>,
    /// What those of the cluster that may be used have for pods.
    allocatable: Amounts,
    /// What the pods on these request.
    requested: Amounts,
}

impl Nodes {
    /// `bound` are the pods and the names of their nodes.
    pub(super) fn new<'a>(
        real: impl Iterator<Item = &'a Node>,
        bound: impl Iterator<Item = (&'a str, &'a PodDemand)>,
        extra: Option<&ExtraCapacity>,
        usable: &NodeRules,
    ) -> Self {
        let mut nodes: Vec<Node> = real.cloned().collect();
        if let Some(extra) = extra {
            // An autoscaler's limit is of nodes that are not ready too.
            let cluster = nodes.iter().filter(|node| node.permits(usable)).count();
            let added = extra.nodes_beside(cluster);
            nodes.extend(std::iter::repeat_n(Node::added(extra), added));
        }
        let empty = |node: &Node| Free {
            amounts: node.allocatable.clone(),
            pods: node.pods,
            ports: BTreeSet::new(),
        };
        let mut free: Vec<Free> = nodes.iter().map(empty).collect();
        let mut used: Vec<Amounts> = vec![Amounts::default(); nodes.len()];
        let by_name: BTreeMap<&str, usize> = nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.origin == Origin::Cluster)
            .map(|(index, node)| (node.name.as_str(), index))
            .collect();
        for (name, pod) in bound {
            let Some(index) = by_name.get(name) else { continue };
            if let (Some(free), Some(used)) = (free.get_mut(*index), used.get_mut(*index)) {
                free.take(&pod.requests, &pod.host_ports);
                used.add(&pod.requests);
            }
        }
        let (mut allocatable, mut requested) = (Amounts::default(), Amounts::default());
        for (node, used) in nodes.iter().zip(&used) {
            if node.origin == Origin::Cluster && node.takes(usable) {
                allocatable.add(&node.allocatable);
                requested.add(used);
            }
        }
        Self { nodes, free, allocatable, requested }
    }

    /// The share of requests, as `kubectl describe nodes` gives it, of all nodes that may be used; and
    /// of these pods, which have no node yet.
    pub(super) fn utilisation<'a>(
        &self,
        unplaced: impl Iterator<Item = &'a PodDemand>,
    ) -> Utilisation {
        let mut requested = self.requested.clone();
        unplaced.for_each(|pod| requested.add(&pod.requests));
        Utilisation {
            cpu: thousandths(requested.cpu, self.allocatable.cpu),
            memory: thousandths(requested.memory, self.allocatable.memory),
        }
    }

    fn score(&self, index: usize, free: &Free, requests: &Amounts) -> Option<Score> {
        let node = self.nodes.get(index)?;
        let cpu = thousandths(free.amounts.cpu, node.allocatable.cpu);
        let memory = thousandths(free.amounts.memory, node.allocatable.memory);
        (free.pods > 0 && requests.fits_in(&free.amounts)).then_some(Score {
            origin: node.origin,
            free: cpu.saturating_add(memory),
            index: Reverse(index),
        })
    }

    /// Places pods that differ in their ports alone; returns how many got a place.
    fn place<'a>(
        &self,
        free: &mut [Free],
        demand: &PodDemand,
        pods: impl Iterator<Item = &'a [HostPort]>,
    ) -> u32 {
        let requests = &demand.requests;
        let mut queue: BinaryHeap<Score> = free
            .iter()
            .zip(&self.nodes)
            .enumerate()
            .filter(|(_, (_, node))| node.takes(&demand.nodes))
            .filter_map(|(index, (free, _))| self.score(index, free, requests))
            .collect();
        let mut placed = 0_u32;
        for ports in pods {
            let mut port_taken = Vec::new();
            while let Some(best) = queue.pop() {
                let Some(node) = free.get_mut(best.index.0) else { continue };
                if ports.iter().any(|port| node.ports.contains(port)) {
                    port_taken.push(best);
                    continue;
                }
                node.take(requests, ports);
                placed = placed.saturating_add(1);
                queue.extend(self.score(best.index.0, node, requests));
                break;
            }
            queue.extend(port_taken);
            if queue.is_empty() {
                break;
            }
        }
        placed
    }

    fn place_all(&self, free: &mut [Free], groups: &Groups) -> u32 {
        groups
            .iter()
            .map(|(demand, ports)| self.place(free, demand, ports.iter().map(Vec::as_slice)))
            .fold(0, u32::saturating_add)
    }

    fn place_one(&self, free: &mut [Free], demand: &PodDemand) -> u32 {
        self.place(free, demand, std::iter::once(demand.host_ports.as_slice()))
    }

    /// Places this pod after the pending ones; returns how many of ours got a place before it.
    fn place_last(&self, pending: &Pending, new: &PodDemand) -> Result<u32, NoCapacity> {
        let permitted: Vec<&Node> =
            self.nodes.iter().filter(|node| node.permits(&new.nodes)).collect();
        let is_large_enough =
            |node: &&Node| node.pods > 0 && new.requests.fits_in(&node.allocatable);
        if !permitted.is_empty() && !permitted.iter().any(is_large_enough) {
            return Err(NoCapacity::TooLarge);
        }
        let mut last = self.free.clone();
        self.place_all(&mut last, &pending.others);
        let placed = self.place_all(&mut last, &pending.ours);
        let without_port: &[HostPort] = &[];
        if self.place_one(&mut last, new) > 0 {
            Ok(placed)
        } else if self.place(&mut last, new, std::iter::once(without_port)) > 0 {
            Err(NoCapacity::Port)
        } else {
            Err(NoCapacity::Nodes)
        }
    }

    /// Whether this pod gets a place after the pending ones.
    pub(super) fn fits(&self, pending: &Pending, new: &PodDemand) -> Result<(), NoCapacity> {
        self.place_last(pending, new).map(drop)
    }

    /// Whether this pod gets a place beside the pending ones, in whichever order the scheduler
    /// takes them.
    pub(super) fn check(&self, pending: &Pending, new: &PodDemand) -> Result<(), NoCapacity> {
        let placed = self.place_last(pending, new)?;
        if pending.is_empty() {
            return Ok(());
        }
        let mut first = self.free.clone();
        self.place_one(&mut first, new);
        self.place_all(&mut first, &pending.others);
        // One that has no place in any order is not kept out by this one.
        if self.place_all(&mut first, &pending.ours) < placed {
            return Err(NoCapacity::Nodes);
        }
        Ok(())
    }

    /// How many such pods get a place beside the pending ones; at most `most`. Their ports are not
    /// looked at: each gets another one.
    pub(super) fn count(&self, pending: &Pending, pod: &PodDemand, most: u32) -> u32 {
        let mut free = self.free.clone();
        self.place_all(&mut free, &pending.others);
        self.place_all(&mut free, &pending.ours);
        let none: &[HostPort] = &[];
        self.place(&mut free, pod, (0..most).map(|_| none))
    }
}
