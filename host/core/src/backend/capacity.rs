//! What the cluster has left for pods, and what a pod needs of it.

pub use crate::model::decision::Utilisation;

use crate::model::decision::{Offer, Quote, Resources};
use crate::model::ids::{LeaseId, TierId};

/// What a pod needs of its cluster, in the cluster's own form. It is kept with the port of its
/// lease, so that every replica counts it. Empty: it needs nothing that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand(String);

impl Demand {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is sold under one name. Pods of two tiers may need different things though their resources
/// are the same: a device, or other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    pub id: TierId,
    pub resources: Resources,
}

impl From<&Offer> for Tier {
    fn from(offer: &Offer) -> Self {
        Self { id: offer.id.clone(), resources: offer.resources }
    }
}

impl From<&Quote> for Tier {
    fn from(quote: &Quote) -> Self {
        Self { id: quote.tier.clone(), resources: quote.resources }
    }
}

/// A lease that holds a port, and what its pod needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub lease: LeaseId,
    pub demand: Demand,
}

/// Why a pod does not fit. The text is for customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCapacity {
    /// Another pod may still fit, or this one later.
    #[error("no node has enough left for this pod")]
    Nodes,
    /// No node would take it even if it were empty.
    #[error("no node is large enough for this pod")]
    TooLarge,
    /// It fits but for its port, which other pods have on every node: another port may do.
    #[error("no node has the reserved port free")]
    Port,
    #[error("the quota is used up")]
    Quota,
    /// The quota would not permit this pod even if it were the only one.
    #[error("the quota is too small for this pod")]
    QuotaTooSmall,
}

impl NoCapacity {
    /// Whether such a pod does not fit later either.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        matches!(self, Self::TooLarge | Self::QuotaTooSmall)
    }
}

/// The cluster's capacity at one moment.
pub trait Capacity: Send + Sync {
    /// Whether a pod with this demand gets a place beside those of these reservations. A
    /// reservation whose pod is on a node already is counted there.
    ///
    /// # Errors
    /// [`NoCapacity`].
    fn check(&self, reserved: &[Reservation], demand: &Demand) -> Result<(), NoCapacity>;

    /// Whether a pod of this tier gets a place beside those of these reservations, by what
    /// is known of it before its template is rendered.
    ///
    /// # Errors
    /// [`NoCapacity`]: where several templates were seen, the reason that may pass.
    fn fits(&self, reserved: &[Reservation], tier: &Tier) -> Result<(), NoCapacity>;

    /// How many pods of this tier get a place beside those of these reservations; at most `most`.
    fn count(&self, reserved: &[Reservation], tier: &Tier, most: u32) -> u32;

    /// What pods of this tier have needed here, but for their ports: one demand for each of the
    /// templates that were seen lately. A pod whose need is one of these is reserved before its dry
    /// run. None by default.
    fn known_demands(&self, _tier: &Tier) -> Vec<Demand> {
        Vec::new()
    }

    /// How full the cluster is by its pods alone, as offers say it.
    fn utilisation(&self) -> Utilisation;

    /// How full the nodes are that pods may use, these reservations included, as decisions see it. A
    /// reservation whose pod is on a node already is counted there. None by default, and where nodes
    /// are not watched: a quota says nothing of them.
    fn node_utilisation(&self, _reserved: &[Reservation]) -> Option<Utilisation> {
        None
    }
}
