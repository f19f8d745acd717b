//! Money that goes back: refunds are made, stored, and closed once they are redeemed or reclaimed.

use super::{OrderService, RefundFees, StepError};
use crate::backend::store::{LeaseUpdate, LedgerError, RefusedLimits};
use crate::backend::wallet::{RefundAmount, RefundState};
use crate::limits;
use crate::model::ids::Customer;
use crate::model::order::{Order, OrderState, RefundEnd, State};
use crate::model::order_state::{Paid, Refund, RefundCause, RefundOutcome, Sale, Task};
use crate::model::refusal::Refusal;
use crate::model::units::{Sat, UnixTime};

/// Whose fault it is that an order was paid and not provisioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liability {
    Provider,
    /// The mint's or the customer's: if the provider bore the fees then, customers could cause them
    /// at will.
    Others,
}

impl OrderService {
    /// → refund-pending: the money must go back, for this reason.
    pub(super) async fn start_refund(
        &self,
        order: &mut Order,
        paid: Paid,
        refusal: Refusal,
        liability: Liability,
    ) -> Result<(), StepError> {
        let fees = match liability {
            Liability::Provider => self.settings.refund_fees,
            Liability::Others => RefundFees::Customer,
        };
        let added = fees.added(paid.agreement.payment.gross, paid.redeemed);
        let (seconds, task) = (paid.agreement.decision.grant.seconds, paid.task.clone());
        let update = match &task {
            // Only an extension that was written needs to be taken back.
            Task::TopUp { pod } if order.state() == State::Provisioning => {
                LeaseUpdate::Shorten(pod, seconds)
            }
            _ => LeaseUpdate::Keep,
        };
        let pending = OrderState::RefundPending {
            password: order.state.password().cloned(),
            cause: RefundCause::NotProvisioned {
                refusal,
                expires_at: order.state.expires_at(),
                added,
            },
            sale: paid.into(),
        };
        self.transition(order, pending, update).await
    }

    /// refund-pending → refunded: what was begun is removed, the refund made and stored; the answer
    /// carries it.
    pub(super) async fn refund(
        &self,
        order: &mut Order,
        sale: Sale,
        cause: RefundCause,
    ) -> Result<(), StepError> {
        let (mut lease, due) = match &cause {
            RefundCause::NotProvisioned { refusal, .. } => {
                (self.ended_lease(order, refusal).await?, sale.redeemed)
            }
            // Its pod is gone already.
            RefundCause::LeaseEnded { due, .. } => (None, *due),
        };
        if let Some(begun) = &mut lease {
            self.check_own(order).await?;
            self.discard(begun).await?;
        }
        let _turn = match &cause {
            RefundCause::LeaseEnded { .. } => {
                self.ended_refunds.acquire(&order.token_info.mint).await
            }
            RefundCause::NotProvisioned { .. } => None,
        };
        let _adding = match cause.added() {
            Some(_) => self.adding.acquire(&order.token_info.mint).await,
            None => None,
        };
        let amount = self.refund_amount(order, due, cause.added()).await?;
        let made = self
            .backends
            .wallet
            .refund(&order.id, &order.token_info.mint, amount)
            .await
            .map_err(|error| StepError::Retry(error.into()))?;
        let refunded = OrderState::Refunded { sale, cause, refund: Refund::made(made, due) };
        self.transition(order, refunded, lease.as_ref().into()).await
    }

    /// The amount of the refund. What the operator adds must not be money that is owed to others.
    async fn refund_amount(
        &self,
        order: &Order,
        due: Sat,
        added: Option<Sat>,
    ) -> Result<RefundAmount, LedgerError> {
        let Some(added) = added else { return Ok(RefundAmount::LessFee(due)) };
        let owed = self.backends.ledger.owed(&order.token_info.mint, Some(&order.id)).await;
        with_added(due, added, owed)
    }

    /// Follows refunds: those that were redeemed are closed, those that nobody redeems for long
    /// are taken back.
    pub(super) async fn sweep_refunds(&self) -> Result<(), LedgerError> {
        let now = UnixTime::now();
        for mut order in self.backends.ledger.pending_refunds(None).await? {
            let mint = order.token_info.mint.clone();
            let OrderState::Refunded { refund, .. } = &mut order.state else { continue };
            let waited = now.since(refund.made_at);
            let end = match self.backends.wallet.refund_state(&order.id, &mint).await {
                Ok(RefundState::Redeemed) => RefundEnd::Redeemed,
                Ok(RefundState::Waiting) if waited <= self.settings.refund_kept => continue,
                Ok(RefundState::Waiting) => {
                    match self.backends.wallet.reclaim(&order.id, &mint).await {
                        Ok(Some(back)) => RefundEnd::Reclaimed(back),
                        Ok(None) => RefundEnd::Redeemed,
                        Err(error) => {
                            tracing::warn!(order = %order.id, %error, "a refund could not be taken back yet");
                            continue;
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(order = %order.id, %error, "a refund's state is not known");
                    continue;
                }
            };
            refund.outcome = RefundOutcome::Ended(end);
            match self.backends.ledger.close_refund(&order).await {
                Ok(()) => tracing::info!(order = %order.id, ?end, "refund closed"),
                Err(LedgerError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.forget_refused().await
    }

    /// Deletes refused orders beyond the limits.
    pub(super) async fn forget_refused(&self) -> Result<(), LedgerError> {
        let before = UnixTime::now().minus(limits::REFUSED_KEPT);
        let kept = RefusedLimits { whole: limits::REFUSED_WHOLE, most: limits::REFUSED_MOST };
        let forgotten = self.backends.ledger.forget_refused(before, kept).await?;
        if forgotten > 0 {
            tracing::info!(forgotten, "old refused orders were forgotten");
        }
        Ok(())
    }
}

/// The amount with what the operator adds, if the wallet has that beside what is owed to others. A
/// row that cannot be read may be owed too: then nothing is added, and the refund is made all the
/// same. After any other error the refund is tried again.
fn with_added(
    due: Sat,
    added: Sat,
    owed: Result<Sat, LedgerError>,
) -> Result<RefundAmount, LedgerError> {
    match owed {
        Ok(reserve) => Ok(RefundAmount::Whole { whole: due.plus(added), due, reserve }),
        Err(LedgerError::Unreadable(reason)) => {
            tracing::error!(%reason, "what is owed to others is not known; the customer bears the refund's fees");
            Ok(RefundAmount::LessFee(due))
        }
        Err(error) => Err(error),
    }
}

/// This customer's orders that are paid back, or will be.
pub(super) fn refunds_of<'a>(orders: &'a [Order], customer: &Customer) -> Vec<&'a Order> {
    let is_refund = |order: &&Order| {
        order.customer() == Some(customer)
            && matches!(order.state(), State::Refunded | State::RefundPending)
    };
    orders.iter().filter(is_refund).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::protocol;
    use crate::testing;

    #[test]
    fn a_response_to_a_stop_is_about_refunds_of_that_customer() {
        let customer = |digit: &str| Customer::parse(&digit.repeat(64)).unwrap();
        let of = |digit: &str, state: State| {
            let mut order = testing::order(testing::spawn(), state).unwrap();
            order.reply_to.customer = Some(customer(digit));
            order
        };
        let orders =
            [of("a", State::Refunded), of("b", State::RefundPending), of("a", State::Active)];
        let pod = LeaseId::of(&OrderId::random()).pod_name();
        let pending = |digit: &str| {
            protocol::stopped(&pod, &refunds_of(&orders, &customer(digit)), None).refund_pending
        };
        assert!(!pending("a"), "the refund of another is pending");
        assert!(pending("b"));
        assert_eq!(refunds_of(&orders, &customer("a")), [&orders[0]]);
    }

    #[test]
    fn nothing_is_added_while_it_is_not_known_what_is_owed_to_others() {
        let amount = |owed| with_added(Sat(8), Sat(2), owed);
        let whole = RefundAmount::Whole { whole: Sat(10), due: Sat(8), reserve: Sat(5) };
        assert_eq!(amount(Ok(Sat(5))).unwrap(), whole);
        let unreadable = Err(LedgerError::unreadable("a damaged row"));
        assert_eq!(amount(unreadable).unwrap(), RefundAmount::LessFee(Sat(8)));
        // The database may be back soon: the refund is made then.
        let failed = amount(Err(LedgerError::database("a test")));
        assert!(matches!(failed, Err(LedgerError::Database(_))), "{failed:?}");
    }
}
