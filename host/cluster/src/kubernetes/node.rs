//! The node of a pod: where customers reach it, which pods write to them as well.
//!
//! What a pod is to write is in a Secret that pods start without. With `SshHostFrom::Node` it is made
//! when the pod has a node, while that fetches images and makes the host keys, and is gone once the
//! pod is ready: one that replaces it, maybe on another node, would write where that one was.

use super::{Kubernetes, Replies};
use crate::connection::with_timeout;
use crate::node_host::{self, node_name};
use crate::pod_reply;
use crate::requests::{Result, is_gone, request};
use crate::settings::SshHostFrom;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams};
use paygress_core::backend::cluster::ClusterError;
use paygress_core::model::ids::PodName;
use paygress_core::model::ssh_host::SshHost;
use std::sync::{MutexGuard, PoisonError};

impl Kubernetes {
    /// Where customers reach this pod; none if all pods are reached at the same host, or as long as
    /// it has no node.
    pub(super) async fn ssh_host(&self, pod: &Pod) -> Result<Option<SshHost>> {
        let name = match self.settings.ssh_host_from {
            SshHostFrom::Setting => return Ok(None),
            SshHostFrom::Node => node_name(pod),
        };
        let Some(name) = name else { return Ok(None) };
        Ok(node_host::ssh_host(pod, self.node(name).await?.as_ref()))
    }

    /// None without the right to list nodes, and where it is gone.
    pub(super) async fn node(&self, name: &str) -> Result<Option<Node>> {
        let nodes = Api::<Node>::all(self.client.clone());
        // The right to watch what nodes have left includes no `get`.
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        match request(nodes.list(&params)).await {
            Ok(nodes) => Ok(nodes.items.into_iter().next()),
            Err(ClusterError::Refused(_)) => {
                tracing::warn!(
                    node = name,
                    "nodes cannot be read: customers get the address that the cluster has of theirs; apply k8s/base/capacity.yaml (ClusterRole paygress-capacity)"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn replies(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this pod is to write once it has a node.
    pub(super) fn hold_reply(&self, pod: &PodName, reply: Secret) {
        self.replies().insert(pod.clone(), reply);
    }

    pub(super) fn held_reply(&self, pod: &PodName) -> Option<Secret> {
        self.replies().remove(pod)
    }

    /// Lets a pod write where it is reached, as soon as that is known. If it is not known in time, or
    /// not stored, the service answers alone.
    pub(super) async fn release_reply(&self, held: &mut Option<Secret>, name: &PodName, pod: &Pod) {
        if held.is_none() {
            return;
        }
        let host = match self.ssh_host(pod).await {
            Ok(Some(host)) => host,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, pod = %name, "the node of a pod is not known yet");
                return;
            }
        };
        let Some(reply) = held.take().and_then(|reply| pod_reply::at_host(reply, &host)) else {
            tracing::warn!(pod = %name, "a pod gets nothing to write to its customer");
            return;
        };
        if let Err(error) = self.ensure_reply(Some(&reply), name).await {
            tracing::warn!(%error, pod = %name, "a pod gets nothing to write to its customer");
        }
    }

    /// Deletes what a pod has written that is ready.
    pub(super) async fn forget_reply(&self, name: &PodName, pod: &Pod) {
        if self.settings.ssh_host_from == SshHostFrom::Setting || !pod_reply::is_in_pod(pod) {
            return;
        }
        let (secret, params) = (pod_reply::secret_name(name.as_str()), DeleteParams::default());
        let deleted = with_timeout(self.secrets.delete(&secret, &params)).await;
        if let Err(error) = is_gone(deleted) {
            tracing::warn!(%error, pod = %name, "what a pod has written is kept until it ends");
        }
    }
}
