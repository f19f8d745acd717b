//! What pods of a tier look like to the cluster. Only the pod template knows, and only an order
//! asks it: what the dry runs returned is remembered for the offers.

use super::amounts::Amounts;
use super::demand::{LeaseObjects, NodeRules, PodDemand};
use crate::guard::Allowed;
use k8s_openapi::api::core::v1::Pod;
use paygress_core::backend::capacity::Tier;
use paygress_core::backend::policy::Resources;
use std::time::{Duration, Instant};

/// A policy may have been replaced: after this time, the next order shows what it renders now.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Tiers, and the templates of each, that are remembered.
const MOST: usize = 64;

#[derive(Clone, Debug)]
struct Shape {
    tier: Tier,
    demand: PodDemand,
    seen: Instant,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shapes(Vec<Shape>);

impl Shapes {
    /// Remembers what a pod of this tier needs, but for its port.
    pub(super) fn learn(&mut self, tier: &Tier, demand: &PodDemand, now: Instant) {
        let demand = PodDemand { host_ports: Vec::new(), ..demand.clone() };
        self.0.retain(|shape| {
            now.duration_since(shape.seen) < REMEMBERED
                && (&shape.tier, &shape.demand) != (tier, &demand)
        });
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Shape { tier: tier.clone(), demand, seen: now });
    }

    /// What pods of this tier have needed lately.
    pub(super) fn seen(&self, tier: &Tier, now: Instant) -> Vec<PodDemand> {
        self.0
            .iter()
            .filter(|shape| shape.tier == *tier && now.duration_since(shape.seen) < REMEMBERED)
            .map(|shape| shape.demand.clone())
            .collect()
    }

    /// What pods of this tier may need. As long as none was seen, the least that they can:
    /// what is sold out by that is sold out.
    pub(super) fn of(&self, tier: &Tier, allowed: &Allowed, now: Instant) -> Vec<PodDemand> {
        let seen = self.seen(tier, now);
        if seen.is_empty() { vec![least(&tier.resources, allowed)] } else { seen }
    }
}

/// The nodes that a template may use.
pub(super) fn usable_nodes(allowed: &Allowed) -> NodeRules {
    // A runtime class adds tolerations of its own.
    if allowed.runtime_classes.is_empty() {
        NodeRules::tolerating(&allowed.tolerations)
    } else {
        NodeRules::any()
    }
}

fn least(resources: &Resources, allowed: &Allowed) -> PodDemand {
    let amounts = |resources: &Resources| Amounts {
        cpu: resources.cpu_millicores.into(),
        memory: u64::from(resources.memory_mib).saturating_mul(1 << 20),
        ..Amounts::default()
    };
    PodDemand {
        requests: amounts(&allowed.overcommit.requests(resources)),
        limits: amounts(resources),
        objects: LeaseObjects::of(&Pod::default(), &[]),
        nodes: usable_nodes(allowed),
        ..PodDemand::default()
    }
}
