//! Everything that can be refused, while the customer still holds the money.

use super::capacity::{self, NotReserved};
use super::image_starts::PodImage;
use super::lane::Lane;
use super::mint_permit::OrderAtMint;
use super::{OrderService, StepError, unreadable};
use crate::backend::capacity::{NoCapacity, Tier};
use crate::backend::cluster::{LOGIN_MOUNT_PATH, LeasePlan};
use crate::backend::policy::{
    Grant, Payment, Placement, PodDecision, PolicySet, PolicyTrace, Quote,
};
use crate::backend::store::LeaseUpdate;
use crate::limits;
use crate::model::ids::{ImageRef, LeaseId, OrderId};
use crate::model::login::Login;
use crate::model::order::{Lease, LeaseState, Order, OrderState, OrderView, Purchase};
use crate::model::order_state::{Agreement, DecisionProgress, PlannedPod, Task, Unpaid};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::Run;
use crate::model::secret::Secret;
use std::time::Instant;

impl OrderService {
    /// received → decided, or refused.
    pub(super) async fn decide(
        &self,
        order: &mut Order,
        token: &Secret,
        password: Option<Secret>,
        set: &dyn PolicySet,
        at_mint: &mut OrderAtMint,
    ) -> Result<(), StepError> {
        let decided = match &order.purchase {
            Purchase::Spawn { username, public_key, .. } => {
                let login = Login::new(username.clone(), password, public_key.clone());
                self.decide_spawn(order, token, login, set, at_mint).await
            }
            Purchase::TopUp { pod } => self.decide_top_up(order, token, pod, set).await,
        };
        let written = match decided {
            Ok(Agreed { agreement, task, lease }) => {
                let (token, launched, proven) = (token.clone(), false, false);
                let unpaid = Unpaid { token, agreement, task, launched, proven };
                let decided = OrderState::Decided(unpaid);
                self.transition(order, decided, lease.as_ref().into()).await
            }
            Err(Rejected { refusal, progress }) => self.refuse(order, refusal, progress).await,
        };
        if written.is_ok() {
            self.backends.policy.observe(order);
        }
        written
    }

    /// Refuses the order: nothing was taken, the token is forgotten here, its proofs and its port
    /// are free.
    pub(super) async fn refuse(
        &self,
        order: &mut Order,
        refusal: Refusal,
        progress: DecisionProgress,
    ) -> Result<(), StepError> {
        let released = self.release_lease(order, &refusal).await?;
        self.write_refused(order, refusal, progress, released.as_ref().into()).await
    }

    /// As [`Self::refuse`], before the order's first turn: it has no port, nor a lease. Those who are
    /// refused so in a crowd do not wait for each other, nor for those who reserve.
    pub(super) async fn refuse_unbegun(
        &self,
        order: &mut Order,
        refusal: Refusal,
    ) -> Result<(), StepError> {
        self.write_refused(order, refusal, DecisionProgress::Nothing, LeaseUpdate::Keep).await
    }

    async fn write_refused(
        &self,
        order: &mut Order,
        refusal: Refusal,
        progress: DecisionProgress,
        lease: LeaseUpdate<'_>,
    ) -> Result<(), StepError> {
        tracing::info!(code = refusal.code.as_str(), reason = refusal.message, "refused");
        // A forged token may hold as many proofs as fit into a message.
        order.token_info.ys.clear();
        let refused = OrderState::Refused { refusal, progress };
        self.transition(order, refused, lease).await?;
        if self.refusals.is_due()
            && let Err(error) = self.forget_refused().await
        {
            tracing::warn!(%error, "refused orders could not be forgotten yet");
        }
        Ok(())
    }

    /// Removes the pod of a spawn that comes to nothing, if it runs already. What becomes of its
    /// lease: its port is released with the transition, so that a replica that lost the order
    /// releases nothing.
    pub(super) async fn release_lease(
        &self,
        order: &Order,
        refusal: &Refusal,
    ) -> Result<Option<ReleasedLease>, StepError> {
        let Purchase::Spawn { .. } = &order.purchase else { return Ok(None) };
        let mut lease = self.ended_lease(order, refusal).await?;
        if let Some(lease) = &mut lease
            && order.state.may_run_unpaid()
        {
            self.check_own(order).await?;
            self.unpaid_failures.insert(order);
            self.discard(lease).await?;
        }
        Ok(Some(ReleasedLease { id: LeaseId::of(&order.id), lease }))
    }

    /// Before the pod of an order is removed: another replica that has the order by now may have
    /// launched it.
    pub(super) async fn check_own(&self, order: &Order) -> Result<(), StepError> {
        Ok(self.backends.ledger.check_state(&order.id, order.state()).await?)
    }

    /// The lease of a spawn that comes to nothing for this reason, as ended.
    pub(super) async fn ended_lease(
        &self,
        order: &Order,
        refusal: &Refusal,
    ) -> Result<Option<Lease>, StepError> {
        let Purchase::Spawn { .. } = &order.purchase else { return Ok(None) };
        let mut lease = self.backends.ledger.lease(&order.pod()).await?;
        if let Some(lease) = &mut lease {
            lease.state = LeaseState::Ended;
            lease.end = lease.end.or(refusal.end_reason);
        }
        Ok(lease)
    }

    /// Refuses what is not sold now, and what pods do not run or serve here.
    pub(super) async fn check_offered(&self, purchase: &Purchase) -> Result<(), Refusal> {
        self.sales().await?.check(purchase)?;
        self.check_run(purchase)
    }

    fn check_run(&self, purchase: &Purchase) -> Result<(), Refusal> {
        self.check_http(purchase)?;
        match purchase.run() {
            Run::Image if !self.backends.cluster.features.runs_images() => Err(Refusal::new(
                ErrorType::InvalidRequest,
                "images' own programs are not run here; leave run out, and start the program in the pod",
            )),
            Run::Image | Run::Ssh => Ok(()),
        }
    }

    /// What the policies are called with.
    pub(super) async fn trace(
        &self,
        order: &Order,
        token: &Secret,
        view: OrderView,
        set: &dyn PolicySet,
    ) -> Result<PolicyTrace, Refusal> {
        let payment = self.backends.wallet.verify(token, &order.token_info).await?;
        let (context, _) = self.context(order.customer(), Some(&order.id)).await?;
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
        order: &Order,
        token: &Secret,
        login: Login,
        set: &dyn PolicySet,
        at_mint: &mut OrderAtMint,
    ) -> Result<Agreed, Rejected> {
        self.check_offered(&order.purchase).await?;
        let trace = self.trace(order, token, order.view(None), set);
        let mut trace = self.unless_sold_out(order, at_mint, trace).await?;
        let (quote, grant, pod) = match self.spawn_terms(&order.id, &mut trace, set).await {
            Ok(terms) => terms,
            Err(refusal) => return Err(Rejected::by_policy(refusal, trace)),
        };
        let mut planned = PlannedPod { decision: Box::new(pod), moves: 0 };
        let agreement = Agreement::of(trace, quote, grant);
        let reserved = match self.prepare(order, token, &agreement, &planned, at_mint).await {
            Ok(()) => self.reserve_planned(order, &agreement, &mut planned, &login, set).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = reserved {
            return Err(Rejected::by_cluster(refusal, agreement, Some(planned)));
        }
        let plan = lease_plan(order, &agreement, &planned, &login);
        let placement = &plan.placement;
        let lease = Lease {
            id: LeaseId::of(&order.id),
            customer: order.reply_to.customer.clone(),
            tier: agreement.decision.quote.tier.clone(),
            image: placement.image.clone(),
            resources: agreement.decision.quote.resources,
            username: login.username.clone(),
            port: placement.host_port,
            port_kind: self.backends.cluster.validator.port_kind(&plan),
            state: LeaseState::Reserved,
            created_at: order.created_at,
            expires_at: None,
            end: None,
            served_until: None,
            noticed_at: None,
            pod_uid: None,
            host_keys: Vec::new(),
            root: None,
            pod_key: None,
            ssh_host: None,
            http: order.purchase.http(),
        };
        Ok(Agreed { agreement, task: Task::Spawn { planned, login }, lease: Some(lease) })
    }

    /// Before a pod is validated.
    async fn prepare(
        &self,
        order: &Order,
        token: &Secret,
        agreement: &Agreement,
        planned: &PlannedPod,
        at_mint: &mut OrderAtMint,
    ) -> Result<(), Refusal> {
        self.begin_start(order, token, agreement, planned).await?;
        self.reserve_early(order, token, &agreement.decision.quote, at_mint).await
    }

    /// Before a pod of an image that its customer has named is reserved.
    async fn begin_start(
        &self,
        order: &Order,
        token: &Secret,
        agreement: &Agreement,
        planned: &PlannedPod,
    ) -> Result<(), Refusal> {
        let Purchase::Spawn { image: Some(_), .. } = &order.purchase else { return Ok(()) };
        let decision = &agreement.decision;
        let (capacity, tier) = (decision.context.capacity_leases, &decision.quote.tier);
        let image = PodImage::new(&planned.decision.placement.image, tier, order.purchase.run());
        let (customer, now) = (order.limited_customer(), Instant::now());
        self.image_starts.check(&image, now)?;
        let try_start = |lane| {
            let customer = customer.as_ref();
            self.image_starts.try_start(&order.id, &image, customer, (capacity, lane), now)
        };
        match try_start(Lane::Unproven) {
            Err(_) if self.backends.wallet.is_proven(token, &order.token_info).await => {
                try_start(Lane::Proven)
            }
            tried => tried,
        }
    }

    /// Reserves what this pod needs, and moves it to another port while other pods have its own.
    async fn reserve_planned(
        &self,
        order: &Order,
        agreement: &Agreement,
        planned: &mut PlannedPod,
        login: &Login,
        set: &dyn PolicySet,
    ) -> Result<(), Refusal> {
        for moves in 0..=limits::LAUNCH_ATTEMPTS {
            match self.reserve(&lease_plan(order, agreement, planned, login)).await {
                Ok(()) => return Ok(()),
                Err(NotReserved::Refused(refusal)) => {
                    self.report_if_sold_out(order, &Tier::from(&agreement.decision.quote)).await;
                    return Err(refusal);
                }
                Err(NotReserved::PortTaken) if moves == limits::LAUNCH_ATTEMPTS => break,
                Err(NotReserved::PortTaken) => {}
            }
            let taken = planned.decision.placement.host_port;
            tracing::info!(taken, "other pods have the port: moving the pod to another one");
            let moved = self.move_pod(&order.id, agreement, planned, set).await?;
            if moved.placement.host_port == taken {
                break;
            }
            *planned.decision = moved;
        }
        Err(capacity::refusal(NoCapacity::Port))
    }

    /// A planned pod on another port; on the same one if no other is free.
    pub(super) async fn move_pod(
        &self,
        order: &OrderId,
        agreement: &Agreement,
        planned: &PlannedPod,
        set: &dyn PolicySet,
    ) -> Result<PodDecision, Refusal> {
        let lease = LeaseId::of(order);
        if let Some(ports) = self.settings.access.ports() {
            self.backends
                .ledger
                .reassign_port(&lease, ports.clone())
                .await
                .map_err(|error| unreadable(&error))?;
        }
        let decision = &agreement.decision;
        let image = &planned.decision.placement.image;
        let placement = self.place(&lease, image, &decision.quote).await?;
        let (order, quote, grant) = (&decision.order, &decision.quote, &decision.grant);
        let rendered = set.render(order, quote, grant, &placement).await?;
        Ok(PodDecision { placement, rendered })
    }

    /// What the policies say of a new pod.
    async fn spawn_terms(
        &self,
        order: &OrderId,
        trace: &mut PolicyTrace,
        set: &dyn PolicySet,
    ) -> Result<(Quote, Grant, PodDecision), Refusal> {
        let image = trace.image.insert(set.admit(&trace.order, &trace.context).await?).clone();
        let (quote, grant) = quote_and_grant(trace, set).await?;
        let placement = self.place(&LeaseId::of(order), &image, &quote).await?;
        let placement = trace.placement.insert(placement).clone();
        let rendered = set.render(&trace.order, &quote, &grant, &placement).await?;
        Ok((quote, grant, PodDecision { placement, rendered }))
    }

    /// Reserves a port, if pods have one, and fixes what the template must keep to.
    pub(super) async fn place(
        &self,
        lease: &LeaseId,
        image: &ImageRef,
        quote: &Quote,
    ) -> Result<Placement, Refusal> {
        let port = self.reserve_port_or_place(lease).await?;
        Ok(self.placement(lease, image, quote, port))
    }

    /// What the template of a pod must keep to.
    pub(super) fn placement(
        &self,
        lease: &LeaseId,
        image: &ImageRef,
        quote: &Quote,
        host_port: Option<u16>,
    ) -> Placement {
        let name = lease.pod_name();
        Placement {
            pod_name: name.to_string(),
            image: image.clone(),
            resources: quote.resources,
            host_port,
            access: self.settings.access.modes().clone(),
            container_port: self.settings.container_port,
            secret_name: name.into(),
            secret_mount_path: LOGIN_MOUNT_PATH.to_owned(),
        }
    }
}

/// The lease of a spawn that comes to nothing, as it is to be written.
pub(super) struct ReleasedLease {
    id: LeaseId,
    lease: Option<Lease>,
}

impl<'a> From<Option<&'a ReleasedLease>> for LeaseUpdate<'a> {
    fn from(released: Option<&'a ReleasedLease>) -> Self {
        match released {
            None => Self::Keep,
            // Its pod could not be removed yet: it keeps its port.
            Some(ReleasedLease { lease: Some(lease), .. }) if lease.state == LeaseState::Live => {
                Self::Put(lease)
            }
            Some(ReleasedLease { id, lease }) => Self::Release(id, lease.as_ref()),
        }
    }
}

/// What an order and its customer have agreed on.
pub(super) struct Agreed {
    pub(super) agreement: Agreement,
    pub(super) task: Task,
    /// The lease of a new pod.
    pub(super) lease: Option<Lease>,
}

/// Why they have not, and how far it had come.
pub(super) struct Rejected {
    refusal: Refusal,
    progress: DecisionProgress,
}

impl Rejected {
    pub(super) fn by_policy(refusal: Refusal, trace: PolicyTrace) -> Self {
        Self { refusal, progress: DecisionProgress::Trace(Box::new(trace)) }
    }

    pub(super) fn by_cluster(
        refusal: Refusal,
        agreement: Agreement,
        planned: Option<PlannedPod>,
    ) -> Self {
        let progress = DecisionProgress::Agreement { agreement: Box::new(agreement), planned };
        Self { refusal, progress }
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, progress: DecisionProgress::Nothing }
    }
}

/// The price, the time and the refund terms of an order.
pub(super) async fn quote_and_grant(
    trace: &mut PolicyTrace,
    set: &dyn PolicySet,
) -> Result<(Quote, Grant), Refusal> {
    let PolicyTrace { order, context, payment, .. } = trace;
    let quote = trace.quote.insert(set.quote(order, context).await?);
    let grant = trace.grant.insert(set.grant(order, quote, payment, context).await?);
    trace.refund = set.refund(order, quote, payment, grant, context).await?;
    check_minimum(payment, quote)?;
    Ok((quote.clone(), grant.clone()))
}

/// The pod of an order, for the cluster.
pub(super) fn lease_plan(
    order: &Order,
    agreement: &Agreement,
    planned: &PlannedPod,
    login: &Login,
) -> LeasePlan {
    LeasePlan {
        lease: LeaseId::of(&order.id),
        tier: agreement.decision.quote.tier.clone(),
        placement: planned.decision.placement.clone(),
        rendered: planned.decision.rendered.clone(),
        login: login.clone(),
        sold: agreement.decision.grant.seconds,
        pod_reply: None,
        run: order.purchase.run(),
    }
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
