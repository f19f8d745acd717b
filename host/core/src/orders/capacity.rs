//! What is for sale, and what the cluster has left for it, before money moves.

use super::{OrderService, internal};
use crate::backend::capacity::{Capacity, NoCapacity, Reservation, Utilisation};
use crate::backend::cluster::LeasePlan;
use crate::backend::policy::{Offer, PolicyError, PolicySet, Resources};
use crate::model::catalog::{Catalog, ListedOffer};
use crate::model::ids::LeaseId;
use crate::model::order::{Order, Purchase};
use crate::model::refusal::{ErrorType, Refusal};
use std::sync::{Arc, PoisonError};

/// The cluster's capacity, and what is reserved of it.
pub(super) struct FreeCapacity {
    capacity: Arc<dyn Capacity>,
    reserved: Vec<Reservation>,
}

impl FreeCapacity {
    /// How many pods with these resources get a place; at most `most`.
    pub(super) fn count(&self, resources: &Resources, most: u32) -> u32 {
        self.capacity.count(&self.reserved, resources, most)
    }

    pub(super) fn utilisation(&self) -> Utilisation {
        self.capacity.utilisation()
    }
}

impl OrderService {
    /// The offers of this moment, and how they are paid for.
    ///
    /// # Errors
    /// [`PolicyError`] when the pricing policy fails.
    pub async fn offers(&self) -> Result<Catalog, PolicyError> {
        let context = self.context(None).await?;
        let offers = self.backends.policy.current().offers(&context).await?;
        *self.default_tier.lock().unwrap_or_else(PoisonError::into_inner) =
            offers.first().map(|offer| offer.resources);
        let capacity = self.free_capacity().await?;
        let ports = self.ports().saturating_sub(context.active_leases);
        let available = |offer: &Offer| Some(capacity.as_ref()?.count(&offer.resources, ports));
        let listed = |offer: Offer| ListedOffer { available: available(&offer), offer };
        Ok(Catalog {
            offers: offers.into_iter().map(listed).collect(),
            mints: self.backends.wallet.mints(),
            p2pk_pubkey: self.backends.wallet.p2pk_pubkey(),
            utilisation: capacity.as_ref().map(FreeCapacity::utilisation),
        })
    }

    /// None where the cluster's capacity is not known.
    pub(super) async fn free_capacity(&self) -> Result<Option<FreeCapacity>, Refusal> {
        let Some(capacity) = self.backends.cluster.capacity().await else { return Ok(None) };
        let reserved =
            self.backends.ledger.reservations().await.map_err(|error| internal(&error))?;
        Ok(Some(FreeCapacity { capacity, reserved }))
    }

    /// How many pods can be leased at the same time: as many as there are ports, and no more than
    /// the cluster has left for pods of the default tier.
    pub(super) async fn capacity_leases(&self, active: u32) -> Result<u32, Refusal> {
        let ports = self.ports();
        let tier = *self.default_tier.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tier) = tier else { return Ok(ports) };
        Ok(match self.free_capacity().await? {
            Some(free) => active.saturating_add(free.count(&tier, ports.saturating_sub(active))),
            None => ports,
        })
    }

    /// The refusal of a new pod that has no place, by its price alone: nobody waits for a mint to
    /// learn that. None: it may have one.
    pub(super) async fn sold_out(&self, order: &Order, set: &dyn PolicySet) -> Option<Refusal> {
        let Purchase::Spawn { .. } = &order.purchase else { return None };
        let mut free = self.free_capacity().await.ok()??;
        let own = LeaseId::of(&order.id);
        free.reserved.retain(|reserved| reserved.lease != own);
        let context = self.context(order.customer()).await.ok()?;
        let quote = set.quote(&order.view(None), &context).await.ok()?;
        let is_full = free.count(&quote.resources, 1) == 0;
        is_full.then(|| refusal(NoCapacity::NodesOrQuota))
    }

    /// Validates a new pod, and reserves what it needs.
    pub(super) async fn reserve(&self, plan: &LeasePlan) -> Result<(), Refusal> {
        let demand = self.backends.cluster.dry_run(plan).await?;
        let capacity = self.backends.cluster.capacity().await;
        self.backends
            .ledger
            .reserve_capacity(&plan.lease, &demand, capacity)
            .await
            .map_err(|error| internal(&error))?
            .map_err(refusal)
    }
}

fn refusal(reason: NoCapacity) -> Refusal {
    let details = match reason {
        NoCapacity::Nodes | NoCapacity::Quota | NoCapacity::NodesOrQuota => {
            "your token was not taken; try again when a pod has ended, or choose a smaller tier"
        }
        NoCapacity::TooLarge => "your token was not taken; choose a smaller tier",
    };
    Refusal::new(ErrorType::ResourceUnavailable, reason.to_string()).with_details(details)
}
