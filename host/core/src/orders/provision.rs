//! From the swap at the mint to the pod in the customer's hands, or the money back.

use super::{OrderService, StepError, decide::plan, unreadable};
use crate::backend::cluster::ClusterError;
use crate::backend::policy::{Decision, PolicySet};
use crate::backend::store::LeaseUpdate;
use crate::backend::wallet::{ReceiveError, Resolution};
use crate::limits;
use crate::model::order::{LeaseState, Order, Purchase, State};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::{PodName, Sat, Seconds, UnixTime};
use crate::protocol::Response;

impl OrderService {
    /// decided → redeeming → paid, refused or payment-unknown.
    pub(super) async fn receive(&self, order: &mut Order) -> Result<(), StepError> {
        order.state = State::Redeeming;
        self.transition(order, State::Decided, LeaseUpdate::Keep).await?;
        self.swap(order).await
    }

    /// Asks the mint, and writes down what it said.
    async fn swap(&self, order: &mut Order) -> Result<(), StepError> {
        let from = order.state;
        let Some(token) = order.secrets.token.clone() else {
            return Err(StepError::Retry("the token of an unpaid order is missing".to_owned()));
        };
        match self.backends.wallet.receive(&order.id, &token, &order.token_info).await {
            Ok(net) => self.paid(order, from, net).await,
            Err(ReceiveError::Refused(refusal)) => self.refuse(order, from, refusal).await,
            Err(ReceiveError::Unknown(why)) => {
                tracing::warn!(%why, "the mint's answer was lost");
                order.state = State::PaymentUnknown;
                self.transition(order, from, LeaseUpdate::Keep).await
            }
        }
    }

    async fn paid(&self, order: &mut Order, from: State, net: Sat) -> Result<(), StepError> {
        order.redeemed = Some(net);
        order.secrets.token = None;
        let promised = order.payment.as_ref().map(|payment| payment.net).unwrap_or_default();
        if order.refusal.is_none() && net >= promised {
            order.state = State::Paid;
            return self.transition(order, from, LeaseUpdate::Keep).await;
        }
        // It came too late, or the mint gave less than it had said: what came goes back.
        tracing::warn!(%net, %promised, "the payment is not what was decided on; it goes back");
        let less = || {
            Refusal::new(
                ErrorType::MintError,
                format!("the mint gave {net} for a token that it had valued at {promised}"),
            )
        };
        let refusal = order.refusal.take().unwrap_or_else(less);
        self.start_refund(order, from, refusal).await
    }

    /// redeeming or payment-unknown, found after a crash or a lost answer → whatever is true.
    pub(super) async fn resolve(&self, order: &mut Order) -> Result<(), StepError> {
        let from = order.state;
        match self.backends.wallet.resolve(&order.id, &order.token_info).await {
            Resolution::Received(net) => self.paid(order, from, net).await,
            Resolution::NotSpent => match order.refusal.take() {
                Some(refusal) => self.refuse(order, from, refusal).await,
                None => self.swap(order).await,
            },
            Resolution::SpentElsewhere => {
                self.refuse(
                    order,
                    from,
                    Refusal::new(ErrorType::TokenAlreadySpent, "the token was spent elsewhere"),
                )
                .await
            }
            Resolution::Unknown(why) => {
                if order.refusal.is_none()
                    && UnixTime::now().since(order.created_at)
                        > Seconds(limits::PAYMENT_PATIENCE.as_secs())
                {
                    self.abandon_payment(order).await?;
                }
                Err(StepError::Retry(why.to_string()))
            }
        }
    }

    /// Nobody knows whether the token was taken, and the port is wanted: the order will not be
    /// fulfilled any more. When the mint tells at last, the token is good as it was, or what came
    /// of it goes back.
    async fn abandon_payment(&self, order: &mut Order) -> Result<(), StepError> {
        let from = order.state;
        let told = "the mint does not tell whether it has taken your token: if it has not, the token is still good; if it has, you get what it \
            gave, as a new token, as soon as it answers";
        let refusal = Refusal::new(ErrorType::MintNetworkError, told);
        tracing::warn!("the payment stays unknown for long; the port is given free");
        if let Purchase::Spawn { .. } = &order.purchase {
            self.backends.ledger.release_port(&crate::model::units::LeaseId::of(&order.id)).await?;
        }
        let lease = self.ended_lease(order).await?;
        order.refusal = Some(refusal.clone());
        order.state = State::PaymentUnknown;
        self.transition(order, from, lease.as_ref().map_or(LeaseUpdate::Keep, LeaseUpdate::Put))
            .await?;
        // Once, and lost if nobody takes it: the answer comes when there is one.
        if let Err(why) =
            self.backends.responder.send(&order.reply_to, &Response::from(&refusal)).await
        {
            tracing::warn!(why, "the customer could not be told that his payment is unknown");
        }
        Ok(())
    }

    /// paid → provisioning. A top-up's time is on the lease before the cluster is asked.
    pub(super) async fn start_provisioning(&self, order: &mut Order) -> Result<(), StepError> {
        order.state = State::Provisioning;
        let seconds = match Decision::of(order) {
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
            Err(ProvisionError::StepError(setback)) => Err(setback),
            Err(ProvisionError::Cluster(ClusterError::Unavailable(why)))
                if order.created_at.after(patience()) > UnixTime::now() =>
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
        decision.pod = Some(crate::backend::policy::PodDecision { placement, rendered });
        order.decision = Some(decision);
        order.launches = order.launches.saturating_add(1);
        self.transition(order, State::Provisioning, LeaseUpdate::Put(&stored)).await
    }

    /// → refund-pending: the money must go back, for this reason.
    pub(super) async fn start_refund(
        &self,
        order: &mut Order,
        from: State,
        refusal: Refusal,
    ) -> Result<(), StepError> {
        let seconds =
            order.decision.as_ref().map(|decision| decision.grant.seconds).unwrap_or_default();
        order.refusal = Some(refusal);
        order.state = State::RefundPending;
        match &order.purchase {
            // Only an extension that was written needs to be taken back.
            Purchase::TopUp { pod } if from == State::Provisioning => {
                self.transition(order, from, LeaseUpdate::Shorten(pod, seconds)).await
            }
            _ => self.transition(order, from, LeaseUpdate::Keep).await,
        }
    }

    /// refund-pending → refunded: what was begun is removed, the refund made and stored; the answer
    /// carries it.
    pub(super) async fn refund(&self, order: &mut Order) -> Result<(), StepError> {
        // Of a lease that was delivered only the rest goes back, and its pod is gone already.
        let mut lease = if order.due.is_none() { self.ended_lease(order).await? } else { None };
        if let Some(begun) = &mut lease {
            match self.backends.cluster.remove(&begun.pod()).await {
                Ok(()) => self.backends.ledger.release_port(&begun.id).await?,
                // The customer does not wait for a cluster that is away: the port stays reserved
                // until the sweep.
                Err(error) => {
                    tracing::warn!(%error, "the pod of a refunded order could not be removed yet");
                    begun.state = LeaseState::Live;
                    begun.expires_at = Some(UnixTime::now());
                }
            }
        }
        let amount = order.due.or(order.redeemed).unwrap_or_default();
        let refund = self
            .backends
            .wallet
            .refund(&order.id, &order.token_info.mint, amount)
            .await
            .map_err(|error| StepError::Retry(error.to_string()))?;
        order.record_refund(&refund);
        order.secrets.password = None;
        order.state = State::Refunded;
        self.transition(
            order,
            State::RefundPending,
            lease.as_ref().map_or(LeaseUpdate::Keep, LeaseUpdate::Put),
        )
        .await
    }
}

fn patience() -> Seconds {
    Seconds(limits::PROVISION_PATIENCE.as_secs())
}

/// Why a paid order is not active yet.
enum ProvisionError {
    StepError(StepError),
    Cluster(ClusterError),
}

impl From<StepError> for ProvisionError {
    fn from(setback: StepError) -> Self {
        Self::StepError(setback)
    }
}

impl From<crate::backend::store::LedgerError> for ProvisionError {
    fn from(error: crate::backend::store::LedgerError) -> Self {
        Self::StepError(error.into())
    }
}

impl From<ClusterError> for ProvisionError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}
