//! Pods that run in place of others: a task for each finds out what is known of it, beside other events.

use super::OrderService;
use crate::backoff::doubling;
use crate::limits;
use crate::model::ids::PodName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// What the task of a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inspection {
    /// It has to look at the pod, perhaps again: what it sees now may be older than the last event.
    Due,
    UnderWay,
}

/// The pods that have a task, and the permits of those that request something of the cluster.
pub(super) struct Replacements {
    pods: Mutex<HashMap<PodName, Inspection>>,
    permits: Semaphore,
}

impl Default for Replacements {
    fn default() -> Self {
        Self { pods: Mutex::default(), permits: Semaphore::new(limits::REPLACEMENTS_AT_ONCE) }
    }
}

impl Replacements {
    /// Has this pod looked at from now on. Whether that needs a task: one that is there looks again.
    fn expect(&self, pod: &PodName) -> bool {
        self.lock().insert(pod.clone(), Inspection::Due).is_none()
    }

    /// Whether its task has to look at this pod now; else that is over.
    fn start(&self, pod: &PodName) -> bool {
        let mut pods = self.lock();
        let is_due = pods.remove(pod) == Some(Inspection::Due);
        if is_due {
            pods.insert(pod.clone(), Inspection::UnderWay);
        }
        is_due
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodName, Inspection>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OrderService {
    /// Another pod runs in place of this one. Its proof may take seconds, which other events do not wait
    /// for: there is one task for each pod at most, however many events.
    pub(super) fn expect_replacement(self: &Arc<Self>, pod: PodName) {
        if !self.replacements.expect(&pod) {
            return;
        }
        let orders = Arc::clone(self);
        tokio::spawn(async move {
            while orders.replacements.start(&pod) {
                orders.replace_pod(&pod).await;
            }
        });
    }

    /// Its host keys are those of the lease from now on, and its owner, if they want notices, gets its
    /// status, with them. Others who have extended it do not: how it is reached is not theirs to know.
    /// Its Job does not change again: an attempt that fails is made again, so many times.
    async fn replace_pod(self: &Arc<Self>, pod: &PodName) {
        let pauses = doubling(limits::RETRY_FIRST, limits::REPLACEMENT_PAUSE);
        let mut pauses = pauses.take(limits::REPLACEMENT_RETRIES);
        loop {
            let updated = {
                let _permit = self.replacements.permits.acquire().await;
                self.update_pod(pod).await
            };
            match (updated, pauses.next()) {
                (Ok(None), _) => return,
                (Ok(Some(_)), _) => {
                    tracing::warn!(%pod, "another pod runs in place of one, with a new disk and host keys");
                    return;
                }
                (Err(error), Some(pause)) => {
                    tracing::debug!(%error, %pod, "what runs in place of a pod is not recorded yet");
                    tokio::time::sleep(pause).await;
                }
                (Err(error), None) => {
                    tracing::warn!(%error, %pod, "another pod runs in place of one, and its host keys are not recorded");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};

    #[test]
    fn a_pod_has_one_task_which_looks_again_after_another_event() {
        let replacements = Replacements::default();
        let [pod, other] = [(); 2].map(|()| LeaseId::of(&OrderId::random()).pod_name());
        assert!(replacements.expect(&pod));
        assert!(!replacements.expect(&pod), "it has a task");
        assert!(replacements.expect(&other));
        assert!(replacements.start(&pod));
        assert!(!replacements.expect(&pod));
        assert!(replacements.start(&pod), "what was seen may be older");
        assert!(!replacements.start(&pod));
        assert!(replacements.start(&other));
        assert!(!replacements.start(&other));
        assert!(replacements.lock().is_empty());
        assert!(replacements.expect(&pod), "its task is over");
    }
}
