//! Limits of the streams through the API server to pods' HTTP ports. The API server, a kubelet and
//! a container runtime carry each stream, and visitors of a public port have paid nothing.

use paygress_core::keyed_limit::{KeyedLimit, Permit};
use paygress_core::model::ids::PodName;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams at the same time: the API server has other work too, such as the sessions of SSH…
const VISITS: usize = 256;
/// …and of one pod: a page with some WebSockets fits, and the visitors of one pod leave room for those
/// of others.
const VISITS_OF_POD: usize = 64;

/// Counts the streams of all pods, and of each.
pub(crate) struct VisitPermits {
    all: Arc<Semaphore>,
    of_pods: KeyedLimit<PodName>,
}

/// Held as long as the stream is open.
pub(crate) struct VisitPermit {
    _all: OwnedSemaphorePermit,
    _of_pod: Permit<PodName>,
}

impl Default for VisitPermits {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(VISITS)), of_pods: KeyedLimit::default() }
    }
}

impl VisitPermits {
    /// None: there are too many.
    pub(crate) fn try_acquire(&self, pod: &PodName) -> Option<VisitPermit> {
        Some(VisitPermit {
            _of_pod: self.of_pods.try_acquire(pod.clone(), VISITS_OF_POD)?,
            _all: Arc::clone(&self.all).try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(permits: &VisitPermits, pod: char) -> Vec<VisitPermit> {
        let pod = PodName::parse(format!("ssh-pod-{}", pod.to_string().repeat(10))).unwrap();
        std::iter::from_fn(|| permits.try_acquire(&pod)).collect()
    }

    #[test]
    fn neither_one_pod_nor_all_have_more_streams_than_they_may() {
        let permits = VisitPermits::default();
        let mut all: Vec<Vec<VisitPermit>> = ('a'..='z')
            .map(|pod| held(&permits, pod))
            .take_while(|held| !held.is_empty())
            .collect();
        assert_eq!(all[0].len(), VISITS_OF_POD);
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), VISITS);
        drop(all.pop());
        assert_eq!(held(&permits, 'z').len(), VISITS_OF_POD, "what has ended counts no more");
    }
}
