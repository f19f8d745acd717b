//! The policies: four functions, served by one set of components.

pub use crate::model::decision::{
    Context, CustomerHistory, Decision, Digests, Grant, ImageOffer, LeaseView, Offer, Payment,
    Placement, PodDecision, PolicyTrace, Price, Quote, RefundTerms, Rendered, Resources,
    SettingsDigests, Utilisation,
};
pub use crate::model::egress::{EgressRule, PortRange, Protocol};

use crate::model::decision::OrderView;
use crate::model::ids::{HexDigest, ImageRef};
use crate::model::order::Order;
use crate::model::refusal::{ErrorType, Refusal};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The active policies. An order takes the set once and keeps it to its end.
pub trait Policy: Send + Sync {
    /// The set that decides the next order.
    fn current(&self) -> Arc<dyn PolicySet>;
    /// Statistics of the active components.
    fn report(&self) -> Vec<SlotStats>;
    /// Notifies when another set is published.
    fn changes(&self) -> tokio::sync::watch::Receiver<()>;
    /// Observes a decided order, for shadow comparison; never delays the order.
    fn observe(&self, order: &Order);
}

/// The upper bounds of the latency buckets, in microseconds; what takes longer than the last is in
/// one more bucket.
pub const LATENCY_BUCKETS_US: [u64; 13] =
    [10, 25, 50, 75, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000];

/// When a component takes its settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Configured {
    /// In each call, before the function that is called.
    #[default]
    EachCall,
    /// Once, when it was loaded. Each call starts from a snapshot of its memory as it was then.
    Snapshot,
}

impl Configured {
    /// Its name, as it is serialized.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EachCall => "each-call",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Statistics of one component since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStats {
    pub slot: Slot,
    /// Of the component.
    pub digest: HexDigest,
    /// When it takes its settings.
    #[serde(default)]
    pub configured: Configured,
    /// How often it was called.
    pub calls: u64,
    /// Refusals by code.
    pub refusals: BTreeMap<ErrorType, u64>,
    /// How often it failed.
    pub faults: u64,
    /// The most memory that a call of it had, in bytes.
    pub memory_bytes: u64,
    /// All its calls together, in microseconds.
    pub total_us: u64,
    /// Calls by duration, one number a bucket of [`LATENCY_BUCKETS_US`] and one for the rest.
    pub latency: Vec<u64>,
}

impl SlotStats {
    /// The bound of the bucket that holds this share of the calls, in microseconds; `None` without
    /// calls, or beyond the last bound.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> Option<u64> {
        let wanted = self.calls.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0_u64;
        let mut bounds = LATENCY_BUCKETS_US.iter();
        for count in &self.latency {
            seen = seen.saturating_add(*count);
            let bound = bounds.next();
            if seen >= wanted {
                return bound.copied();
            }
        }
        None
    }
}

/// Four components, one for each slot, replaced only together.
#[async_trait]
pub trait PolicySet: Send + Sync {
    /// What these components are: recorded with each decision.
    fn digests(&self) -> Digests;
    /// Slot images: the image to run.
    async fn admit(&self, order: &OrderView, context: &Context) -> Result<ImageRef, PolicyError>;
    /// Slot images: the images that may be requested, the default first; empty from a component that
    /// has no list.
    async fn catalog(&self, _: &Context) -> Result<Vec<ImageOffer>, PolicyError> {
        Ok(Vec::new())
    }
    /// Slot pricing: what is for sale.
    async fn offers(&self, context: &Context) -> Result<Vec<Offer>, PolicyError>;
    /// Slot pricing: the price of this order.
    async fn quote(&self, order: &OrderView, context: &Context) -> Result<Quote, PolicyError>;
    /// Slot duration: the time that the payment buys.
    async fn grant(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, PolicyError>;
    /// Slot duration: the terms of paying back unused time; none from a component that knows none.
    async fn refund(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        grant: &Grant,
        context: &Context,
    ) -> Result<Option<RefundTerms>, PolicyError>;
    /// Slot pod-template: what to run.
    async fn render(
        &self,
        order: &OrderView,
        quote: &Quote,
        grant: &Grant,
        placement: &Placement,
    ) -> Result<Rendered, PolicyError>;
}

/// The four places of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// Which images may run.
    Images,
    /// What is for sale.
    Pricing,
    /// How long a payment lasts.
    Duration,
    /// What the pod looks like.
    PodTemplate,
}

impl Slot {
    /// All of them, in the order in which they decide.
    pub const ALL: [Self; 4] = [Self::Images, Self::Pricing, Self::Duration, Self::PodTemplate];

    /// The slot of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.as_str() == name)
    }

    /// The slot's name: that of its interface in `wit/` and of its component file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Pricing => "pricing",
            Self::Duration => "duration",
            Self::PodTemplate => "pod-template",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a policy call did not grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The policy refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The component failed.
    #[error(transparent)]
    Fault(#[from] CallFault),
}

/// A component that failed one call. The next call runs in a new instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {slot} ({digest:.12}): {kind}")]
pub struct CallFault {
    /// The slot that was called.
    pub slot: Slot,
    /// Of the component.
    pub digest: HexDigest,
    /// What happened.
    pub kind: FaultKind,
}

/// The ways in which a component fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// It ran past its deadline.
    #[error("ran longer than {0} ms and was stopped")]
    Deadline(u64),
    /// It requested more memory, tables or instances than allowed.
    #[error("requested more memory than allowed: {0}")]
    Memory(String),
    /// It recursed too deep.
    #[error("its stack overflowed")]
    Stack,
    /// It trapped: a panic, a division by zero, an access out of bounds.
    #[error("trapped: {0}")]
    Trap(String),
    /// It returned a value outside the contract's ranges.
    #[error("returned an invalid value: {0}")]
    InvalidOutput(String),
    /// Its template is one that no pod may have here.
    #[error("its template is not allowed: {0}")]
    Template(String),
    /// It no longer takes the settings that it took when it was loaded.
    #[error("refused its settings: {0}")]
    Settings(String),
}

impl From<PolicyError> for Refusal {
    /// A refusal is passed to the customer as it is; of a fault only that there was one.
    fn from(not_granted: PolicyError) -> Self {
        match not_granted {
            PolicyError::Refused(refusal) => refusal,
            PolicyError::Fault(fault) => Self::new(
                ErrorType::PolicyUnavailable,
                format!("the operator's {} policy failed; try again later", fault.slot),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LATENCY_BUCKETS_US;

    /// The goal of a call is 45 µs.
    #[test]
    fn the_latency_buckets_ascend_and_are_fine_around_50_us() {
        assert!(LATENCY_BUCKETS_US.is_sorted_by(|bound, next| bound < next));
        let below = LATENCY_BUCKETS_US.partition_point(|bound| *bound < 50);
        let (below, rest) = LATENCY_BUCKETS_US.split_at(below);
        assert!(below.len() >= 2, "{below:?}");
        assert!(matches!(rest, [50, 51..=75, ..]), "{rest:?}");
    }
}
