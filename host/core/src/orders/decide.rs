//! Everything that can be refused, while the customer still holds the money.

use super::{OrderService, StepError, internal};
use crate::backend::cluster::{LOGIN_MOUNT_PATH, LeasePlan};
use crate::backend::policy::{Payment, Placement, PodDecision, PolicySet, PolicyTrace, Quote};
use crate::backend::store::LeaseUpdate;
use crate::limits;
use crate::model::order::{Lease, LeaseState, Order, OrderSecrets, OrderView, Purchase, State};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::secret::Secret;
use crate::model::units::{LeaseId, PodName, Seconds, UnixTime};

impl OrderService {
    /// received → decided, or refused.
    pub(super) async fn decide(
        &self,
        order: &mut Order,
        set: &dyn PolicySet,
    ) -> Result<(), StepError> {
        let decided = match order.purchase.clone() {
            Purchase::Spawn { .. } => self.decide_spawn(order, set).await,
            Purchase::TopUp { pod } => self.decide_top_up(order, &pod, set).await,
        };
        let policy_trace = match decided {
            Ok(lease) => {
                order.state = State::Decided;
                self.transition(
                    order,
                    State::Received,
                    lease.as_ref().map_or(LeaseUpdate::Keep, LeaseUpdate::Put),
                )
                .await
            }
            Err(refusal) => self.refuse(order, State::Received, refusal).await,
        };
        if policy_trace.is_ok() {
            self.backends.policy.observe(order);
        }
        policy_trace
    }

    /// Refuses the order: nothing was taken, the token is forgotten here, its proofs and its port
    /// are free.
    pub(super) async fn refuse(
        &self,
        order: &mut Order,
        from: State,
        refusal: Refusal,
    ) -> Result<(), StepError> {
        tracing::info!(code = refusal.code.as_str(), reason = refusal.message, "refused");
        if let Purchase::Spawn { .. } = &order.purchase {
            self.backends.ledger.release_port(&LeaseId::of(&order.id)).await?;
        }
        let lease = self.ended_lease(order).await?;
        order.refusal = Some(refusal);
        order.secrets = OrderSecrets::default();
        // A forged token may hold as many proofs as fit into a message, and forged top-ups of a
        // lease cost nothing.
        order.token_info.ys.clear();
        if let Purchase::TopUp { .. } = &order.purchase {
            order.lease = None;
        }
        order.state = State::Refused;
        self.transition(order, from, lease.as_ref().map_or(LeaseUpdate::Keep, LeaseUpdate::Put))
            .await
    }

    /// The lease of a spawn that comes to nothing, as ended.
    pub(super) async fn ended_lease(&self, order: &Order) -> Result<Option<Lease>, StepError> {
        let (Purchase::Spawn { .. }, Some(lease)) = (&order.purchase, &order.lease) else {
            return Ok(None);
        };
        let mut lease = self.backends.ledger.lease(&lease.pod_name()).await?;
        if let Some(lease) = &mut lease {
            lease.state = LeaseState::Ended;
        }
        Ok(lease)
    }

    async fn verify(&self, order: &Order) -> Result<Payment, Refusal> {
        let none = Secret::default();
        self.backends
            .wallet
            .verify(order.secrets.token.as_ref().unwrap_or(&none), &order.token_info)
            .await
    }

    /// What the policies are called with.
    async fn trace(
        &self,
        order: &Order,
        view: OrderView,
        set: &dyn PolicySet,
    ) -> Result<PolicyTrace, Refusal> {
        let payment = self.verify(order).await?;
        let context = self.context(order.customer()).await?;
        Ok(PolicyTrace {
            digests: set.digests(),
            order: view,
            context,
            payment,
            image: None,
            quote: None,
            grant: None,
            refund: None,
            placement: None,
        })
    }

    async fn decide_spawn(
        &self,
        order: &mut Order,
        set: &dyn PolicySet,
    ) -> Result<Option<Lease>, Refusal> {
        let policy_trace =
            order.policy_trace.insert(self.trace(order, order.view(None), set).await?);
        let PolicyTrace { order: view, context, payment, .. } = policy_trace;
        let image = policy_trace.image.insert(set.admit(view, context).await?);
        let quote = policy_trace.quote.insert(set.quote(view, context).await?);
        let grant = policy_trace.grant.insert(set.grant(view, quote, payment, context).await?);
        policy_trace.refund = set.refund(view, quote, payment, grant, context).await?;
        check_minimum(payment, quote)?;
        let lease = order.lease.get_or_insert_with(|| LeaseId::of(&order.id)).clone();
        let placement = policy_trace.placement.insert(self.place(&lease, image, quote).await?);
        let rendered = set.render(view, grant, placement).await?;
        let pod = PodDecision { placement: placement.clone(), rendered };
        let new = Lease {
            id: lease,
            customer: order.reply_to.customer.clone(),
            tier: quote.tier.clone(),
            image: image.clone(),
            resources: quote.resources,
            username: view.username.clone(),
            port: placement.host_port,
            state: LeaseState::Reserved,
            created_at: order.created_at,
            expires_at: None,
            end: None,
        };
        order.decide(Some(pod));
        self.backends.cluster.dry_run(&plan(order)?).await?;
        Ok(Some(new))
    }

    async fn decide_top_up(
        &self,
        order: &mut Order,
        pod: &PodName,
        set: &dyn PolicySet,
    ) -> Result<Option<Lease>, Refusal> {
        let lease = self.find_lease(pod).await?;
        let now = UnixTime::now();
        let expired = || {
            Refusal::new(
                ErrorType::LeaseExpired,
                "this pod has ended or is about to; order a new one",
            )
        };
        let expires_at = match (lease.state, lease.expires_at) {
            (LeaseState::Live, Some(at))
                if lease.end.is_none() && at.since(now) > Seconds(limits::TOP_UP_MARGIN) =>
            {
                at
            }
            (LeaseState::Reserved, _) => {
                return Err(Refusal::new(
                    ErrorType::ResourceUnavailable,
                    "this pod is not ready yet; try again in a minute",
                ));
            }
            _ => return Err(expired()),
        };
        let view = order.view(Some(lease.view(order.customer(), now)));
        let policy_trace = order.policy_trace.insert(self.trace(order, view, set).await?);
        let PolicyTrace { order: view, context, payment, .. } = policy_trace;
        let quote = policy_trace.quote.insert(set.quote(view, context).await?);
        let grant = policy_trace.grant.insert(set.grant(view, quote, payment, context).await?);
        policy_trace.refund = set.refund(view, quote, payment, grant, context).await?;
        check_minimum(payment, quote)?;
        let later = expires_at.after(grant.seconds);
        if later.since(now) > Seconds(limits::GRANT_SECONDS) {
            return Err(Refusal::new(
                ErrorType::InvalidRequest,
                "the pod would live longer than ten years; send a smaller token",
            ));
        }
        order.lease = Some(lease.id.clone());
        order.decide(None);
        self.backends.cluster.check_running(pod, later).await?;
        Ok(None)
    }

    /// Reserves a port and fixes what the template must keep to.
    pub(super) async fn place(
        &self,
        lease: &LeaseId,
        image: &str,
        quote: &Quote,
    ) -> Result<Placement, Refusal> {
        let port = self
            .backends
            .ledger
            .reserve_port(lease, self.settings.ports.clone())
            .await
            .map_err(|error| internal(&error))?;
        let host_port = port.ok_or_else(|| {
            Refusal::new(
                ErrorType::ResourceUnavailable,
                "No available ports in the configured range",
            )
            .with_details(
                "all pods are leased; your token was not taken, try again when one has ended",
            )
        })?;
        let name = lease.pod_name();
        Ok(Placement {
            pod_name: name.0.clone(),
            image: image.to_owned(),
            resources: quote.resources,
            host_port,
            container_port: self.settings.container_port,
            secret_name: name.0,
            secret_mount_path: LOGIN_MOUNT_PATH.to_owned(),
        })
    }
}

/// The pod of a decided order, for the cluster.
pub(super) fn plan(order: &Order) -> Result<LeasePlan, Refusal> {
    let decision = order.decided()?;
    let missing = || Refusal::new(ErrorType::InternalError, "the order lacks its pod or its login");
    let pod = decision.pod.clone().ok_or_else(missing)?;
    Ok(LeasePlan {
        lease: order.lease.clone().ok_or_else(missing)?,
        placement: pod.placement,
        rendered: pod.rendered,
        login: order.login().ok_or_else(missing)?,
        sold: decision.grant.seconds,
    })
}

/// The minimum of the pricing policy holds even if the duration policy ignores it.
pub(super) fn check_minimum(payment: &Payment, quote: &Quote) -> Result<(), Refusal> {
    if payment.net >= quote.minimum {
        return Ok(());
    }
    let (net, minimum, fee) = (payment.net, quote.minimum, payment.fee);
    Err(Refusal::new(
        ErrorType::InsufficientPayment,
        format!("the token is worth {net} after the mint's fee of {fee}; the minimum is {minimum}"),
    ))
}
