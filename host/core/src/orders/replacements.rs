//! Pods that run in place of others: a task for each finds out what is known of it, beside other events.

use super::OrderService;
use super::notices::recipients;
use crate::backend::cluster::ClusterError;
use crate::backend::store::{LedgerError, PodUpdate};
use crate::backoff::doubling;
use crate::limits;
use crate::model::ids::PodName;
use crate::model::order::{Lease, LeaseState};
use std::sync::Arc;

/// Why what the cluster knows of a pod was not recorded. A later attempt may do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodUpdateError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The lease is an earlier version's, which did not record which pod it has known.
    #[error(
        "it has not proved its host keys, and may be another pod than the one whose keys are known"
    )]
    Unproved,
}

impl OrderService {
    /// Another pod runs in place of this one. Its proof may take seconds, which other events do not wait
    /// for: there is one task for each pod at most, however many events.
    pub(super) fn expect_replacement(self: &Arc<Self>, pod: PodName) {
        if !self.replaced.expect(&pod) {
            return;
        }
        let orders = Arc::clone(self);
        tokio::spawn(async move {
            while orders.replaced.start(&pod) {
                orders.replace_pod(&pod).await;
            }
        });
    }

    /// Its host keys are those of the lease from now on, and its owner, if they want notices, gets its
    /// status, with them. Others who have extended it do not: how it is reached is not theirs to know.
    /// Its Job does not change again: an attempt that fails is made again, so many times.
    async fn replace_pod(self: &Arc<Self>, pod: &PodName) {
        let pauses = doubling(limits::RETRY_FIRST, limits::REPLACEMENT_PAUSE);
        let mut pauses = pauses.take(limits::REPLACEMENT_RETRIES);
        loop {
            let updated = {
                let _permit = self.replaced.permits.acquire().await;
                self.update_pod(pod).await
            };
            match (updated, pauses.next()) {
                (Ok(None), _) => return,
                (Ok(Some(_)), _) => {
                    tracing::warn!(%pod, "another pod runs in place of one, with a new disk and host keys");
                    return;
                }
                (Err(error), Some(pause)) => {
                    tracing::debug!(%error, %pod, "what runs in place of a pod is not recorded yet");
                    tokio::time::sleep(pause).await;
                }
                (Err(error), None) => {
                    tracing::warn!(%error, %pod, "another pod runs in place of one, and its host keys are not recorded");
                    return;
                }
            }
        }
    }

    /// Records what the cluster knows of a running pod, and sends its owner what is new. The lease, if
    /// anything is new to customers.
    pub(super) async fn update_pod(
        self: &Arc<Self>,
        pod: &PodName,
    ) -> Result<Option<Lease>, PodUpdateError> {
        let Some(lease) = self.record_running_pod(pod).await? else { return Ok(None) };
        // It knows nothing of what the one before it knew.
        self.show_end(&lease);
        match self.backends.ledger.orders_of(&lease.id).await {
            Ok(orders) => {
                let mut recipients = recipients(&orders, lease.customer.as_ref());
                recipients.retain(|to| to.customer == lease.customer);
                let (service, written) = (Arc::clone(self), lease.clone());
                self.send_to(recipients, move || service.status_of(&written, &[]).into());
            }
            Err(error) => {
                tracing::warn!(%error, %pod, "the owner of a pod was not notified of its new host keys");
            }
        }
        Ok(Some(lease))
    }

    /// Records what the cluster knows of the pod that runs for a live lease, and gives the lease as it
    /// is written; none if nothing is new to customers.
    async fn record_running_pod(&self, pod: &PodName) -> Result<Option<Lease>, PodUpdateError> {
        loop {
            // Before the cluster is requested: it may answer of a pod that is replaced meanwhile.
            let before = self.backends.ledger.lease(pod).await?;
            let Some(before) = before.filter(|lease| lease.state == LeaseState::Live) else {
                return Ok(None);
            };
            let running = self.backends.cluster.progress.running_pod(pod).await?;
            let Some(mut running) = running else { return Ok(None) };
            running.host_keys.truncate(limits::HOST_KEYS);
            let is_unknown = before.pod_uid.is_none() && !before.host_keys.is_empty();
            if is_unknown && running.host_keys.is_empty() {
                return Err(PodUpdateError::Unproved);
            }
            match self.backends.ledger.replace_pod(&before, &running).await? {
                PodUpdate::Written(lease) => return Ok(Some(*lease)),
                PodUpdate::Identified | PodUpdate::Unchanged => return Ok(None),
                // Of the two answers this one may be the newer.
                PodUpdate::Outdated => {}
            }
        }
    }
}
