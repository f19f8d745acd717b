//! The end of a lease, whatever caused it, and what is due then.

use super::notices::recipients;
use super::refunds::refunds_of;
use super::{OrderService, RefundFees, StepError, unreadable};
use crate::backend::cluster::EndReason;
use crate::backend::policy::RefundTerms;
use crate::backend::store::LedgerError;
use crate::limits;
use crate::model::ids::{Customer, PodName};
use crate::model::order::{Lease, LeaseState, Order, OrderState, Purchase, State};
use crate::model::order_state::{RefundCause, Sale, Task};
use crate::model::refund_due::{LOSS_TERMS, PartlyUsed, served};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::{Sat, Seconds, UnixTime};
use crate::protocol::{self, StopResponse};
use std::sync::Arc;

impl OrderService {
    /// Stops a pod for the customer who bought it; unused time is refunded where the operator
    /// grants it. Idempotent: it gives the same response again.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `resource_unavailable` while the pod is being made,
    /// `backend_error` when the cluster does not end it.
    pub async fn stop(
        self: &Arc<Self>,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<StopResponse, Refusal> {
        let lease = self.own_lease(pod, customer).await?;
        let pod = &lease.pod();
        let failed = |error: LedgerError| unreadable(&error);
        if self.is_being_made(&lease).await? {
            // What is due would follow this response, and no message would bring it.
            return Err(Refusal::new(
                ErrorType::ResourceUnavailable,
                "this pod is not ready yet; stop it when it is",
            ));
        }
        if lease.state == LeaseState::Live {
            // On disk first: when the pod is found gone, the reason is known.
            let stopped = EndReason::Stopped.into();
            self.backends.ledger.mark_ending(pod, stopped).await.map_err(failed)?;
            self.backends.cluster.remover.remove(pod).await?;
            self.end(pod, EndReason::Stopped).await.map_err(|error| unreadable(&error))?;
        }
        let refunded = tokio::time::timeout(limits::STOP_TIMEOUT, self.refunds_made(&lease)).await;
        let orders = match refunded {
            Ok(orders) => orders?,
            // The rest follows, as the response says: `status` returns it.
            Err(_) => self.orders_of(&lease).await?,
        };
        let own = refunds_of(&orders, customer);
        for order in &own {
            if order.state() == State::Refunded {
                // This response delivers it.
                self.backends.ledger.delivered(&order.id, order.state()).await.map_err(failed)?;
            }
        }
        let stopped = protocol::stopped(pod, &own, end_of_stopped(&lease));
        Ok(self.add_stop_receipt(stopped, &orders, customer))
    }

    /// The orders of a lease, once none of them owes money any more.
    async fn refunds_made(self: &Arc<Self>, lease: &Lease) -> Result<Vec<Order>, Refusal> {
        loop {
            let orders = self.orders_of(lease).await?;
            if orders.iter().all(|order| order.state() != State::RefundPending) {
                return Ok(orders);
            }
            tokio::time::sleep(limits::REFUND_POLL).await;
        }
    }

    /// Ends a lease whose pod is gone: frees its port, wipes its logins, starts the refunds that
    /// are due.
    pub(super) async fn end(
        self: &Arc<Self>,
        pod: &PodName,
        reason: EndReason,
    ) -> Result<(), LedgerError> {
        loop {
            let found = self.backends.ledger.lease(pod).await?;
            let is_live = |lease: &Lease| lease.state == LeaseState::Live;
            let Some(mut lease) = found.filter(is_live) else { return Ok(()) };
            let reason = first_reason(&mut lease, reason)?;
            lease.state = LeaseState::Ended;
            let mut orders = self.backends.ledger.orders_of(&lease.id).await?;
            if orders.iter().any(Order::is_making_pod) {
                return Ok(());
            }
            orders.retain(|order| order.state() == State::Active);
            let recipients = recipients(&orders, lease.customer.as_ref());
            close(
                &mut orders,
                self.settings.refund_on_stop,
                self.settings.refund_fees,
                reason,
                lease.customer.as_ref(),
                served_until(&lease, UnixTime::now()),
            );
            match self.backends.ledger.end_lease(&lease, &orders).await {
                // An extension became active in between: it counts too.
                Err(LedgerError::Conflict { .. }) => continue,
                done => done?,
            }
            tracing::info!(%pod, reason = reason.as_str(), port = lease.port, "lease ended, port free");
            self.lease_ends.send_replace(());
            if let Err(error) = self.backends.cluster.remover.forget(pod).await {
                tracing::debug!(%error, %pod, "what is left of a pod is kept for a while");
            }
            self.spawn_refunds(orders);
            self.send_notices(&lease, recipients);
            return Ok(());
        }
    }

    /// Removes what was begun of a pod, and releases its port. With the cluster away the customer
    /// does not wait: the port stays reserved until the sweep.
    pub(super) async fn discard(&self, lease: &mut Lease) -> Result<(), StepError> {
        match self.backends.cluster.remover.remove(&lease.pod()).await {
            Ok(()) => Ok(self.backends.ledger.release_port(&lease.id).await?),
            Err(error) => {
                tracing::warn!(%error, "a pod that came to nothing could not be removed yet");
                lease.state = LeaseState::Live;
                lease.expires_at = Some(UnixTime::now());
                Ok(())
            }
        }
    }

    /// Those whose first answer is still on its way are taken up at the next look around.
    fn spawn_refunds(self: &Arc<Self>, orders: Vec<Order>) {
        for order in orders.into_iter().filter(|order| order.state() == State::RefundPending) {
            if let Some(guard) = self.claim(&order.id) {
                self.spawn(order, guard, None);
            }
        }
    }
}

/// Why a lease has ended that its customer stopped, by what it was before.
fn end_of_stopped(lease: &Lease) -> Option<EndReason> {
    match lease.state {
        LeaseState::Ended => lease.end,
        // It may be ending already: the first reason counts.
        LeaseState::Reserved | LeaseState::Live => lease.end.or(Some(EndReason::Stopped)),
    }
}

/// The terms on which unused time of an order is refunded. A stop has those that the pod was sold
/// on, or the host's where the policy had none, unless the operator pays nothing back at all. An
/// eviction that the customer may have caused has the same: to cause one is worth no more than to
/// stop. What we lost goes back to the last sat.
fn terms(
    sold_on: Option<RefundTerms>,
    on_stop: Option<RefundTerms>,
    reason: EndReason,
) -> Option<RefundTerms> {
    if reason.is_as_a_stop() {
        return on_stop.map(|host| sold_on.unwrap_or(host));
    }
    reason.is_provider_fault().then_some(LOSS_TERMS)
}

/// What a customer reads who gets unused time back and did not stop the pod.
fn loss(reason: EndReason) -> Option<&'static str> {
    match reason {
        EndReason::Removed | EndReason::Disrupted | EndReason::NodeLost => Some(
            "the cluster lost your pod before its time was over; what you had not used is paid back",
        ),
        EndReason::EndedByOperator => Some(
            "the operator ended your pod before its time was over; what you had not used is paid back",
        ),
        EndReason::Evicted => Some(
            "the pod's node ran out of inodes or process ids and evicted the pod; what you had not used is paid back as after a stop",
        ),
        EndReason::Expired
        | EndReason::Exited
        | EndReason::Stopped
        | EndReason::OutOfMemory
        | EndReason::OutOfDisk
        | EndReason::ImageFailed
        | EndReason::Later(_) => None,
    }
}

/// Why a lease ends: the first reason counts.
///
/// # Errors
/// A later version has recorded a reason of its own, and knows what is paid back: one of its replicas
/// ends the lease.
fn first_reason(lease: &mut Lease, reason: EndReason) -> Result<EndReason, LedgerError> {
    let first = *lease.end.get_or_insert(reason);
    match first {
        EndReason::Later(name) => Err(LedgerError::unreadable(format!(
            "{} ends for the reason {name} of a later version, which ends it",
            lease.pod()
        ))),
        known => Ok(known),
    }
}

/// Until when the pod of a lease that ends now was served: what is after that is not used.
fn served_until(lease: &Lease, now: UnixTime) -> UnixTime {
    lease.served_until.map_or(now, |until| until.min(now))
}

/// Closes the active orders of a lease that ends; others stay as they are. What of their time was not
/// served until `until` is due, on its terms; what was bought last is used last. Of what we lost, the
/// operator may bear the fees.
fn close(
    orders: &mut [Order],
    on_stop: Option<RefundTerms>,
    fees: RefundFees,
    reason: EndReason,
    owner: Option<&Customer>,
    until: UnixTime,
) {
    // A top-up may have an earlier time than the order of its pod: clocks are set back.
    orders.sort_by_key(|order| matches!(order.purchase, Purchase::TopUp { .. }));
    let elapsed = orders.iter().find_map(|order| match &order.state {
        OrderState::Active { paid, expires_at } if matches!(paid.task, Task::Spawn { .. }) => {
            Some(served(*expires_at, paid.agreement.decision.grant.seconds, until))
        }
        _ => None,
    });
    let fees = if reason.is_provider_fault() { fees } else { RefundFees::Customer };
    let mut elapsed = elapsed.unwrap_or_default();
    let served_until = reason.is_provider_fault().then_some(until);
    if reason.is_as_a_stop() {
        // One step at least: a pod that is stopped at once has cost us as much as any other.
        elapsed = elapsed.max(Seconds(1));
    }
    for order in orders {
        let OrderState::Active { paid, expires_at } = order.state.clone() else { continue };
        let (gross, decision) = (paid.agreement.payment.gross, &paid.agreement.decision);
        let (granted, terms) = (decision.grant.seconds, terms(decision.refund, on_stop, reason));
        let used = elapsed.min(granted);
        elapsed = elapsed.minus(used);
        let payment = PartlyUsed { gross, redeemed: paid.redeemed, granted, used };
        let (due, added) = terms.map_or((Sat(0), None), |terms| payment.refund_due(terms, fees));
        let sale = Sale { used: terms.map(|_| used), ..Sale::from(paid) };
        if due == Sat(0) {
            order.state = OrderState::Ended { sale, expires_at };
            continue;
        }
        let refusal = loss(reason)
            .map(|message| Refusal::new(ErrorType::BackendError, message).with_end_reason(reason));
        let cause = RefundCause::LeaseEnded { due, expires_at, refusal, added, served_until };
        order.state = OrderState::RefundPending { sale, cause, password: None };
        // The customer who stops it gets a response; others who paid for it get a message.
        order.delivered = reason == EndReason::Stopped && order.customer() == owner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::protocol::{ReceiptKind, ReceiptOrder};
    use crate::testing;

    fn active(
        purchase: Purchase,
        sold_on: Option<RefundTerms>,
        redeemed: u64,
        expires_at: u64,
    ) -> Order {
        let mut paid = testing::paid(&purchase);
        paid.redeemed = Sat(redeemed);
        // The mint has kept a tenth.
        paid.agreement.payment.gross = Sat(redeemed.saturating_mul(10).div_ceil(9));
        paid.agreement.decision.refund = sold_on;
        let mut order = testing::order(purchase, State::Active).unwrap();
        order.state = OrderState::Active { paid, expires_at: UnixTime(expires_at) };
        order
    }

    #[test]
    fn what_a_later_version_ends_is_not_ended_on_terms_of_this_one() {
        let later: EndReason = serde_json::from_value("moved-away".into()).unwrap();
        let mut lease = testing::lease(LeaseId::of(&OrderId::random()), 1, 2);
        lease.end = Some(later);
        let refused = first_reason(&mut lease, EndReason::Removed).unwrap_err().to_string();
        assert!(refused.contains("cannot read") && refused.contains("moved-away"), "{refused}");
        assert_eq!(lease.end, Some(later));
        lease.end = None;
        assert_eq!(first_reason(&mut lease, EndReason::Removed).unwrap(), EndReason::Removed);
        assert_eq!(first_reason(&mut lease, EndReason::Exited).unwrap(), EndReason::Removed);
    }

    const MINUTES: Option<RefundTerms> = Some(RefundTerms { step: Seconds(60), percent: 100 });

    fn closed(
        sold_on: Option<RefundTerms>,
        on_stop: Option<RefundTerms>,
        reason: EndReason,
        now: u64,
    ) -> Vec<Option<u64>> {
        // Ten minutes for 10 sat from 1000 on, then ten more for 20.
        let pod = LeaseId::of(&OrderId::random()).pod_name();
        let mut orders = [
            active(testing::spawn(), sold_on, 10, 1_600),
            active(Purchase::TopUp { pod }, sold_on, 20, 2_200),
        ];
        close(&mut orders, on_stop, RefundFees::Customer, reason, None, UnixTime(now));
        let mut causes = orders.iter().filter_map(|order| order.state.refund_cause());
        assert!(causes.all(|cause| cause.added().is_none()));
        orders.iter().map(|order| order.state.refund_due().map(|due| due.0)).collect()
    }

    /// What is due of 18 sat that were left of 20, and what the operator adds.
    fn borne(reason: EndReason, now: u64) -> Option<(u64, Option<u64>)> {
        let mut orders = [active(testing::spawn(), None, 18, 1_600)];
        close(&mut orders, MINUTES, RefundFees::Operator, reason, None, UnixTime(now));
        let state = &orders.first()?.state;
        let added = state.refund_cause()?.added();
        Some((state.refund_due()?.0, added.map(|added| added.0)))
    }

    #[test]
    fn what_we_lost_is_refunded_as_it_was_sent() {
        let ours = [
            EndReason::Removed,
            EndReason::Disrupted,
            EndReason::NodeLost,
            EndReason::EndedByOperator,
        ];
        for reason in ours {
            assert_eq!(borne(reason, 1_000), Some((18, Some(2))), "all of it");
            assert_eq!(borne(reason, 1), Some((18, Some(2))), "and never more");
            assert_eq!(borne(reason, 1_300), Some((9, Some(1))), "half of it");
            // 1.05 of 20 sat, and 0.95 of 18.
            assert_eq!(borne(reason, 1_568), Some((1, Some(0))), "what can be sent at least");
            assert_eq!(borne(reason, 1_590), None, "less than a sat");
        }
        assert_eq!(borne(EndReason::Stopped, 1_300), Some((9, None)), "their own stop");
        assert_eq!(borne(EndReason::Evicted, 1_300), Some((9, None)), "perhaps their own doing");
        for reason in [
            EndReason::Exited,
            EndReason::Expired,
            EndReason::OutOfMemory,
            EndReason::OutOfDisk,
            EndReason::ImageFailed,
        ] {
            assert_eq!(borne(reason, 1_300), None, "{reason:?}");
        }
    }

    /// Found out 350 s later: until then the pod was not served.
    #[test]
    fn the_time_of_a_lost_node_counts_until_it_was_last_known_ready() {
        let id = LeaseId::of(&OrderId::random());
        let mut lease = testing::lease(id, 1_000, 1_600);
        let (now, half) = (UnixTime(1_550), Some(RefundTerms { step: Seconds(300), percent: 50 }));
        for (ready_until, until, due) in [
            (None, 1_550, None),
            (Some(1_200), 1_200, Some(6)),
            // Lost before it was ready, and a clock that is ahead.
            (Some(900), 900, Some(10)),
            (Some(9_999), 1_550, None),
        ] {
            lease.served_until = ready_until.map(UnixTime);
            let counted = served_until(&lease, now);
            assert_eq!(counted, UnixTime(until));
            let mut orders = [active(testing::spawn(), half, 10, 1_600)];
            let fees = RefundFees::Customer;
            close(&mut orders, half, fees, EndReason::NodeLost, None, counted);
            let [order] = &orders;
            assert_eq!(order.state.refund_due(), due.map(Sat), "{ready_until:?}");
            assert_eq!(order.state.served_until(), due.and(Some(counted)));
            // What is closed is not due again.
            let before = orders.clone();
            close(&mut orders, half, fees, EndReason::NodeLost, None, counted);
            assert_eq!(orders, before);
        }
    }

    fn amounts_due(reason: EndReason, now: u64) -> Vec<Option<u64>> {
        closed(None, MINUTES, reason, now)
    }

    #[test]
    fn what_was_bought_last_is_unused_first() {
        assert_eq!(amounts_due(EndReason::Stopped, 1_060), [Some(9), Some(20)]);
        assert_eq!(amounts_due(EndReason::Stopped, 1_300), [Some(5), Some(20)]);
        assert_eq!(amounts_due(EndReason::Stopped, 1_600), [None, Some(20)]);
        assert_eq!(amounts_due(EndReason::Stopped, 1_900), [None, Some(10)]);
        assert_eq!(amounts_due(EndReason::Stopped, 2_200), [None, None]);
        assert_eq!(amounts_due(EndReason::Stopped, 9_999), [None, None]);
    }

    #[test]
    fn used_time_is_charged_in_whole_steps() {
        assert_eq!(amounts_due(EndReason::Stopped, 2_141), [None, None]);
        assert_eq!(amounts_due(EndReason::Stopped, 2_140), [None, Some(2)]);
        assert_eq!(amounts_due(EndReason::Removed, 2_141), [None, Some(1)]);
        assert_eq!(amounts_due(EndReason::Expired, 1_000), [None, None]);
        // A clock that jumped back does not give more than was paid.
        assert_eq!(amounts_due(EndReason::Removed, 1), [Some(10), Some(20)]);
    }

    #[test]
    fn an_eviction_that_the_customer_may_have_caused_is_worth_no_more_than_a_stop() {
        let sold = Some(RefundTerms { step: Seconds(300), percent: 50 });
        for now in [1, 1_000, 1_001, 1_300, 1_600, 2_140, 2_200] {
            for (sold_on, on_stop) in [(None, MINUTES), (sold, MINUTES), (sold, None), (None, None)]
            {
                let due = |reason| closed(sold_on, on_stop, reason, now);
                assert_eq!(due(EndReason::Evicted), due(EndReason::Stopped), "at {now}");
            }
        }
        assert_eq!(amounts_due(EndReason::Evicted, 1_000), [Some(9), Some(20)]);
        assert_eq!(closed(None, None, EndReason::Evicted, 1_000), [None, None]);
        // The customer did not request it, and is informed.
        let mut orders = [active(testing::spawn(), None, 10, 1_600)];
        let fees = RefundFees::Operator;
        close(&mut orders, MINUTES, fees, EndReason::Evicted, None, UnixTime(1_300));
        let [order] = &orders;
        let refusal = order.state.refusal().unwrap();
        assert!(refusal.message.contains("as after a stop") && !order.delivered, "{refusal}");
        assert_eq!(refusal.end_reason, Some(EndReason::Evicted));
    }

    /// Whoever verifies a receipt finds what the service pays back.
    #[test]
    fn what_is_due_follows_from_a_receipt() {
        let stop_terms = Some(RefundTerms { step: Seconds(7), percent: 33 });
        let lease = testing::lease(LeaseId::of(&OrderId::random()), 1, 2);
        for reason in EndReason::ALL {
            for (now, fees) in [1, 1_000, 1_001, 1_300, 1_570, 1_599, 1_600, 1_807, 2_199, 9_999]
                .into_iter()
                .flat_map(|now| [(now, RefundFees::Operator), (now, RefundFees::Customer)])
            {
                let mut orders = [
                    active(Purchase::TopUp { pod: lease.pod() }, stop_terms, 20, 2_200),
                    active(testing::spawn(), stop_terms, 10, 1_600),
                ];
                close(&mut orders, MINUTES, fees, reason, None, UnixTime(now));
                let [spawn, top_up] = &orders;
                assert!(matches!(spawn.purchase, Purchase::Spawn { .. }), "it is used first");
                for (order, extends) in
                    [(spawn, None), (top_up, Some(lease.view(None, UnixTime(1))))]
                {
                    let state = &order.state;
                    let mut agreement = state.agreement().unwrap().clone();
                    agreement.decision.order.extends = extends;
                    let receipt = ReceiptOrder {
                        redeemed: state.redeemed().unwrap(),
                        stop_terms,
                        expires_at: state.expires_at(),
                        served_until: state.served_until(),
                        used: state.used(),
                        ..testing::receipt_order(agreement)
                    };
                    let is_paid_back = reason.is_as_a_stop() || reason.is_provider_fault();
                    let due = is_paid_back.then(|| state.refund_due().unwrap_or_default());
                    assert_eq!(receipt.refund_due(ReceiptKind::Stop), due, "{reason:?} at {now}");
                }
            }
        }
    }

    #[test]
    fn a_stop_costs_one_step_at_least() {
        for now in [1, 1_000, 1_001, 1_060] {
            assert_eq!(amounts_due(EndReason::Stopped, now), [Some(9), Some(20)], "at {now}");
        }
        // What we lose at once goes back to the last sat.
        assert_eq!(amounts_due(EndReason::Removed, 1_000), [Some(10), Some(20)]);
        let whole = Some(RefundTerms { step: Seconds(600), percent: 100 });
        assert_eq!(closed(whole, MINUTES, EndReason::Stopped, 1_000), [None, Some(20)]);
    }

    #[test]
    fn the_terms_are_those_that_the_time_was_sold_on() {
        let half = |seconds| Some(RefundTerms { step: Seconds(seconds), percent: 50 });
        let stopped = |sold_on, on_stop| closed(sold_on, on_stop, EndReason::Stopped, 1_300);
        assert_eq!(stopped(half(60), MINUTES), [Some(2), Some(10)]);
        assert_eq!(
            stopped(half(600), MINUTES),
            [None, Some(10)],
            "a step longer than the time charges all of it once begun"
        );
        assert_eq!(
            stopped(Some(RefundTerms { step: Seconds(1), percent: 0 }), MINUTES),
            [None, None]
        );
        assert_eq!(stopped(half(60), None), [None, None], "the operator pays nothing back");
        assert_eq!(
            closed(half(60), None, EndReason::Removed, 1_300),
            [Some(5), Some(20)],
            "what we lose goes back in full"
        );
        assert_eq!(closed(half(u64::MAX), MINUTES, EndReason::Stopped, 1_300), [None, Some(10)]);
    }
}
