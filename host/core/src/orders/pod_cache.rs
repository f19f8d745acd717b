//! What the cluster is requested for of one pod: once a moment at most, however often customers want it.
//! It lists pods to find it out.

use crate::limits;
use crate::model::ids::PodName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When it was found out of a pod, and what; none before the first time.
type Latest<T> = tokio::sync::Mutex<Option<(Instant, T)>>;

/// The latest of each pod.
pub(super) struct PodCache<T> {
    pods: Mutex<HashMap<PodName, Arc<Latest<T>>>>,
    kept: Duration,
}

impl<T> Default for PodCache<T> {
    fn default() -> Self {
        Self { pods: Mutex::default(), kept: limits::POD_CACHE_KEPT }
    }
}

impl<T: Copy> PodCache<T> {
    /// What is known of this pod, or else what this request of the cluster gives: also that it gives
    /// nothing.
    pub(super) async fn of(&self, pod: &PodName, request: impl Future<Output = T>) -> T {
        let latest = self.latest(pod);
        // Those who want it meanwhile wait for this request rather than for one of their own.
        let mut latest = latest.lock().await;
        if let Some((at, found)) = *latest
            && at.elapsed() < self.kept
        {
            return found;
        }
        let found = request.await;
        *latest = Some((Instant::now(), found));
        found
    }

    fn latest(&self, pod: &PodName) -> Arc<Latest<T>> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.len() >= limits::POD_CACHE && !pods.contains_key(pod) {
            // Those that nobody waits for; the others are as many as requests under way.
            pods.retain(|_, latest| Arc::strong_count(latest) > 1);
        }
        Arc::clone(pods.entry(pod.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::model::run::ProgramState;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pod() -> PodName {
        LeaseId::of(&OrderId::random()).pod_name()
    }

    #[tokio::test]
    async fn whoever_requests_it_often_has_the_cluster_requested_once() {
        let requests = AtomicUsize::new(0);
        let request = async || {
            requests.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Some(ProgramState::Running)
        };
        let running = Some(ProgramState::Running);
        for (kept, expected) in [(Duration::MAX, 1), (Duration::ZERO, 4)] {
            requests.store(0, Ordering::Relaxed);
            let (states, pod) = (PodCache { kept, ..PodCache::default() }, pod());
            let of = || states.of(&pod, request());
            assert_eq!(tokio::join!(of(), of(), of()), (running, running, running));
            assert_eq!(of().await, running);
            assert_eq!(requests.load(Ordering::Relaxed), expected, "{kept:?}");
        }
    }

    #[tokio::test]
    async fn no_more_pods_are_known_than_may_be() {
        let cache = PodCache::default();
        for _ in 0..limits::POD_CACHE.saturating_mul(3) {
            cache.of(&pod(), async {}).await;
        }
        assert!(cache.pods.lock().unwrap().len() <= limits::POD_CACHE);
    }
}
