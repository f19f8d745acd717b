//! More time for a pod: what can be refused, while the customer still holds the money.

use super::OrderService;
use super::decide::{Agreed, Rejected, quote_and_grant};
use super::queries::not_ready;
use crate::backend::policy::{Grant, PolicySet, PolicyTrace, Quote};
use crate::limits;
use crate::model::ids::{Customer, PodName};
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
        self.check_bought(&lease, order.customer()).await?;
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
    /// ends with that order, and nobody would pay back what was added to it. Nor is there more time for one
    /// that was extended as often as may be.
    async fn check_bought(
        &self,
        lease: &Lease,
        customer: Option<&Customer>,
    ) -> Result<(), Refusal> {
        let orders = self.orders_of(lease).await?;
        let (top_ups, spawns): (Vec<&Order>, Vec<&Order>) =
            orders.iter().partition(|order| matches!(order.purchase, Purchase::TopUp { .. }));
        if spawns.iter().any(|order| order.state() != State::Active) {
            return Err(not_ready());
        }
        match top_ups.len() < most_top_ups(lease, customer) {
            true => Ok(()),
            false => Err(extended_too_often()),
        }
    }
}

/// How many extensions a lease may have for this customer to make one more.
fn most_top_ups(lease: &Lease, customer: Option<&Customer>) -> usize {
    match customer.is_some() && lease.customer.as_ref() == customer {
        true => limits::TOP_UPS_OF_LEASE,
        false => limits::TOP_UPS_OF_OTHERS,
    }
}

fn extended_too_often() -> Refusal {
    Refusal::new(
        ErrorType::InvalidRequest,
        format!(
            "this pod was extended as often as it may be: {} times, by others than its customer {} times; order a new one, and extend it by larger tokens",
            limits::TOP_UPS_OF_LEASE,
            limits::TOP_UPS_OF_OTHERS
        ),
    )
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
