//! Limits of the streams through the API server to pods' HTTP ports. The API server, a kubelet and
//! a container runtime carry each stream, and visitors of a public port have paid nothing.

use paygress_core::keyed_limit::{KeyedLimit, Permit, share, try_acquire_of_all};
use paygress_core::model::ids::PodName;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams at the same time: the API server has other work too, such as the sessions of SSH…
const VISITS: usize = 256;
/// …and of one pod, a [share] of all: as many as the HTTP server has of one lease, which knows the networks
/// of visitors and leaves none of them all. Fewer here would be all that those of one network may have.
const VISITS_OF_POD: usize = 128;

/// Counts the streams of all pods, and of each.
pub(crate) struct StreamPermits {
    all: Arc<Semaphore>,
    of_pods: KeyedLimit<PodName>,
}

/// Held as long as the stream is open.
pub(crate) struct StreamPermit {
    _all: OwnedSemaphorePermit,
    _of_pod: Permit<PodName>,
}

impl Default for StreamPermits {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(VISITS)), of_pods: KeyedLimit::default() }
    }
}

impl StreamPermits {
    /// None: there are too many.
    pub(crate) fn try_acquire(&self, pod: &PodName) -> Option<StreamPermit> {
        let (of_all, free) = try_acquire_of_all(&self.all)?;
        let of_pod = self.of_pods.try_acquire(pod.clone(), share(VISITS_OF_POD, free, VISITS))?;
        Some(StreamPermit { _all: of_all, _of_pod: of_pod })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(permits: &StreamPermits, pod: char) -> Vec<StreamPermit> {
        let pod = PodName::parse(format!("ssh-pod-{}", pod.to_string().repeat(10))).unwrap();
        std::iter::from_fn(|| permits.try_acquire(&pod)).collect()
    }

    #[test]
    fn neither_one_pod_nor_some_leave_the_others_none() {
        let permits = StreamPermits::default();
        let mut all: Vec<Vec<StreamPermit>> = ('a'..='z').map(|pod| held(&permits, pod)).collect();
        assert_eq!(all[0].len(), VISITS_OF_POD);
        assert!(all.iter().all(|held| !held.is_empty()), "the visitors of each pod get some");
        assert!(all.iter().map(Vec::len).sum::<usize>() <= VISITS);
        all.clear();
        assert_eq!(held(&permits, 'z').len(), VISITS_OF_POD, "what has ended counts no more");
    }
}
