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

    /// The same without a list, where their names are known: a pod that was made a moment ago may be
    /// missing beside others.
    pub(crate) async fn known_pods(&self, pod: &PodName) -> Result<Vec<Pod>> {
        self.pod_watch.names().wait_listed().await;
        let known = self.named_pods(pod).await?;
        if known.is_empty() { self.pods_of(pod).await } else { Ok(known) }
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
