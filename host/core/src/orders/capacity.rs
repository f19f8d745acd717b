//! What is for sale, and what the cluster has left for it, before money moves.

use super::{OrderService, StepError, internal};
use crate::backend::capacity::{Capacity, NoCapacity, Reservation, Tier, Utilisation};
use crate::backend::cluster::{ClusterError, LeasePlan};
use crate::backend::policy::{Context, Offer, PolicyError, PolicySet};
use crate::backend::store::LedgerError;
use crate::limits;
use crate::model::catalog::{Catalog, ListedOffer};
use crate::model::ids::{Customer, LeaseId};
use crate::model::order::{Order, Purchase};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::UnixTime;
use std::sync::{Arc, PoisonError};

/// The cluster's capacity, and what is reserved of it.
pub(super) struct FreeCapacity {
    capacity: Arc<dyn Capacity>,
    reserved: Vec<Reservation>,
}

impl FreeCapacity {
    /// How many pods of this tier get a place; at most `most`.
    fn count(&self, tier: &Tier, most: u32) -> u32 {
        self.capacity.count(&self.reserved, tier, most)
    }

    /// Whether a pod of this tier gets a place.
    pub(super) fn fits(&self, tier: &Tier) -> Result<(), NoCapacity> {
        self.capacity.fits(&self.reserved, tier)
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
        let free = self.free_capacity().await?;
        let context = self.context_beside(None, free.as_ref()).await?;
        let policies = self.backends.policy.current();
        let offers = policies.offers(&context).await?;
        let images = self.image_list.of(&policies, &context).await;
        *self.default_tier.lock().unwrap_or_else(PoisonError::into_inner) =
            offers.first().map(Tier::from);
        let ports = self.ports().saturating_sub(context.active_leases);
        let is_closed = self.are_sales_stopped();
        let available = |offer: &Offer| match is_closed {
            true => Some(0),
            false => Some(free.as_ref()?.count(&Tier::from(offer), ports)),
        };
        let listed = |offer: Offer| ListedOffer { available: available(&offer), offer };
        Ok(Catalog {
            offers: offers.into_iter().map(listed).collect(),
            images,
            mints: self.backends.wallet.mints(),
            p2pk_pubkey: self.backends.wallet.p2pk_pubkey(),
            utilisation: free.as_ref().map(FreeCapacity::utilisation),
            root: self.backends.cluster.root(),
            run_image: self.backends.cluster.runs_images(),
            ways: self.gateway_ways(),
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
    pub(super) fn capacity_leases(&self, active: u32, free: Option<&FreeCapacity>) -> u32 {
        let ports = self.ports();
        let tier = self.default_tier.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (free, tier) {
            (Some(free), Some(tier)) => {
                active.saturating_add(free.count(&tier, ports.saturating_sub(active)))
            }
            _ => ports,
        }
    }

    pub(super) async fn context(&self, customer: Option<&Customer>) -> Result<Context, Refusal> {
        let free = self.free_capacity().await?;
        self.context_beside(customer, free.as_ref()).await
    }

    /// The context, of a capacity that was read already.
    pub(super) async fn context_beside(
        &self,
        customer: Option<&Customer>,
        free: Option<&FreeCapacity>,
    ) -> Result<Context, Refusal> {
        let now = UnixTime::now();
        let failed = |error: LedgerError| internal(&error);
        let leases = match customer {
            None => Vec::new(),
            Some(_) => self.backends.ledger.live_leases(customer).await.map_err(failed)?,
        };
        let active_leases = self.backends.ledger.ports_in_use().await.map_err(failed)?;
        Ok(Context {
            now,
            capacity_leases: self.capacity_leases(active_leases, free),
            active_leases,
            customer_leases: leases
                .iter()
                .take(limits::CUSTOMER_LEASES_SHOWN)
                .map(|lease| lease.view(customer, now))
                .collect(),
        })
    }

    /// Why a new pod has no place, by its price alone: nobody waits for a mint to learn that. None:
    /// it may have one.
    pub(super) async fn sold_out(&self, order: &Order, set: &dyn PolicySet) -> Option<NoCapacity> {
        let Purchase::Spawn { .. } = &order.purchase else { return None };
        let mut free = self.free_capacity().await.ok()??;
        let context = self.context_beside(order.customer(), Some(&free)).await.ok()?;
        let own = LeaseId::of(&order.id);
        free.reserved.retain(|reserved| reserved.lease != own);
        let quote = set.quote(&order.view(None), &context).await.ok()?;
        free.fits(&Tier::from(&quote)).err()
    }

    /// Refuses a new pod of this tier for which there is no port, or no place. Nobody is sent to their
    /// wallet for a token that buys nothing.
    pub(super) async fn check_for_sale(
        &self,
        tier: &Tier,
        free: Option<&FreeCapacity>,
    ) -> Result<(), Refusal> {
        let ports = self.settings.ports.clone();
        match self.backends.ledger.has_free_port(ports).await {
            Ok(true) => free.map_or(Ok(()), |free| free.fits(tier)).map_err(refusal),
            Ok(false) => Err(no_ports()),
            Err(error) => Err(internal(&error)),
        }
    }

    /// Validates a new pod, and reserves what it needs.
    pub(super) async fn reserve(&self, plan: &LeasePlan) -> Result<(), NotReserved> {
        let demand = self.backends.cluster.dry_run(plan).await?;
        let capacity = self.backends.cluster.capacity().await;
        self.backends
            .ledger
            .reserve_capacity(&plan.lease, &demand, capacity)
            .await
            .map_err(|error| internal(&error))??;
        Ok(())
    }

    /// Records what a pod needs that was moved to another port, which is a part of it. It is paid
    /// for and keeps its place: it is not compared with what is left.
    pub(super) async fn record_demand(&self, plan: &LeasePlan) -> Result<(), StepError> {
        match self.backends.cluster.dry_run(plan).await {
            Ok(demand) => {
                let ledger = &self.backends.ledger;
                Ok(ledger.reserve_capacity(&plan.lease, &demand, None).await.map(drop)?)
            }
            // The launch meets the same error, and is refunded or tried again.
            Err(error) => {
                tracing::warn!(%error, lease = %plan.lease, "what a moved pod needs is not recorded");
                Ok(())
            }
        }
    }
}

/// The refusal of a new pod when every port is leased.
pub(super) fn no_ports() -> Refusal {
    Refusal::new(ErrorType::ResourceUnavailable, "No available ports in the configured range")
        .with_details("all pods are leased; your token was not taken, try again when one has ended")
}

/// Why what a new pod needs is not reserved.
pub(super) enum NotReserved {
    /// Other pods have its port: another one may do.
    PortTaken,
    Refused(Refusal),
}

impl From<Refusal> for NotReserved {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ClusterError> for NotReserved {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::PortTaken(_) => Self::PortTaken,
            error => Self::Refused(error.into()),
        }
    }
}

impl From<NoCapacity> for NotReserved {
    fn from(reason: NoCapacity) -> Self {
        match reason {
            NoCapacity::Port => Self::PortTaken,
            reason => Self::Refused(refusal(reason)),
        }
    }
}

pub(super) fn refusal(reason: NoCapacity) -> Refusal {
    let details = match reason {
        NoCapacity::Nodes | NoCapacity::Quota => {
            "your token was not taken; try again when a pod has ended, or choose a smaller tier"
        }
        NoCapacity::TooLarge | NoCapacity::QuotaTooSmall => {
            "your token was not taken; choose a smaller tier"
        }
        NoCapacity::Port => "your token was not taken; try again later",
    };
    Refusal::new(ErrorType::ResourceUnavailable, reason.to_string()).with_details(details)
}
