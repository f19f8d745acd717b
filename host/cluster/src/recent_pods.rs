//! Pods that were listed a moment ago: whoever connects again and again to a pod costs the API server
//! one list a moment.

use k8s_openapi::api::core::v1::Pod;
use paygress_core::model::ids::PodName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Shorter than the address of a pod that has ended takes to become another one's.
const RECENT: Duration = Duration::from_secs(1);

/// The pods of leases, as long as they are recent.
#[derive(Default)]
pub(crate) struct RecentPods(Mutex<HashMap<PodName, (Instant, Arc<Pod>)>>);

impl RecentPods {
    pub(crate) fn get(&self, name: &PodName) -> Option<Arc<Pod>> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, pod) = pods.get(name)?;
        (at.elapsed() < RECENT).then(|| Arc::clone(pod))
    }

    /// What is not recent any more is forgotten.
    pub(crate) fn insert(&self, name: PodName, pod: Arc<Pod>) {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|_, (at, _)| at.elapsed() < RECENT);
        pods.insert(name, (Instant::now(), pod));
    }

    /// It did not answer.
    pub(crate) fn forget(&self, name: &PodName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_known_for_a_moment() {
        let (pods, pod) = (RecentPods::default(), Arc::new(Pod::default()));
        let [first, second] =
            ["ssh-pod-aaaaaaaaaa", "ssh-pod-bbbbbbbbbb"].map(|name| PodName::parse(name).unwrap());
        pods.insert(first.clone(), Arc::clone(&pod));
        assert!(pods.get(&first).is_some() && pods.get(&second).is_none());
        tokio::time::advance(RECENT).await;
        assert!(pods.get(&first).is_none());
        pods.insert(second.clone(), pod);
        assert_eq!(pods.0.lock().unwrap().len(), 1, "the first one is forgotten");
        pods.forget(&second);
        assert!(pods.get(&second).is_none());
    }
}
