//! What the quotas of the pods' namespace leave.
//!
//! The API server checks them in the dry run too, and more of them; it does not know of orders whose
//! pods are not there yet.

use super::demand::{LeaseObjects, PodDemand};
use super::thousandths;
use crate::quantity::{milli, whole};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use paygress_core::backend::capacity::NoCapacity;
use std::collections::BTreeMap;

/// The limits of one quota that pods count against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    hard: BTreeMap<String, u64>,
    /// How many objects there are: pods are watched, of others only the API server knows it.
    objects: BTreeMap<String, u64>,
    /// What pods and objects that were counted leave of it.
    left: BTreeMap<String, u64>,
    scopes: Vec<Scope>,
}

/// Which pods a quota is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Terminating,
    NotTerminating,
    BestEffort,
    NotBestEffort,
}

impl Scope {
    fn named(name: &str) -> Option<Self> {
        match name {
            "Terminating" => Some(Self::Terminating),
            "NotTerminating" => Some(Self::NotTerminating),
            "BestEffort" => Some(Self::BestEffort),
            "NotBestEffort" => Some(Self::NotBestEffort),
            _ => None,
        }
    }

    fn covers(self, pod: &PodDemand) -> bool {
        match self {
            Self::Terminating => pod.has_deadline,
            Self::NotTerminating => !pod.has_deadline,
            Self::BestEffort => pod.is_best_effort(),
            Self::NotBestEffort => !pod.is_best_effort(),
        }
    }
}

/// How many of these objects a quota counts; none for what it names beside them.
fn object_count(name: &str, objects: &LeaseObjects) -> Option<u64> {
    Some(match name {
        "count/jobs.batch" => objects.jobs,
        "secrets" | "count/secrets" => objects.secrets,
        "services" | "count/services" => objects.services,
        "services.nodeports" => objects.node_ports,
        _ => return None,
    })
}

/// How much of what a quota names a pod uses; none for what is not counted here.
fn usage(name: &str, pod: &PodDemand) -> Option<u64> {
    if let Some(count) = object_count(name, &pod.objects) {
        return Some(count);
    }
    let (requests, limits) = (&pod.requests, &pod.limits);
    Some(match name {
        "pods" | "count/pods" => 1,
        "cpu" | "requests.cpu" => requests.cpu,
        "memory" | "requests.memory" => requests.memory,
        "ephemeral-storage" | "requests.ephemeral-storage" => requests.storage,
        "limits.cpu" => limits.cpu,
        "limits.memory" => limits.memory,
        "limits.ephemeral-storage" => limits.storage,
        _ => requests.device(name.strip_prefix("requests.").filter(|name| name.contains('/'))?),
    })
}

/// The scopes of a quota; none when it has one that is not counted here, by priority class for
/// instance: that is left to the dry run.
fn scopes(spec: &ResourceQuotaSpec) -> Option<Vec<Scope>> {
    let named = spec.scopes.iter().flatten().map(|name| Scope::named(name));
    let selected = spec
        .scope_selector
        .iter()
        .flat_map(|selector| selector.match_expressions.iter().flatten())
        .map(|selected| {
            Scope::named(&selected.scope_name).filter(|_| selected.operator == "Exists")
        });
    named.chain(selected).collect()
}

impl Quota {
    pub(super) fn of(quota: &ResourceQuota) -> Self {
        let Some(spec) = &quota.spec else { return Self::default() };
        let Some(scopes) = scopes(spec) else { return Self::default() };
        let none = PodDemand::default();
        let hard = spec.hard.iter().flatten().filter_map(|(name, quantity)| {
            usage(name, &none)?;
            let limit = if name.ends_with("cpu") { milli(quantity) } else { whole(quantity) };
            Some((name.clone(), limit?))
        });
        let hard: BTreeMap<String, u64> = hard.collect();
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
        let objects = hard.keys().filter_map(|name| {
            object_count(name, &none.objects)?;
            Some((name.clone(), whole(used?.get(name)?)?))
        });
        Self { objects: objects.collect(), left: BTreeMap::new(), hard, scopes }.without_probes(0)
    }

    /// What is left of it before any pod is counted, without the objects of so many probes.
    pub(super) fn without_probes(&self, probes: u64) -> Self {
        let left = self.hard.iter().map(|(name, limit)| {
            let objects = self.objects.get(name).copied().unwrap_or(0);
            let of_one = object_count(name, &LeaseObjects::OF_PROBE).unwrap_or(0);
            let counted = objects.saturating_sub(of_one.saturating_mul(probes));
            (name.clone(), limit.saturating_sub(counted))
        });
        Self { left: left.collect(), ..self.clone() }
    }

    fn covers(&self, pod: &PodDemand) -> bool {
        self.scopes.iter().all(|scope| scope.covers(pod))
    }

    /// What these pods leave of it.
    pub(super) fn without<'a>(&self, pods: impl Iterator<Item = &'a PodDemand> + Clone) -> Self {
        let left = self
            .left
            .iter()
            .map(|(name, left)| (name.clone(), left.saturating_sub(self.used(name, pods.clone()))));
        Self { left: left.collect(), ..self.clone() }
    }

    /// Whether it permits one such pod.
    pub(super) fn check(&self, pod: &PodDemand) -> Result<(), NoCapacity> {
        if self.count(pod, 1) > 0 {
            Ok(())
        } else if self.copies(&self.hard, pod, 1) > 0 {
            Err(NoCapacity::Quota)
        } else {
            Err(NoCapacity::QuotaTooSmall)
        }
    }

    /// How many such pods it permits; at most `most`.
    pub(super) fn count(&self, pod: &PodDemand, most: u32) -> u32 {
        self.copies(&self.left, pod, most)
    }

    /// How many such pods these amounts suffice for; at most `most`.
    fn copies(&self, amounts: &BTreeMap<String, u64>, pod: &PodDemand, most: u32) -> u32 {
        if !self.covers(pod) {
            return most;
        }
        let copies = amounts.iter().filter_map(|(name, amount)| {
            // A pod that uses nothing of it is not kept out by it.
            amount.checked_div(usage(name, pod)?)
        });
        copies.min().map_or(most, |copies| u32::try_from(copies).unwrap_or(u32::MAX).min(most))
    }

    fn used<'a>(&self, name: &str, pods: impl Iterator<Item = &'a PodDemand>) -> u64 {
        pods.filter(|pod| self.covers(pod))
            .map(|pod| usage(name, pod).unwrap_or(0))
            .fold(0, u64::saturating_add)
    }

    /// How full it is of the most used of these, in thousandths.
    pub(super) fn utilisation<'a>(
        &self,
        names: &[&str],
        pods: impl Iterator<Item = &'a PodDemand> + Clone,
    ) -> u32 {
        let share = |name: &&str| {
            let limit = self.hard.get(*name)?;
            Some(thousandths(self.used(name, pods.clone()), *limit))
        };
        names.iter().filter_map(share).max().unwrap_or(0)
    }
}
