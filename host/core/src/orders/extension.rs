//! More time for a pod: what can be refused, while the customer still holds the money.

use super::OrderService;
use super::decide::{Agreed, Rejected, quote_and_grant};
use super::queries::not_ready;
use crate::backend::policy::{Grant, PolicySet, PolicyTrace, Quote};
use crate::limits;
use crate::model::ids::PodName;
use crate::model::order::{Lease, LeaseState, Order, Purchase, State};
use crate::model::order_state::{Agreement, Task};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::secret::Secret;
use crate::model::units::{Seconds, UnixTime};

impl OrderService {
    pub(super) async fn decide_top_up(
        &self,
        order: &Order,
        token: &Secret,
        pod: &PodName,
        set: &dyn PolicySet,
    ) -> Result<Agreed, Rejected> {
        self.check_offered(&order.purchase).await?;
        let now = UnixTime::now();
        let lease = self.find_lease(pod).await?;
        let expires_at = extendable(&lease, now)?;
        self.check_bought(&lease).await?;
        let view = order.view(Some(lease.view(order.customer(), now)));
        let mut trace = self.trace(order, token, view, set).await?;
        let (quote, grant, later) = match extension(&mut trace, expires_at, now, set).await {
            Ok(terms) => terms,
            Err(refusal) => return Err(Rejected::by_policy(refusal, trace)),
        };
        let agreement = Agreement::of(trace, quote, grant);
        match self.backends.cluster.expiry.check_running(pod, later).await {
            Ok(()) => Ok(Agreed { agreement, task: Task::TopUp { pod: pod.clone() }, lease: None }),
            Err(error) => Err(Rejected::by_cluster(error.into(), agreement, None)),
        }
    }

    /// Refuses more time for a pod whose own order may still come to nothing, or has: then the lease
    /// ends with that order, and nobody would pay back what was added to it.
    async fn check_bought(&self, lease: &Lease) -> Result<(), Refusal> {
        let is_open = |order: &Order| {
            matches!(order.purchase, Purchase::Spawn { .. }) && order.state() != State::Active
        };
        match self.orders_of(lease).await?.iter().any(is_open) {
            true => Err(not_ready()),
            false => Ok(()),
        }
    }
}

/// The end of a lease that can still be extended.
fn extendable(lease: &Lease, now: UnixTime) -> Result<UnixTime, Refusal> {
    match (lease.state, lease.expires_at) {
        (LeaseState::Live, Some(at))
            if lease.end.is_none() && at.since(now) > Seconds(limits::TOP_UP_MARGIN) =>
        {
            Ok(at)
        }
        (LeaseState::Reserved, _) => Err(not_ready()),
        _ => Err(Refusal::new(
            ErrorType::LeaseExpired,
            "this pod has ended or is about to; order a new one",
        )),
    }
}

/// What the policies say of more time for a lease, and when it ends then.
async fn extension(
    trace: &mut PolicyTrace,
    expires_at: UnixTime,
    now: UnixTime,
    set: &dyn PolicySet,
) -> Result<(Quote, Grant, UnixTime), Refusal> {
    let (quote, grant) = quote_and_grant(trace, set).await?;
    let later = expires_at.after(grant.seconds);
    match later.since(now) > Seconds(limits::GRANT_SECONDS) {
        false => Ok((quote, grant, later)),
        true => Err(Refusal::new(
            ErrorType::InvalidRequest,
            "the pod would live longer than ten years; send a smaller token",
        )),
    }
}
