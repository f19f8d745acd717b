//! The task of one order: steps, retries, and its response.

use super::admission::Place;
use super::mint_permit::OrderAtMint;
use super::submit::InFlightGuard;
use super::unpaid_launch::UnpaidLaunch;
use super::{OrderService, StepError, Submission};
use crate::backend::policy::PolicySet;
use crate::backend::store::LeaseUpdate;
use crate::backoff::doubling;
use crate::error_chain;
use crate::limits;
use crate::model::order::{Lease, Order, OrderState, State};
use crate::model::order_state::{DecisionProgress, Paid, Task};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::UnixTime;
use crate::protocol::{self, Response};
use backon::ExponentialBackoff;
use std::sync::Arc;
use tracing::Instrument;

impl OrderService {
    /// Works on the order in a task of its own.
    pub(super) fn spawn(
        self: &Arc<Self>,
        order: Order,
        guard: InFlightGuard,
        place: Option<Place>,
    ) -> Submission {
        let (id, receiver) = (order.id.clone(), guard.sender.subscribe());
        let orders = Arc::clone(self);
        let span = tracing::info_span!("order", id = %id);
        tokio::spawn(
            async move {
                let trying = orders.image_starts.trying(&order.id);
                let driven = orders.drive(order, place).await;
                drop(trying);
                if let Some(order) = driven
                    && let Some(answer) = orders.answer(&order).await
                {
                    guard.sender.send_replace(Some(answer.clone()));
                    if !order.delivered {
                        orders.send(order, answer).await;
                    }
                }
                drop(guard);
            }
            .instrument(span),
        );
        Submission::InProgress(id, receiver)
    }

    /// Steps until the order is final; `None` when another process has it.
    async fn drive(&self, mut order: Order, place: Option<Place>) -> Option<Order> {
        let mut delays = backoff();
        // Replaced until the order is decided, and not after: no order is decided by two sets.
        let mut set = self.backends.policy.current();
        let (mut unknown, mut launch) = (None, self.resumed_launch(&order));
        let mut at_mint = OrderAtMint::new(place);
        order = self.undecided(order).await?;
        while !order.state().is_final() {
            if !order.state().needs_slot() {
                at_mint.leave();
            }
            match order.state() {
                State::PaymentUnknown => {
                    unknown.get_or_insert_with(|| self.unknown.claim(&order));
                }
                _ => unknown = None,
            }
            let state = order.state();
            let span = tracing::info_span!("step", state = state.as_str());
            let stepped = async {
                match self.acquire_permit(&order, &mut at_mint, &mut set).await {
                    Ok(()) => self.step(&mut order, &*set, &mut launch, &mut at_mint).await,
                    Err(refusal) if at_mint.has_begun() => {
                        self.refuse(&mut order, refusal, DecisionProgress::Nothing).await
                    }
                    Err(refusal) => self.refuse_unbegun(&mut order, refusal).await,
                }
            };
            let stepped = stepped.instrument(span).await;
            match &stepped {
                Ok(()) => at_mint.end_room_wait(),
                Err(_) => at_mint.release_permit(),
            }
            order = self.after_step(order, state, stepped, &mut delays).await?;
        }
        drop((at_mint, unknown, launch));
        log_settled(&order);
        Some(order)
    }

    /// The order, before its decision if it is resumed with one.
    async fn undecided(&self, mut order: Order) -> Option<Order> {
        let mut delays = backoff();
        while let OrderState::Decided(unpaid) = order.state.clone() {
            let state = order.state();
            let stepped = self.undecide(&mut order, unpaid).await;
            order = self.after_step(order, state, stepped, &mut delays).await?;
        }
        Some(order)
    }

    /// The order as it is after a step from this state, and a pause if it failed; `None` when
    /// another process has it.
    async fn after_step(
        &self,
        order: Order,
        from: State,
        stepped: Result<(), StepError>,
        delays: &mut ExponentialBackoff,
    ) -> Option<Order> {
        match stepped {
            Ok(()) => {
                *delays = backoff();
                Some(order)
            }
            Err(StepError::Conflict) => {
                tracing::info!("another process works this order");
                None
            }
            Err(StepError::Retry(error)) => {
                tracing::warn!(
                    error = error_chain(&*error),
                    state = from.as_str(),
                    "a step failed and will be tried again"
                );
                wait(delays).await;
                self.read_again(&order, delays).await
            }
        }
    }

    /// The order as the ledger holds it: what memory holds may never have been written.
    async fn read_again(&self, order: &Order, delays: &mut ExponentialBackoff) -> Option<Order> {
        loop {
            match self.backends.ledger.order(&order.id).await {
                Ok(stored) => return stored,
                Err(error) => {
                    tracing::warn!(%error, "the order cannot be read; the ledger is tried again")
                }
            }
            wait(delays).await;
        }
    }

    /// Moves the order to the next state.
    async fn step<'a>(
        &'a self,
        order: &mut Order,
        set: &dyn PolicySet,
        launch: &mut Option<UnpaidLaunch<'a>>,
        at_mint: &mut OrderAtMint,
    ) -> Result<(), StepError> {
        // Paid for, or removed.
        *launch = launch.take().filter(|_| order.state.may_run_unpaid());
        let from = order.state();
        let done = match order.state.clone() {
            OrderState::Received { token, password } => {
                self.decide(order, &token, password, set, at_mint).await
            }
            OrderState::Decided(unpaid) => {
                self.hand_over(order, &unpaid.token, at_mint).await;
                self.receive(order, unpaid, launch).await
            }
            OrderState::Redeeming(unpaid) => self.resolve(order, unpaid, None).await,
            OrderState::PaymentUnknown { unpaid, abandoned: None }
                if UnixTime::now() > self.unknown.port_until(order) =>
            {
                self.abandon_payment(order, unpaid).await
            }
            OrderState::PaymentUnknown { unpaid, abandoned } => {
                let _turn = self.unknown.acquire(&order.token_info.mint).await;
                self.resolve(order, unpaid, abandoned).await
            }
            OrderState::Paid(paid) => self.start_provisioning(order, paid).await,
            OrderState::Provisioning { paid, .. } => self.provision(order, paid, set).await,
            OrderState::RefundPending { sale, cause, .. } => self.refund(order, sale, cause).await,
            OrderState::Active { .. }
            | OrderState::Ended { .. }
            | OrderState::Refused { .. }
            | OrderState::Refunded { .. } => Ok(()),
        };
        let refusal = order.state.refusal().filter(|_| !from.is_final());
        if at_mint.has_handed_over()
            && refusal.is_some_and(|it| it.code == ErrorType::TokenAlreadySpent)
        {
            self.double_spends.report(&order.token_info.mint);
        }
        done
    }

    /// Moves the order to the next state, and writes that.
    pub(super) async fn transition(
        &self,
        order: &mut Order,
        next: OrderState,
        lease: LeaseUpdate<'_>,
    ) -> Result<(), StepError> {
        let from = order.state();
        order.state = next;
        tracing::debug!(from = from.as_str(), to = order.state().as_str(), "transition");
        if matches!(order.state(), State::PaymentUnknown | State::RefundPending) {
            // It may be so for days, as long as its mint is away, and has no pod meanwhile.
            self.image_starts.end(&order.id);
        }
        Ok(self.backends.ledger.transition(order, from, lease).await?)
    }

    /// The response to an order; none until it is final.
    pub(super) async fn answer(&self, order: &Order) -> Option<Response> {
        if !order.state().is_final() {
            return None;
        }
        if let Some(refusal) = order.state.refusal() {
            return Some(self.add_receipt(protocol::refused(order, refusal), order, None));
        }
        let pod = order.pod();
        let lease = match self.find_lease(&pod).await {
            Ok(lease) => lease,
            Err(refusal) => return Some(Response::from(&refusal)),
        };
        let response = match &order.state {
            OrderState::Active { paid, expires_at } => self.activated(paid, *expires_at, &lease),
            OrderState::Ended { expires_at, .. } => {
                let message =
                    format!("{pod} has ended; it was paid until {}", expires_at.rfc3339());
                let mut refusal = Refusal::new(ErrorType::LeaseExpired, message);
                refusal.end_reason = lease.end;
                Response::from(&refusal)
            }
            OrderState::Refunded { .. } => protocol::stopped(&pod, &[order], lease.end).into(),
            _ => return None,
        };
        Some(self.add_receipt(response, order, Some(&lease)))
    }

    fn activated(&self, paid: &Paid, expires_at: UnixTime, lease: &Lease) -> Response {
        let grant = &paid.agreement.decision.grant;
        let note = grant.note.as_deref();
        match &paid.task {
            Task::Spawn { login, .. } => {
                let password = login.password.as_ref();
                self.access_details(lease, password, expires_at, note).into()
            }
            Task::TopUp { pod } => {
                let mut response = protocol::topped_up(pod, grant.seconds, expires_at, note);
                if let Response::ToppedUp(topped_up) = &mut response {
                    topped_up.pod_npub = lease.pod_npub();
                }
                response
            }
        }
    }
}

/// The line of an order: which, what became of it, and how long that took.
fn log_settled(order: &Order) {
    tracing::info!(
        order = %order.id,
        state = order.state().as_str(),
        seconds = UnixTime::now().since(order.created_at).0,
        refusal = order.state.refusal().map(|refusal| refusal.code.as_str()),
        "settled"
    );
}

pub(super) fn backoff() -> ExponentialBackoff {
    doubling(limits::RETRY_FIRST, limits::RETRY_LONGEST)
}

pub(super) async fn wait(backoff: &mut ExponentialBackoff) {
    tokio::time::sleep(backoff.next().unwrap_or(limits::RETRY_LONGEST)).await;
}
