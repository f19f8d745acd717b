//! Launching before the payment (`CAPTURE=ready`): what fails then costs nobody anything.
//!
//! It needs a token that cannot be forged, and few such pods run at once, of the operator's own image
//! and with nothing but the SSH server, and beside room for one that is paid for: what is not paid for
//! after all has cost little. Whoever had such a pod for nothing pays first the next time. Nobody has
//! the login before the payment. Whatever ends the order unpaid removes the pod.

use super::decide::lease_plan;
use super::provision::ProvisionError;
use super::{OrderService, StepError};
use crate::backend::capacity::Tier;
use crate::backend::cluster::ClusterError;
use crate::backend::store::LeaseUpdate;
use crate::keyed_limit::Permit;
use crate::limits;
use crate::model::ids::Customer;
use crate::model::order::{Order, OrderState, Purchase};
use crate::model::order_state::{Task, Unpaid};
use crate::model::run::Run;
use tokio::sync::SemaphorePermit;

/// When the payment for a new pod is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    BeforeLaunch,
    /// Once it takes logins, where that can be had.
    OnceReady,
}

/// One of the few pods that run unpaid, until it is dropped.
pub(super) struct UnpaidLaunch<'a> {
    _of_customer: Permit<Option<Customer>>,
    _of_all: SemaphorePermit<'a>,
}

impl OrderService {
    /// Launches the pod of an order that is not paid for, and waits until it takes logins. `None`:
    /// it is launched once it is paid for.
    ///
    /// # Errors
    /// [`ProvisionError::Cluster`]: it does not start. The refusal of the order removes it.
    pub(super) async fn launch_unpaid(
        &self,
        order: &mut Order,
        unpaid: &mut Unpaid,
    ) -> Result<Option<UnpaidLaunch<'_>>, ProvisionError> {
        let Some(permits) = self.unpaid_launch(order, unpaid).await else { return Ok(None) };
        // On disk first: whoever continues this order removes the pod, whatever is set then.
        unpaid.launched = true;
        self.transition(order, OrderState::Decided(unpaid.clone()), LeaseUpdate::Keep).await?;
        let Task::Spawn { planned, login } = &unpaid.task else { return Ok(None) };
        let plan = lease_plan(order, &unpaid.agreement, planned, login);
        let pod = plan.lease.pod_name();
        let launched = async {
            self.backends.cluster.launcher.launch(&plan).await?;
            self.backends.cluster.launcher.ready(&pod).await
        };
        match launched.await {
            Ok(_) => Ok(Some(permits)),
            // A paid pod is moved to another port; this one is launched anew then.
            Err(ClusterError::PortTaken(error)) => {
                tracing::warn!(%error, "a pod that is not paid for has no port");
                self.check_own(order).await?;
                self.backends.cluster.remover.remove(&pod).await?;
                unpaid.launched = false;
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "a pod that is not paid for does not start");
                Err(error.into())
            }
        }
    }

    /// Whether this pod may run before it is paid for.
    async fn unpaid_launch(&self, order: &Order, unpaid: &Unpaid) -> Option<UnpaidLaunch<'_>> {
        let is_own_image =
            matches!(order.purchase, Purchase::Spawn { image: None, run: Run::Ssh, .. });
        if self.settings.capture == Capture::BeforeLaunch
            || !is_own_image
            || self.probe_state().check().is_err()
            || self.unpaid_failures.contains(order)
        {
            return None;
        }
        let permits = self.unpaid_permits(order)?;
        let is_proven = self.backends.wallet.is_proven(&unpaid.token, &order.token_info).await;
        // Whoever pays still finds a place.
        let free = self.free_capacity().await.ok()?;
        let tier = Tier::from(&unpaid.agreement.decision.quote);
        self.check_for_sale(&tier, free.as_deref()).await.ok()?;
        is_proven.then_some(permits)
    }

    fn unpaid_permits(&self, order: &Order) -> Option<UnpaidLaunch<'_>> {
        let of_all = self.unpaid_launches.try_acquire().ok()?;
        let (customer, limit) = (order.limited_customer(), limits::UNPAID_LAUNCHES_OF_ONE);
        let of_customer = self.unpaid_customers.try_acquire(customer, limit)?;
        Some(UnpaidLaunch { _of_customer: of_customer, _of_all: of_all })
    }

    /// The pod of an order that is resumed counts among those that run unpaid, if it may.
    pub(super) fn resumed_launch(&self, order: &Order) -> Option<UnpaidLaunch<'_>> {
        if order.state.may_run_unpaid() { self.unpaid_permits(order) } else { None }
    }

    /// An order that is resumed with its decision made, and with nothing taken: circumstances have
    /// changed, and it is decided again.
    pub(super) async fn undecide(
        &self,
        order: &mut Order,
        unpaid: Unpaid,
    ) -> Result<(), StepError> {
        // Its pod has another login than the next one.
        if order.state.may_run_unpaid() {
            self.check_own(order).await?;
            self.backends
                .cluster
                .remover
                .remove(&order.pod())
                .await
                .map_err(|error| StepError::Retry(error.into()))?;
        }
        self.transition(order, unpaid.undecided(), LeaseUpdate::Keep).await
    }
}
