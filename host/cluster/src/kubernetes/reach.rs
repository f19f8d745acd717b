//! What probe pods reach: which nodes there are to try, and what was found last.

use super::Kubernetes;
use crate::isolation;
use crate::requests::request;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use paygress_core::backend::cluster::{Neighbours, NetworkIsolation};
use paygress_sshd::ReachReport;
use std::net::SocketAddr;
use std::sync::PoisonError;

/// As many nodes as one pod may try addresses of.
const NODES: u32 = 16;

impl Kubernetes {
    /// The addresses of nodes' kubelets; none where the service may not list nodes.
    pub(crate) async fn kubelets(&self) -> Vec<SocketAddr> {
        let nodes = Api::<Node>::all(self.client.clone());
        match request(nodes.list(&ListParams::default().limit(NODES))).await {
            Ok(nodes) => isolation::kubelets(&nodes.items),
            Err(error) => {
                tracing::debug!(%error, "a probe pod tries no nodes");
                Vec::new()
            }
        }
    }

    pub(crate) fn found_isolation(&self) -> NetworkIsolation {
        let known = *self.isolation.lock().unwrap_or_else(PoisonError::into_inner);
        known.unwrap_or(NetworkIsolation::Unknown)
    }

    /// Notes what a pod that has started has reached; none: it has tried nothing. The log has it once,
    /// until it changes.
    pub(crate) fn note_isolation(&self, report: Option<ReachReport>, neighbours: Neighbours) {
        let found = isolation::isolation(report.as_ref(), neighbours);
        let before = self.isolation.lock().unwrap_or_else(PoisonError::into_inner).replace(found);
        if before == Some(found) {
            return;
        }
        match found {
            NetworkIsolation::Enforced(neighbours) => tracing::info!("{}", neighbours.text()),
            NetworkIsolation::NotEnforced => {
                let reached = report.map(|report| report.reached).unwrap_or_default();
                let remedy = found.warning();
                tracing::warn!(?reached, remedy, "a probe pod reaches what no customer may");
            }
            NetworkIsolation::Unknown => tracing::info!(
                "whether pods reach the API server and nodes is not known: a pod with SSH_SERVER_IMAGE of this version finds out"
            ),
        }
    }
}
