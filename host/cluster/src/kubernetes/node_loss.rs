//! Nodes that are lost: nobody knows whether their pods run, and nobody reaches them.
//!
//! Kubernetes marks the pods of such a node for deletion, and keeps them until the node is back or
//! removed: their Jobs do not end. So the lease ends without them. What is left of a pod is deleted as
//! soon as its node is back.

use super::Kubernetes;
use crate::capacity::{is_unready, ready_until};
use crate::node_host::node_name;
use crate::node_loss::{UnreadyNodes, served_until};
use crate::objects::{pod_of_lease, selector};
use crate::requests::{Result, request};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use paygress_core::backend::cluster::ClusterEvent;
use paygress_core::model::ids::PodName;
use paygress_core::model::units::{Seconds, UnixTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// How often it is looked whether a node is lost, at most and at least.
const CHECK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

impl Kubernetes {
    /// Reports the pods of nodes that are lost, until the receiver is dropped. Time makes a node lost,
    /// and no event.
    pub(super) async fn observe_nodes(&self, sink: &mpsc::Sender<ClusterEvent>) {
        let lost_after = Duration::from_secs(self.settings.node_lost_after.0);
        let (shortest, longest) = CHECK_EVERY;
        let every = lost_after.checked_div(10).unwrap_or(longest).clamp(shortest, longest);
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unready = UnreadyNodes::default();
        loop {
            tick.tick().await;
            let now = self.capacity_watch().unready_nodes();
            let lost = unready.lost(now, lost_after, Instant::now());
            let lost = self.still_unready(lost).await;
            self.note_lost(&lost.keys().cloned().collect());
            for (node, reported) in &lost {
                let pods = match self.pods_on(node).await {
                    Ok(pods) if pods.is_empty() => continue,
                    Ok(pods) => pods,
                    Err(error) => {
                        tracing::warn!(%error, node, "the pods of a lost node cannot be listed");
                        continue;
                    }
                };
                let unready_for = Seconds(unready.unready_for(node, Instant::now()).as_secs());
                let ready_until = served_until(*reported, UnixTime::now().minus(unready_for));
                if sink.send(ClusterEvent::NodeLost { pods, ready_until }).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Those of these nodes that are there and not ready, and until when they report that they were.
    /// What a watch has seen last may be old.
    async fn still_unready(&self, names: Vec<String>) -> BTreeMap<String, Option<UnixTime>> {
        let mut unready = BTreeMap::new();
        for name in names {
            match self.node(&name).await {
                Ok(Some(node)) if is_unready(&node) => {
                    unready.insert(name, ready_until(&node));
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, node = name, "a node cannot be read"),
            }
        }
        unready
    }

    fn lost_nodes(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.lost_nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_lost(&self, lost: &BTreeSet<String>) {
        let before = std::mem::replace(&mut *self.lost_nodes(), lost.clone());
        for node in lost.difference(&before) {
            tracing::warn!(
                node,
                lost_after = self.settings.node_lost_after.0,
                "a node is lost: the leases of its pods end, and what is left of them is paid back"
            );
        }
    }

    /// Whether nobody knows what this pod does: it need not be waited for.
    pub(super) fn is_on_lost_node(&self, pod: &Pod) -> bool {
        node_name(pod).is_some_and(|node| self.lost_nodes().contains(node))
    }

    /// The pods of this installation on a node.
    async fn pods_on(&self, node: &str) -> Result<Vec<PodName>> {
        let params = ListParams::default()
            .labels(&selector(&self.settings.instance))
            .fields(&format!("spec.nodeName={node}"));
        let pods = request(self.pods.list(&params)).await?;
        let names: BTreeSet<PodName> = pods.items.iter().filter_map(pod_of_lease).collect();
        Ok(names.into_iter().collect())
    }
}
