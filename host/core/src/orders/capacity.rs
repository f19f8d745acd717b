//! What is for sale, and what the cluster has left for it, before money moves.

use super::free_capacity::FreeCapacity;
use super::{Backends, OrderService, StepError, internal, unread};
use crate::backend::capacity::{Capacity, NoCapacity, Tier};
use crate::backend::cluster::{ClusterError, LeasePlan};
use crate::backend::policy::{Context, Offer, PolicyError, PolicySet};
use crate::backend::store::{CustomerRecord, DecisionBasis, LedgerError};
use crate::limits;
use crate::model::catalog::{Catalog, ListedOffer};
use crate::model::ids::{Customer, LeaseId, OrderId};
use crate::model::order::{Order, Purchase};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::UnixTime;
use std::sync::{Arc, PoisonError};

/// What is known of a new pod by its price.
pub(super) struct Priced {
    pub(super) tier: Tier,
    pub(super) fits: Result<(), NoCapacity>,
    /// Whether a port or a place is reserved for it already.
    pub(super) has_port: bool,
    /// Whether its token is worth as much as such a pod costs at least.
    pub(super) pays_minimum: bool,
}

/// What is reserved of a pod's need before its dry run.
pub(super) enum ReservedTier {
    /// All that is counted, but for its port.
    Reserved,
    /// Nothing: no such pod was seen here yet.
    Unknown,
    SoldOut(NoCapacity),
}

impl OrderService {
    /// The offers of this moment, and how they are paid for.
    ///
    /// # Errors
    /// [`PolicyError`] when the pricing policy fails.
    pub async fn offers(&self) -> Result<Catalog, PolicyError> {
        let (context, free) = self.context(None, None).await?;
        let policies = self.backends.policy.current();
        let offers = policies.offers(&context).await?;
        let images = self.image_list.of(&policies, &context).await;
        *self.default_tier.lock().unwrap_or_else(PoisonError::into_inner) =
            offers.first().map(Tier::from);
        let most = self.settings.access.places().saturating_sub(context.active_leases);
        let is_closed = self.are_sales_stopped();
        let available = |offer: &Offer| match is_closed {
            true => Some(0),
            false => Some(free.as_ref()?.count(&Tier::from(offer), most)),
        };
        let listed = |offer: Offer| ListedOffer { available: available(&offer), offer };
        Ok(Catalog {
            offers: offers.into_iter().map(listed).collect(),
            images,
            mints: self.backends.wallet.mints(),
            p2pk_pubkey: self.backends.wallet.p2pk_pubkey(),
            utilisation: free.as_ref().map(FreeCapacity::utilisation),
            root: self.backends.cluster.features.root(),
            run_image: self.backends.cluster.features.runs_images(),
            http_ports: self.serves_apps(),
            access: self.settings.access.modes().clone(),
            ways: self.gateway_ways(),
            policies: self.signs_receipts().then(|| policies.digests()),
        })
    }

    /// None where the cluster's capacity is not known. Read once for all of a crowd who want it at the
    /// same time.
    pub(super) async fn free_capacity(&self) -> Result<Option<Arc<FreeCapacity>>, Refusal> {
        let Backends { cluster, ledger, .. } = &self.backends;
        let (source, ledger) = (Arc::clone(&cluster.capacity), Arc::clone(ledger));
        let read = || async move {
            let Some(capacity) = source.capacity().await else { return Ok(None) };
            let reserved = ledger.reservations().await.map_err(|error| internal(&error))?;
            Ok(Some(Arc::new(FreeCapacity { capacity, reserved })))
        };
        self.free_capacity.read(read).await.unwrap_or_else(|| Err(unread()))
    }

    /// How many pods can be leased at the same time: as many as there are ports, or may be without
    /// one, and no more than the cluster has left for pods of the default tier.
    pub(super) fn capacity_leases(&self, active: u32, free: Option<&FreeCapacity>) -> u32 {
        let most = self.settings.access.places();
        let tier = self.default_tier.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (free, tier) {
            (Some(free), Some(tier)) => {
                active.saturating_add(free.count(&tier, most.saturating_sub(active)))
            }
            _ => most,
        }
    }

    /// The context of an order of this customer, and what the cluster has left: their history and
    /// their leases are without it.
    pub(super) async fn context(
        &self,
        customer: Option<&Customer>,
        order: Option<&OrderId>,
    ) -> Result<(Context, Option<FreeCapacity>), Refusal> {
        let capacity = self.backends.cluster.capacity.capacity().await;
        self.context_of(customer, order, capacity).await
    }

    async fn context_of(
        &self,
        customer: Option<&Customer>,
        order: Option<&OrderId>,
        capacity: Option<Arc<dyn Capacity>>,
    ) -> Result<(Context, Option<FreeCapacity>), Refusal> {
        let now = UnixTime::now();
        let basis = self.backends.ledger.decision_basis(customer, order, now).await;
        let DecisionBasis { reservations, ports_in_use, customer: record } =
            basis.map_err(|error| internal(&error))?;
        let free = capacity.map(|capacity| FreeCapacity { capacity, reserved: reservations });
        let (leases, history) = match record {
            Some(CustomerRecord { leases, history }) => (leases, Some(history)),
            None => (Vec::new(), None),
        };
        let context = Context {
            now,
            capacity_leases: self.capacity_leases(ports_in_use, free.as_ref()),
            active_leases: ports_in_use,
            customer_leases: leases
                .iter()
                .take(limits::CUSTOMER_LEASES_SHOWN)
                .map(|lease| lease.view(customer, now))
                .collect(),
            history,
            utilisation: free.as_ref().and_then(|free| free.node_utilisation(order)),
        };
        Ok((context, free))
    }

    /// What a new pod is by its price alone, and whether it has a place: nobody waits for a mint to
    /// learn that it has none. None: it may have one.
    pub(super) async fn priced(&self, order: &Order, set: &dyn PolicySet) -> Option<Priced> {
        let Purchase::Spawn { .. } = &order.purchase else { return None };
        let capacity = Some(self.backends.cluster.capacity.capacity().await?);
        let context = self.context_of(order.customer(), Some(&order.id), capacity).await;
        let (context, free) = context.ok()?;
        let (free, lease) = (free?, LeaseId::of(&order.id));
        let quote = set.quote(&order.view(None), &context).await.ok()?;
        let (tier, has_port) = (Tier::from(&quote), free.has_reserved(&lease));
        let pays_minimum = order.token_info.gross >= quote.minimum;
        Some(Priced { fits: free.fits_beside(&lease, &tier), tier, has_port, pays_minimum })
    }

    /// Why a new pod of this tier has no place by now. None: it may have one.
    pub(super) async fn sold_out(&self, order: &Order, tier: &Tier) -> Option<NoCapacity> {
        let free = self.free_capacity().await.ok()??;
        free.fits_beside(&LeaseId::of(&order.id), tier).err()
    }

    /// Reserves what pods of this tier have needed, for a lease that has its port or place.
    pub(super) async fn reserve_tier(
        &self,
        lease: &LeaseId,
        tier: &Tier,
    ) -> Result<ReservedTier, Refusal> {
        let Some(capacity) = self.backends.cluster.capacity.capacity().await else {
            return Ok(ReservedTier::Reserved);
        };
        let mut none = None;
        for demand in capacity.known_demands(tier) {
            let (ledger, capacity) = (&self.backends.ledger, Arc::clone(&capacity));
            let reserved = ledger.reserve_capacity(lease, &demand, Some(capacity)).await;
            match reserved.map_err(|error| internal(&error))? {
                Ok(()) => return Ok(ReservedTier::Reserved),
                Err(reason) => none = Some(reason),
            }
        }
        Ok(none.map_or(ReservedTier::Unknown, ReservedTier::SoldOut))
    }

    /// Refuses a new pod of this tier for which there is no port, or no room. Nobody is sent to their
    /// wallet for a token that buys nothing.
    pub(super) async fn check_for_sale(
        &self,
        tier: &Tier,
        free: Option<&FreeCapacity>,
    ) -> Result<(), Refusal> {
        let (ledger, access) = (&self.backends.ledger, &self.settings.access);
        let (is_free, sold_out) = match access.ports() {
            Some(ports) => (ledger.has_free_port(ports.clone()).await, no_ports()),
            None => {
                let used = ledger.ports_in_use().await;
                (used.map(|used| used < access.max_leases()), no_places())
            }
        };
        match is_free {
            Ok(true) => free.map_or(Ok(()), |free| free.fits(tier)).map_err(refusal),
            Ok(false) => Err(sold_out),
            Err(error) => Err(internal(&error)),
        }
    }

    /// Reserves a port, or a place where no ports are sold; the port.
    pub(super) async fn reserve_port_or_place(
        &self,
        lease: &LeaseId,
    ) -> Result<Option<u16>, Refusal> {
        let (ledger, access) = (&self.backends.ledger, &self.settings.access);
        let failed = |error: LedgerError| internal(&error);
        let Some(ports) = access.ports() else {
            let reserved = ledger.reserve_place(lease, access.max_leases()).await;
            return reserved.map_err(failed)?.then_some(None).ok_or_else(no_places);
        };
        let port = ledger.reserve_port(lease, ports.clone()).await.map_err(failed)?;
        port.map(Some).ok_or_else(no_ports)
    }

    /// Validates a new pod, and reserves what it needs.
    pub(super) async fn reserve(&self, plan: &LeasePlan) -> Result<(), NotReserved> {
        let demand = self.backends.cluster.validator.dry_run(plan).await?;
        let capacity = self.backends.cluster.capacity.capacity().await;
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
        match self.backends.cluster.validator.dry_run(plan).await {
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
fn no_ports() -> Refusal {
    all_leased("No available ports in the configured range")
}

/// The same where pods have none.
fn no_places() -> Refusal {
    all_leased("No more pods can be leased now")
}

fn all_leased(message: &str) -> Refusal {
    Refusal::new(ErrorType::ResourceUnavailable, message)
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
