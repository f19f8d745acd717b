//! The pods and Services of a lease.

use super::{Kubernetes, lease_selector};
use crate::requests::{Result, request};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use paygress_core::model::ids::PodName;

impl Kubernetes {
    /// The pods of a lease, of whichever Job. A list by a label takes the API server time for each pod of
    /// the namespace: to be avoided where leases come by the thousand.
    pub(crate) async fn pods_of(&self, pod: &PodName) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(&lease_selector(pod)?);
        Ok(request(self.pods.list(&params)).await?.items)
    }

    /// The same without a list, where the name of one is known that goes on: those that are made in its
    /// place come after it.
    pub(crate) async fn known_pods(&self, pod: &PodName) -> Result<Vec<Pod>> {
        self.pod_watch.names().wait_listed().await;
        let known = self.named_pods(pod).await?;
        if known.iter().any(goes_on) { Ok(known) } else { self.pods_of(pod).await }
    }

    /// Those whose names are known.
    pub(super) async fn named_pods(&self, pod: &PodName) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for name in self.pod_watch.names().of(pod) {
            pods.extend(request(self.pods.get_opt(&name)).await?);
        }
        Ok(pods)
    }

    pub(super) async fn services_of(&self, pod: &PodName) -> Result<Vec<String>> {
        let params = ListParams::default().labels(&lease_selector(pod)?);
        let services = request(self.services.list(&params)).await?;
        Ok(services.items.iter().map(ResourceExt::name_any).collect())
    }
}

/// Whether the pod has not ended, and is not being deleted.
fn goes_on(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Failed" | "Succeeded"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_ends_may_have_another_one_in_its_place() {
        for (phase, deleted, expected) in [
            ("Pending", None, true),
            ("Running", None, true),
            ("Running", Some("2026-01-01T00:00:00Z"), false),
            ("Failed", None, false),
            ("Succeeded", None, false),
        ] {
            let metadata = json!({"deletionTimestamp": deleted});
            let pod = json!({"metadata": metadata, "status": {"phase": phase}});
            assert_eq!(goes_on(&serde_json::from_value(pod).unwrap()), expected, "{phase}");
        }
    }
}
