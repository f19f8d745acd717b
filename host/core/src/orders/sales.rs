//! What the operator does to the service while it runs: whether it sells, and the end of a lease.

use super::{OrderService, unread, unreadable};
use crate::backend::cluster::EndReason;
use crate::model::ids::PodName;
use crate::model::order::{LeaseState, Order};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::sales::Sales;
use crate::model::units::Sat;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A lease that is over, for the operator: without what pays its customers back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedLease {
    pub pod_name: PodName,
    /// Why it ended; another reason than the operator's if it had ended already.
    pub end_reason: Option<EndReason>,
    /// What is due to its customers, or was paid back to them, without what the operator adds for
    /// fees.
    pub refunded_sats: u64,
}

impl OrderService {
    /// What is sold now, by the operator's decision.
    ///
    /// # Errors
    /// `internal_error`: then nothing is to be sold.
    pub async fn sales(&self) -> Result<Sales, Refusal> {
        let ledger = Arc::clone(&self.backends.ledger);
        let read = || async move { ledger.sales().await.map_err(|error| unreadable(&error)) };
        self.stored_sales.read(read).await.unwrap_or_else(|| Err(unread()))
    }

    /// From now on this is sold, by all replicas and after a restart. What was agreed on before goes
    /// on.
    ///
    /// # Errors
    /// `internal_error`: it may be so, or as before.
    pub async fn set_sales(&self, sales: Sales) -> Result<(), Refusal> {
        self.backends.ledger.set_sales(sales).await.map_err(|error| unreadable(&error))?;
        tracing::warn!(sales = sales.as_str(), "the operator has decided what is sold");
        Ok(())
    }

    /// Ends a lease before its time; what is left of it is paid back as for any fault of the
    /// operator's. Idempotent.
    ///
    /// # Errors
    /// `not_found`, `resource_unavailable` while the pod is being made, `internal_error`, and what the
    /// cluster refuses: then it ends as soon as the cluster does it.
    pub async fn end_lease(self: &Arc<Self>, pod: &PodName) -> Result<EndedLease, Refusal> {
        let lease = self.find_lease(pod).await?;
        let pod = &lease.pod();
        if self.is_being_made(&lease).await? {
            return Err(Refusal::new(
                ErrorType::ResourceUnavailable,
                "this pod is not ready yet; end it when it is",
            ));
        }
        if lease.state == LeaseState::Live {
            let (ledger, reason) = (&self.backends.ledger, EndReason::EndedByOperator);
            // On disk first: should this process die, the next one ends it for this reason.
            ledger.mark_ending(pod, reason.into()).await.map_err(|error| unreadable(&error))?;
            tracing::warn!(%pod, "the operator ends a lease");
            self.backends.cluster.remover.remove(pod).await?;
            self.end(pod, reason).await.map_err(|error| unreadable(&error))?;
        }
        let ended = self.backends.ledger.lease(pod).await.map_err(|error| unreadable(&error))?;
        let orders = self.orders_of(&lease).await?;
        let due = orders.iter().filter_map(|order: &Order| order.state.refund_due());
        let due = due.fold(Sat(0), |sum, due| Sat(sum.0.saturating_add(due.0)));
        Ok(EndedLease {
            pod_name: pod.clone(),
            end_reason: ended.and_then(|lease| lease.end),
            refunded_sats: due.0,
        })
    }
}
