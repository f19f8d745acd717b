//! The host keys of a running pod that are not known: one that runs in place of another may prove them
//! only some time after it was reported.

use super::replacements::PodUpdateError;
use super::{OrderService, RunningLogin};
use crate::model::ids::{Customer, PodName};
use crate::model::refusal::Refusal;
use std::sync::Arc;

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
}
