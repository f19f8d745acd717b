//! What probe pods reach: which nodes there are to try, and what was found last.

use super::Kubernetes;
use crate::isolation::{self, NetworkFindings};
use crate::requests::request;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use paygress_core::backend::cluster::NetworkIsolation;
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

    /// What the latest pod has shown that has tried what no customer may reach.
    #[must_use]
    pub fn network_findings(&self) -> NetworkFindings {
        let known = self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.unwrap_or_else(NetworkFindings::unknown)
    }

    /// Notes what a pod that has started has shown. The log has it once, until it changes: what is reached
    /// has the address of another probe pod, which is never the same.
    pub(crate) fn note_findings(&self, found: NetworkFindings) {
        let known = self.findings.lock();
        let before = known.unwrap_or_else(PoisonError::into_inner).replace(found.clone());
        if before.is_some_and(|it| (it.isolation, it.nodes) == (found.isolation, found.nodes)) {
            return;
        }
        let NetworkFindings { isolation, reached, .. } = found;
        match isolation {
            NetworkIsolation::Enforced(neighbours) => tracing::info!("{}", neighbours.text()),
            NetworkIsolation::NotEnforced => {
                let remedy = isolation.warning();
                tracing::warn!(?reached, remedy, "a probe pod reaches what no customer may");
            }
            NetworkIsolation::Unknown => tracing::info!(
                "whether pods reach the API server and nodes is not known: a pod with SSH_SERVER_IMAGE of this version finds out"
            ),
        }
    }
}
