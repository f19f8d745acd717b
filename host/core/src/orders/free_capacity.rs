use crate::backend::capacity::{Capacity, NoCapacity, Reservation, Tier, Utilisation};
use crate::model::ids::{LeaseId, OrderId};
use std::borrow::Cow;
use std::sync::Arc;

/// The cluster's capacity, and what is reserved of it.
pub(super) struct FreeCapacity {
    pub(super) capacity: Arc<dyn Capacity>,
    pub(super) reserved: Vec<Reservation>,
}

impl FreeCapacity {
    /// How many pods of this tier get a place; at most `most`.
    pub(super) fn count(&self, tier: &Tier, most: u32) -> u32 {
        self.capacity.count(&self.reserved, tier, most)
    }

    /// Whether a pod of this tier gets a place.
    pub(super) fn fits(&self, tier: &Tier) -> Result<(), NoCapacity> {
        self.capacity.fits(&self.reserved, tier)
    }

    pub(super) fn utilisation(&self) -> Utilisation {
        self.capacity.utilisation()
    }

    /// How full the nodes are for the decision on this order: one that is decided again has its own
    /// reservation already, and does not raise its price by it.
    pub(super) fn node_utilisation(&self, order: Option<&OrderId>) -> Option<Utilisation> {
        match order.map(LeaseId::of) {
            Some(own) => self.capacity.node_utilisation(&self.others(&own)),
            None => self.capacity.node_utilisation(&self.reserved),
        }
    }

    /// Whether a pod of this tier gets a place, whatever this lease has reserved.
    pub(super) fn fits_beside(&self, lease: &LeaseId, tier: &Tier) -> Result<(), NoCapacity> {
        self.capacity.fits(&self.others(lease), tier)
    }

    /// Whether the lease has a port or a place.
    pub(super) fn has_reserved(&self, lease: &LeaseId) -> bool {
        self.reserved.iter().any(|reserved| reserved.lease == *lease)
    }

    /// What is reserved for other leases.
    fn others(&self, lease: &LeaseId) -> Cow<'_, [Reservation]> {
        if !self.has_reserved(lease) {
            return Cow::Borrowed(&self.reserved);
        }
        let others = self.reserved.iter().filter(|reserved| reserved.lease != *lease);
        others.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::capacity::Demand;
    use crate::testing::SharedNodes;

    #[test]
    fn an_order_is_not_decided_by_what_it_has_reserved_itself() {
        let (own, another) = (OrderId::random(), OrderId::random());
        let reserved = [&own, &another].map(|order| Reservation {
            lease: LeaseId::of(order),
            demand: Demand::new("a pod".to_owned()),
        });
        let free =
            FreeCapacity { capacity: Arc::new(SharedNodes(Some(1))), reserved: reserved.into() };
        let cpu = |order: Option<&OrderId>| free.node_utilisation(order).map(|nodes| nodes.cpu);
        assert_eq!(cpu(Some(&own)), Some(1));
        assert_eq!(cpu(Some(&OrderId::random())), Some(2));
        assert_eq!(cpu(None), Some(2));
    }
}
