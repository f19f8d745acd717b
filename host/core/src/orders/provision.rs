//! From the payment to the pod that takes logins, or the time that is added.

use super::decide::lease_plan;
use super::image_starts::PodImage;
use super::refunds::Liability;
use super::{OrderService, StepError};
use crate::backend::cluster::{ClusterError, LeasePlan, ReadyPod};
use crate::backend::policy::PolicySet;
use crate::backend::responder::PodReply;
use crate::backend::store::{LeaseUpdate, LedgerError};
use crate::limits;
use crate::model::ids::{LeaseId, PodName};
use crate::model::login::Login;
use crate::model::order::{Lease, LeaseState, Order, OrderState, Purchase};
use crate::model::order_state::{Paid, PlannedPod, Task};
use crate::model::run::Run;
use crate::model::units::{Seconds, UnixTime};
use crate::protocol::PodAccessDetails;
use std::sync::PoisonError;
use std::time::Instant;

impl OrderService {
    /// redeeming, payment-unknown, or paid by an earlier version → provisioning: nothing is done
    /// between payment and launch that a state of its own would announce. A top-up's time is on the
    /// lease before the cluster is called.
    pub(super) async fn start_provisioning(
        &self,
        order: &mut Order,
        paid: Paid,
    ) -> Result<(), StepError> {
        let seconds = paid.agreement.decision.grant.seconds;
        let provisioning = OrderState::Provisioning { paid: paid.clone(), expires_at: None };
        let update = match &paid.task {
            Task::TopUp { pod } => LeaseUpdate::Extend(pod, seconds),
            Task::Spawn { .. } => LeaseUpdate::Keep,
        };
        self.transition(order, provisioning, update).await
    }

    /// provisioning → active, or refund-pending. Every effect here may be done twice.
    pub(super) async fn provision(
        &self,
        order: &mut Order,
        paid: Paid,
        set: &dyn PolicySet,
    ) -> Result<(), StepError> {
        let done = match &paid.task {
            Task::Spawn { planned, login } => self.launch(order, &paid, planned, login).await,
            Task::TopUp { pod } => self.extend(order, &paid, pod).await,
        };
        match (done, &paid.task) {
            (Ok(()), _) => Ok(()),
            (Err(ProvisionError::Step(error)), _) => Err(error),
            (Err(ProvisionError::Cluster(error @ ClusterError::Unavailable(_))), _)
                if order.created_at.after(timeout()) > UnixTime::now() =>
            {
                Err(StepError::Retry(error.into()))
            }
            (
                Err(ProvisionError::Cluster(ClusterError::PortTaken(error))),
                Task::Spawn { planned, login },
            ) if planned.moves < limits::LAUNCH_ATTEMPTS => {
                tracing::warn!(%error, "moving the pod to another port");
                self.reassign_port(order, &paid, planned, login, set).await
            }
            (Err(ProvisionError::Cluster(error)), _) => {
                tracing::warn!(%error, "paid and not provisioned; the money goes back");
                let lease = self.backends.ledger.lease(&order.pod()).await?;
                let liability = liability(lease.as_ref(), &order.purchase, &error);
                self.start_refund(order, paid, error.into(), liability).await
            }
        }
    }

    /// Launches a pod, and waits until it takes logins. What it shows of its image counts until then:
    /// what ends it later is not the image, and may be its customer.
    async fn start(
        &self,
        order: &Order,
        lease: &Lease,
        plan: &LeasePlan,
    ) -> Result<ReadyPod, ClusterError> {
        let image = PodImage::new(&plan.placement.image, &plan.tier, plan.run);
        let is_named = matches!(order.purchase, Purchase::Spawn { image: Some(_), .. });
        if is_named {
            self.image_starts.paid(&order.id, &image, order.customer());
        }
        let started = async {
            self.backends.cluster.launcher.launch(plan).await?;
            self.backends.cluster.launcher.ready(&plan.lease.pod_name()).await
        };
        let started = started.await;
        match &started {
            Ok(_) => self.image_starts.started(&image),
            Err(error) if is_named && lease.expires_at.is_none() => {
                self.note_failed_start(&image, error);
            }
            Err(_) => {}
        }
        started
    }

    /// A pod of an image that its customer has named did not start.
    fn note_failed_start(&self, image: &PodImage, error: &ClusterError) {
        match error {
            ClusterError::ImageFailed(_) => self.image_starts.failed(image, Instant::now()),
            // Whatever else the customer has named may be the reason: others may try it.
            ClusterError::NotReady(_) | ClusterError::NotFound => self.image_starts.forget(image),
            _ => {}
        }
    }

    async fn launch(
        &self,
        order: &mut Order,
        paid: &Paid,
        planned: &PlannedPod,
        login: &Login,
    ) -> Result<(), ProvisionError> {
        self.first_probe().await;
        let mut plan = lease_plan(order, &paid.agreement, planned, login);
        let pod = plan.lease.pod_name();
        let lease = self.backends.ledger.lease(&pod).await?.ok_or(ClusterError::NotFound)?;
        // It was ready, and we were away for all the time that was sold.
        let over = lease.expires_at.is_some_and(|at| at <= UnixTime::now());
        if over || lease.state == LeaseState::Ended {
            return Err(ClusterError::NotFound.into());
        }
        if !paid.launched {
            plan.pod_reply = self.pod_reply(order, &lease, login).await;
        }
        let mut ready = self.start(order, &lease, &plan).await?;
        ready.host_keys.truncate(limits::HOST_KEYS);
        let mut lease = ready.recorded_in(lease);
        // The time that was sold begins now; if a crash interrupted us here before, it began then.
        let expires_at = *lease.expires_at.get_or_insert_with(|| UnixTime::now().after(plan.sold));
        let before = std::mem::replace(&mut lease.state, LeaseState::Live);
        let update = match before {
            // Written before a crash: it may have been extended or noticed since it was read.
            LeaseState::Live => LeaseUpdate::Keep,
            LeaseState::Reserved | LeaseState::Ended => LeaseUpdate::Put(&lease),
        };
        let ready = OrderState::Provisioning { paid: paid.clone(), expires_at: Some(expires_at) };
        self.transition(order, ready, update).await?;
        self.backends.cluster.expiry.set_expiry(&pod, expires_at).await?;
        let active = OrderState::Active { paid: paid.clone(), expires_at };
        self.transition(order, active, LeaseUpdate::Keep).await?;
        let took = self.time_of(order);
        self.login_times.lock().unwrap_or_else(PoisonError::into_inner).record(took);
        self.publish_end(&lease);
        Ok(())
    }

    /// What the pod writes to its customer by itself. One that runs its image's own program does not.
    async fn pod_reply(&self, order: &Order, lease: &Lease, login: &Login) -> Option<PodReply> {
        if order.purchase.run() == Run::Image {
            return None;
        }
        let details = PodAccessDetails::new(&order.id, lease, login, &self.settings.ssh_host);
        self.backends.responder.pod_reply(&order.reply_to, details).await
    }

    async fn extend(
        &self,
        order: &mut Order,
        paid: &Paid,
        pod: &PodName,
    ) -> Result<(), ProvisionError> {
        let lease = self.backends.ledger.lease(pod).await?.ok_or(ClusterError::NotFound)?;
        let expires_at = lease.expires_at.ok_or(ClusterError::NotFound)?;
        if lease.state == LeaseState::Ended {
            return Err(ClusterError::NotFound.into());
        }
        self.backends.cluster.expiry.set_expiry(pod, expires_at).await?;
        let active = OrderState::Active { paid: paid.clone(), expires_at };
        // If it has ended since it was read, whoever takes this order up again pays it back.
        self.transition(order, active, LeaseUpdate::Require(pod)).await?;
        self.publish_end(&lease);
        Ok(())
    }

    /// Another port for a pod whose port turned out to be taken.
    async fn reassign_port(
        &self,
        order: &mut Order,
        paid: &Paid,
        planned: &PlannedPod,
        login: &Login,
        set: &dyn PolicySet,
    ) -> Result<(), StepError> {
        let id = LeaseId::of(&order.id);
        self.check_own(order).await?;
        self.backends
            .cluster
            .remover
            .remove(&id.pod_name())
            .await
            .map_err(|error| StepError::Retry(error.into()))?;
        // With no other port free the same one is tried once more.
        let moved = self.move_pod(&order.id, &paid.agreement, planned, set).await;
        let pod = match moved {
            Ok(pod) => Box::new(pod),
            Err(refusal) => {
                return self.start_refund(order, paid.clone(), refusal, Liability::Provider).await;
            }
        };
        let Some(mut lease) = self.backends.ledger.lease(&id.pod_name()).await? else {
            let refusal = ClusterError::NotFound.into();
            return self.start_refund(order, paid.clone(), refusal, Liability::Provider).await;
        };
        let planned = PlannedPod { decision: pod, moves: planned.moves.saturating_add(1) };
        let plan = lease_plan(order, &paid.agreement, &planned, login);
        lease.port = plan.placement.host_port;
        lease.port_kind = self.backends.cluster.validator.port_kind(&plan);
        let task = Task::Spawn { planned, login: login.clone() };
        let mut moved = Paid { task, launched: false, ..paid.clone() };
        moved.agreement.decision.digests.replace_pod_template(set.digests());
        let expires_at = order.state.expires_at();
        let provisioning = OrderState::Provisioning { paid: moved, expires_at };
        self.transition(order, provisioning, LeaseUpdate::Put(&lease)).await?;
        self.record_demand(&plan).await
    }
}

fn timeout() -> Seconds {
    Seconds(limits::PROVISION_TIMEOUT.as_secs())
}

/// Whose fault it is that an order was paid and not provisioned. Customers can end a pod, or let it
/// end, while they pay for more time: if the pod is gone for no known reason, a top-up is not at
/// our expense. They can name images that never start, as often as they like: the error of such a
/// pod is ours only if it is not about the image, or if the pod was ready before.
fn liability(lease: Option<&Lease>, purchase: &Purchase, error: &ClusterError) -> Liability {
    let was_ready = lease.is_some_and(|lease| lease.expires_at.is_some());
    let is_ours = match (lease.and_then(|lease| lease.end), purchase) {
        (Some(reason), _) => reason.is_provider_fault(),
        (None, Purchase::Spawn { image: Some(_), .. }) => {
            let of_image = matches!(
                error,
                ClusterError::NotReady(_) | ClusterError::ImageFailed(_) | ClusterError::NotFound
            );
            was_ready || !of_image
        }
        (None, Purchase::Spawn { .. }) => true,
        (None, Purchase::TopUp { .. }) => !matches!(error, ClusterError::NotFound),
    };
    if is_ours { Liability::Provider } else { Liability::Others }
}

/// Why a paid order is not active yet.
pub(super) enum ProvisionError {
    Step(StepError),
    Cluster(ClusterError),
}

impl From<StepError> for ProvisionError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl From<LedgerError> for ProvisionError {
    fn from(error: LedgerError) -> Self {
        Self::Step(error.into())
    }
}

impl From<ClusterError> for ProvisionError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cluster::EndReason;
    use crate::model::ids::{OrderId, Username};
    use crate::model::run::Run;
    use crate::testing;

    /// Of a pod that was ready then, and has ended so.
    fn lease(expires_at: Option<UnixTime>, end: Option<EndReason>) -> Lease {
        Lease { expires_at, end, ..testing::reserved_lease(&OrderId::random()) }
    }

    fn own_image() -> Purchase {
        Purchase::Spawn {
            image: Some("image:2".to_owned()),
            tier: None,
            username: Username::default(),
            public_key: None,
            wanted: None,
            run: Run::Ssh,
            http: None,
        }
    }

    #[test]
    fn a_pod_that_its_customer_ends_is_not_a_fault_of_ours() {
        let (gone, failed) = (ClusterError::NotFound, ClusterError::not_ready("a test"));
        let top_up = Purchase::TopUp { pod: LeaseId::of(&OrderId::random()).pod_name() };
        for purchase in [testing::spawn(), own_image(), top_up.clone()] {
            for error in [&gone, &failed] {
                let liability = |end| liability(Some(&lease(None, Some(end))), &purchase, error);
                let of_service = [
                    EndReason::Removed,
                    EndReason::Disrupted,
                    EndReason::NodeLost,
                    EndReason::EndedByOperator,
                ];
                for end in EndReason::ALL {
                    let expected = match of_service.contains(&end) {
                        true => Liability::Provider,
                        false => Liability::Others,
                    };
                    assert_eq!(liability(end), expected, "{end:?}");
                }
            }
        }
        assert_eq!(liability(None, &testing::spawn(), &failed), Liability::Provider);
        assert_eq!(liability(None, &top_up, &failed), Liability::Provider);
        assert_eq!(liability(None, &testing::spawn(), &gone), Liability::Provider);
        assert_eq!(liability(None, &top_up, &gone), Liability::Others, "it may have exited");
    }

    #[test]
    fn an_image_of_the_customer_that_does_not_start_is_not_a_fault_of_ours() {
        let (reserved, live) = (lease(None, None), lease(Some(UnixTime(1)), None));
        let (full, taken) = (ClusterError::not_scheduled("full"), ClusterError::port_taken("all"));
        let away = ClusterError::unavailable("a test");
        let unpulled = ClusterError::image_failed("ImagePullBackOff");
        for error in [ClusterError::not_ready("a test"), unpulled, ClusterError::NotFound] {
            assert_eq!(
                liability(Some(&reserved), &own_image(), &error),
                Liability::Others,
                "{error}"
            );
            assert_eq!(
                liability(Some(&reserved), &testing::spawn(), &error),
                Liability::Provider,
                "{error}"
            );
            assert_eq!(
                liability(Some(&live), &own_image(), &error),
                Liability::Provider,
                "it did start"
            );
        }
        for error in [full, taken, away] {
            assert_eq!(
                liability(Some(&reserved), &own_image(), &error),
                Liability::Provider,
                "{error}"
            );
        }
    }
}
