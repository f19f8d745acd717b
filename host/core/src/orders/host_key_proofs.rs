//! The host keys of a running pod that are not known: one that runs in place of another may prove them
//! only some time after it was reported.

use super::{OrderService, RunningLogin};
use crate::backend::cluster::ClusterError;
use crate::backend::store::{LedgerError, PodUpdate};
use crate::limits;
use crate::model::ids::{Customer, PodName};
use crate::model::order::{Lease, LeaseState};
use crate::model::refusal::Refusal;
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
    /// The login of a pod whose host keys were not known, with those that its server proves now. All who
    /// want it at the same time wait for the same proof, for some seconds at most.
    ///
    /// # Errors
    /// As [`OrderService::login`].
    pub async fn proved_login(
        self: &Arc<Self>,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<RunningLogin, Refusal> {
        self.host_key_proofs.of(pod, self.prove(pod)).await;
        self.login(pod, customer).await
    }

    async fn prove(self: &Arc<Self>, pod: &PodName) {
        match self.update_pod(pod).await {
            Ok(Some(lease)) if !lease.host_keys.is_empty() => {
                tracing::info!(%pod, "a pod has proved its host keys");
            }
            Ok(_) => {}
            Err(error @ (PodUpdateError::Cluster(_) | PodUpdateError::Unproved)) => {
                tracing::debug!(%error, %pod, "the host keys of a pod are not known yet");
            }
            Err(PodUpdateError::Ledger(error)) => {
                tracing::warn!(%error, %pod, "the host keys of a pod could not be stored");
            }
        }
    }

    /// Records what the cluster knows of the pod that runs for a live lease, and gives the lease as it
    /// is written; none if nothing is new to customers.
    pub(super) async fn record_running_pod(
        &self,
        pod: &PodName,
    ) -> Result<Option<Lease>, PodUpdateError> {
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
