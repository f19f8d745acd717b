//! The pods that another one runs in place of, and which of them have a task that looks at it.

use crate::limits;
use crate::model::ids::PodName;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// What the task of a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inspection {
    /// It has to look at the pod, perhaps again: what it sees now may be older than the last event.
    Due,
    UnderWay,
}

/// The pods that have a task, and the permits of those that request something of the cluster.
pub(super) struct ReplacedPods {
    pods: Mutex<HashMap<PodName, Inspection>>,
    pub(super) permits: Semaphore,
}

impl Default for ReplacedPods {
    fn default() -> Self {
        Self { pods: Mutex::default(), permits: Semaphore::new(limits::REPLACEMENTS_AT_ONCE) }
    }
}

impl ReplacedPods {
    /// Has this pod looked at from now on. Whether that needs a task: one that is there looks again.
    pub(super) fn expect(&self, pod: &PodName) -> bool {
        self.lock().insert(pod.clone(), Inspection::Due).is_none()
    }

    /// Whether its task has to look at this pod now; else that is over.
    pub(super) fn start(&self, pod: &PodName) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};

    #[test]
    fn a_pod_has_one_task_which_looks_again_after_another_event() {
        let replaced = ReplacedPods::default();
        let [pod, other] = [(); 2].map(|()| LeaseId::of(&OrderId::random()).pod_name());
        assert!(replaced.expect(&pod));
        assert!(!replaced.expect(&pod), "it has a task");
        assert!(replaced.expect(&other));
        assert!(replaced.start(&pod));
        assert!(!replaced.expect(&pod));
        assert!(replaced.start(&pod), "what was seen may be older");
        assert!(!replaced.start(&pod));
        assert!(replaced.start(&other));
        assert!(!replaced.start(&other));
        assert!(replaced.lock().is_empty());
        assert!(replaced.expect(&pod), "its task is over");
    }
}
