//! From the payment to the pod that takes logins, or the time that is added.

use super::decide::plan;
use super::{OrderService, StepError, unreadable};
use crate::backend::cluster::ClusterError;
use crate::backend::policy::{PodDecision, PolicySet};
use crate::backend::store::{LeaseUpdate, LedgerError};
use crate::limits;
use crate::model::order::{LeaseState, Order, Purchase, State};
use crate::model::refusal::Refusal;
use crate::model::units::{PodName, Seconds, UnixTime};

impl OrderService {
    /// paid → provisioning. A top-up's time is on the lease before the cluster is called.
    pub(super) async fn start_provisioning(&self, order: &mut Order) -> Result<(), StepError> {
        order.state = State::Provisioning;
        let seconds = match order.decided() {
            Ok(decision) => decision.grant.seconds,
            Err(refusal) => return self.start_refund(order, State::Paid, refusal).await,
        };
        match &order.purchase {
            Purchase::TopUp { pod } => {
                self.transition(order, State::Paid, LeaseUpdate::Extend(pod, seconds)).await
            }
            Purchase::Spawn { .. } => self.transition(order, State::Paid, LeaseUpdate::Keep).await,
        }
    }

    /// provisioning → active, or refund-pending. Every effect here may be done twice.
    pub(super) async fn provision(
        &self,
        order: &mut Order,
        set: &dyn PolicySet,
    ) -> Result<(), StepError> {
        let done = match order.purchase.clone() {
            Purchase::Spawn { .. } => self.launch(order).await,
            Purchase::TopUp { pod } => self.extend(order, &pod).await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(ProvisionError::StepError(error)) => Err(error),
            Err(ProvisionError::Cluster(ClusterError::Unavailable(why)))
                if order.created_at.after(timeout()) > UnixTime::now() =>
            {
                Err(StepError::Retry(why))
            }
            Err(ProvisionError::Cluster(ClusterError::PortTaken(why)))
                if order.launches < limits::LAUNCH_ATTEMPTS =>
            {
                self.reassign_port(order, &why, set).await
            }
            Err(ProvisionError::Cluster(error)) => {
                tracing::warn!(%error, "paid and not provisioned; the money goes back");
                self.start_refund(order, State::Provisioning, error.into()).await
            }
        }
    }

    async fn launch(&self, order: &mut Order) -> Result<(), ProvisionError> {
        let plan = plan(order).map_err(ClusterError::Refused)?;
        let pod = plan.lease.pod_name();
        let mut lease = self.backends.ledger.lease(&pod).await?.ok_or(ClusterError::NotFound)?;
        // It was ready, and we were away for all the time that was sold.
        let over = lease.expires_at.is_some_and(|at| at <= UnixTime::now());
        if over || lease.state == LeaseState::Ended {
            return Err(ClusterError::NotFound.into());
        }
        self.backends.cluster.launch(&plan).await?;
        self.backends.cluster.ready(&pod).await?;
        // The time that was sold begins now; if a crash interrupted us here before, it began then.
        let expires_at = *lease.expires_at.get_or_insert_with(|| UnixTime::now().after(plan.sold));
        lease.state = LeaseState::Live;
        order.expires_at = Some(expires_at);
        self.transition(order, State::Provisioning, LeaseUpdate::Put(&lease)).await?;
        self.backends.cluster.set_expiry(&pod, expires_at).await?;
        order.state = State::Active;
        Ok(self.transition(order, State::Provisioning, LeaseUpdate::Keep).await?)
    }

    async fn extend(&self, order: &mut Order, pod: &PodName) -> Result<(), ProvisionError> {
        let lease = self.backends.ledger.lease(pod).await?.ok_or(ClusterError::NotFound)?;
        let expires_at = lease.expires_at.ok_or(ClusterError::NotFound)?;
        if lease.state == LeaseState::Ended {
            return Err(ClusterError::NotFound.into());
        }
        self.backends.cluster.set_expiry(pod, expires_at).await?;
        order.expires_at = Some(expires_at);
        order.state = State::Active;
        Ok(self.transition(order, State::Provisioning, LeaseUpdate::Keep).await?)
    }

    /// Another port for a pod whose port turned out to be taken.
    async fn reassign_port(
        &self,
        order: &mut Order,
        why: &str,
        set: &dyn PolicySet,
    ) -> Result<(), StepError> {
        tracing::warn!(why, "moving the pod to another port");
        let (Some(lease), Some(mut decision)) = (order.lease.clone(), order.decision.clone())
        else {
            return Err(StepError::Retry("the order lacks its lease".to_owned()));
        };
        self.backends
            .cluster
            .remove(&lease.pod_name())
            .await
            .map_err(|error| StepError::Retry(error.to_string()))?;
        let image =
            decision.pod.as_ref().map(|pod| pod.placement.image.clone()).unwrap_or_default();
        let moved = async {
            let ports = self.settings.ports.clone();
            // With no other port free the same one is tried once more.
            self.backends
                .ledger
                .reassign_port(&lease, ports)
                .await
                .map_err(|error| unreadable(&error))?;
            let placement = self.place(&lease, &image, &decision.quote).await?;
            let rendered = set.render(&decision.order, &decision.grant, &placement).await?;
            Ok::<_, Refusal>((placement, rendered))
        };
        let (placement, rendered) = match moved.await {
            Ok(moved) => moved,
            Err(refusal) => return self.start_refund(order, State::Provisioning, refusal).await,
        };
        let Some(mut stored) = self.backends.ledger.lease(&lease.pod_name()).await? else {
            return Err(StepError::Retry("the lease is missing".to_owned()));
        };
        stored.port = placement.host_port;
        decision.digests.pod_template = set.digests().pod_template;
        decision.pod = Some(PodDecision { placement, rendered });
        order.decision = Some(decision);
        order.launches = order.launches.saturating_add(1);
        self.transition(order, State::Provisioning, LeaseUpdate::Put(&stored)).await
    }
}

fn timeout() -> Seconds {
    Seconds(limits::PROVISION_TIMEOUT.as_secs())
}

/// Why a paid order is not active yet.
enum ProvisionError {
    StepError(StepError),
    Cluster(ClusterError),
}

impl From<StepError> for ProvisionError {
    fn from(error: StepError) -> Self {
        Self::StepError(error)
    }
}

impl From<LedgerError> for ProvisionError {
    fn from(error: LedgerError) -> Self {
        Self::StepError(error.into())
    }
}

impl From<ClusterError> for ProvisionError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}
