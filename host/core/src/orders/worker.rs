//! The task of one order: steps, retries, and the delivery of its response.

use super::submit::InFlightGuard;
use super::{OrderService, StepError, Submission};
use crate::backend::policy::PolicySet;
use crate::backend::store::LeaseUpdate;
use crate::limits;
use crate::model::order::{Order, Purchase, State};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::{Seconds, UnixTime};
use crate::protocol::{self, Response};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

impl OrderService {
    /// Works on the order in a task of its own.
    pub(super) fn spawn(
        self: &Arc<Self>,
        order: Order,
        entry: InFlightGuard,
        place: Option<OwnedSemaphorePermit>,
    ) -> Submission {
        let (id, receiver) = (order.id.clone(), entry.sender.subscribe());
        let orders = Arc::clone(self);
        let span = tracing::info_span!("order", id = %id);
        tokio::spawn(
            async move {
                if let Some(order) = orders.drive(order, place).await {
                    let answer = orders.answer(&order).await;
                    entry.sender.send_replace(Some(answer.clone()));
                    if !order.delivered {
                        orders.send(&order, &answer).await;
                    }
                }
                drop(entry);
            }
            .instrument(span),
        );
        Submission::InProgress(id, receiver)
    }

    /// Steps until the order is final; `None` when another process has it.
    async fn drive(
        &self,
        mut order: Order,
        mut place: Option<OwnedSemaphorePermit>,
    ) -> Option<Order> {
        let mut delays = backoff();
        // Taken once: no order is decided by two sets.
        let set = self.backends.policy.current();
        let mut permit = None;
        while !order.state.is_final() {
            permit = match permit.take() {
                None if order.state.is_awaiting_payment() => {
                    self.order_slots.acquire(&order.token_info.mint).await
                }
                permit => permit.filter(|_| order.state.is_awaiting_payment()),
            };
            if order.state == State::PaymentUnknown {
                // It may wait for days.
                place = None;
            }
            let state = order.state;
            let span = tracing::info_span!("step", state = state.as_str());
            match self.step(&mut order, &*set).instrument(span).await {
                Ok(()) => delays = backoff(),
                Err(StepError::Conflict) => {
                    tracing::info!("another process works this order");
                    return None;
                }
                Err(StepError::Retry(why)) => {
                    tracing::warn!(
                        why,
                        state = state.as_str(),
                        "a step failed and will be tried again"
                    );
                    // A waiting order does not delay the others.
                    permit = None;
                    wait(&mut delays).await;
                    order = self.read_again(&order, &mut delays).await?;
                }
            }
        }
        drop(place);
        tracing::info!(
            state = order.state.as_str(),
            refusal = order.refusal.as_ref().map(|r| r.code.as_str()),
            "settled"
        );
        Some(order)
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
    async fn step(&self, order: &mut Order, set: &dyn PolicySet) -> Result<(), StepError> {
        match order.state {
            State::Received => self.decide(order, set).await,
            State::Decided => self.receive(order).await,
            State::Redeeming | State::PaymentUnknown => self.resolve(order).await,
            State::Paid => self.start_provisioning(order).await,
            State::Provisioning => self.provision(order, set).await,
            State::RefundPending => self.refund(order).await,
            State::Active | State::Ended | State::Refused | State::Refunded => Ok(()),
        }
    }

    /// Writes the transition from `from` to the order's state.
    pub(super) async fn transition(
        &self,
        order: &Order,
        from: State,
        lease: LeaseUpdate<'_>,
    ) -> Result<(), StepError> {
        tracing::debug!(from = from.as_str(), to = order.state.as_str(), "transition");
        Ok(self.backends.ledger.transition(order, from, lease).await?)
    }

    /// The response to a final order.
    pub(super) async fn answer(&self, order: &Order) -> Response {
        if let Some(refusal) = &order.refusal {
            return protocol::refused(order, refusal);
        }
        let pod = order.pod();
        let lease = match self.find_lease(&pod).await {
            Ok(lease) => lease,
            Err(refusal) => return Response::from(&refusal),
        };
        if order.state == State::Refunded {
            return protocol::stopped(&pod, &[order]).into();
        }
        if order.state == State::Ended {
            let ended = order.expires_at.unwrap_or_default().rfc3339();
            return Response::from(&Refusal::new(
                ErrorType::LeaseExpired,
                format!("{pod} has ended; it was paid until {ended}"),
            ));
        }
        let grant = order.decision.as_ref().map(|decision| &decision.grant);
        let note = grant.and_then(|grant| grant.note.as_deref());
        match &order.purchase {
            Purchase::Spawn { .. } => {
                protocol::access(order, &lease, &self.settings.ssh_host, note).into()
            }
            Purchase::TopUp { pod } => protocol::topped_up(
                pod,
                grant.map_or(Seconds(0), |grant| grant.seconds),
                order.expires_at.unwrap_or_default(),
                note,
            ),
        }
    }

    /// Sends the response. If nobody takes it, it is sent again by the next resume loop.
    async fn send(&self, order: &Order, answer: &Response) {
        let Ok(_place) = self.delivering.acquire().await else { return };
        let (mut delays, mut attempts) = (backoff(), 0..limits::DELIVERY_ATTEMPTS);
        while let Err(error) = self.backends.responder.send(&order.reply_to, answer).await {
            tracing::warn!(
                error = error.as_dyn(),
                "the response was not delivered and will be sent again"
            );
            let since = order.refunded_at.unwrap_or(order.created_at);
            if UnixTime::now().since(since) > limits::DELIVERY_TIMEOUT {
                tracing::error!("the response is undeliverable; it is not sent any more");
                break;
            }
            if attempts.next().is_none() {
                return;
            }
            wait(&mut delays).await;
        }
        match self.backends.ledger.delivered(&order.id, order.state).await {
            Ok(()) => tracing::info!("response delivered"),
            Err(error) => {
                tracing::warn!(%error, "the delivery could not be recorded; the response is sent again")
            }
        }
    }
}

/// Delays that double, with jitter, up to [`limits::RETRY_LONGEST`].
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(limits::RETRY_FIRST)
        .with_max_delay(limits::RETRY_LONGEST)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

async fn wait(backoff: &mut ExponentialBackoff) {
    tokio::time::sleep(backoff.next().unwrap_or(limits::RETRY_LONGEST)).await;
}
