//! Money that goes back: refunds are made, stored, and closed once they are redeemed or reclaimed.

use super::{OrderService, StepError};
use crate::backend::store::{LeaseUpdate, LedgerError};
use crate::backend::wallet::RefundState;
use crate::limits;
use crate::model::order::{LeaseState, Order, Purchase, RefundEnd, State};
use crate::model::refusal::Refusal;
use crate::model::units::{Seconds, UnixTime};

impl OrderService {
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

    /// Looks after refunds: those that were redeemed are closed, those that nobody redeems for long
    /// are taken back.
    pub(super) async fn sweep_refunds(&self) -> Result<(), LedgerError> {
        let now = UnixTime::now();
        for mut order in self.backends.ledger.pending_refunds(None).await? {
            let mint = order.token_info.mint.clone();
            let waited = order.refunded_at.map_or(Seconds(0), |at| now.since(at));
            let end = match self.backends.wallet.refund_state(&order.id, &mint).await {
                Ok(RefundState::Redeemed) => RefundEnd::Redeemed,
                Ok(RefundState::Waiting) if waited <= self.settings.refund_kept => continue,
                Ok(RefundState::Waiting) => {
                    match self.backends.wallet.reclaim(&order.id, &mint).await {
                        Ok(Some(back)) => RefundEnd::Reclaimed(back),
                        Ok(None) => RefundEnd::Redeemed,
                        Err(why) => {
                            tracing::warn!(order = %order.id, %why, "a refund could not be taken back yet");
                            continue;
                        }
                    }
                }
                Err(why) => {
                    tracing::debug!(order = %order.id, %why, "a refund's state is not known");
                    continue;
                }
            };
            order.refund_end = Some(end);
            order.secrets.refund_token = None;
            match self.backends.ledger.close_refund(&order).await {
                Ok(()) => tracing::info!(order = %order.id, ?end, "refund closed"),
                Err(LedgerError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let forgotten =
            self.backends.ledger.forget_refused(now.minus(limits::REFUSED_KEPT)).await?;
        if forgotten > 0 {
            tracing::info!(forgotten, "old refused orders were forgotten");
        }
        Ok(())
    }
}
