//! One watch of the pods of all leases, for whoever waits for one of them. With a watch each, the API
//! server would compare each event of a pod with every one of them.

use crate::kubernetes::pod_of_lease;
use crate::watches::watch;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use paygress_core::error_chain;
use paygress_core::logged_failures::LoggedFailures;
use paygress_core::model::ids::PodName;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;

/// What the watch has shown of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) enum Sight {
    /// Nothing, or it has failed since: the pod may be there.
    #[default]
    Unseen,
    Seen(Arc<Pod>),
    Gone,
}

/// Watches the pods of an installation, from the first that is awaited on, until it is dropped.
pub(crate) struct PodWatch {
    pods: Api<Pod>,
    selector: String,
    awaited: Arc<Awaited>,
    task: OnceLock<JoinHandle<()>>,
}

/// The pods that are awaited; all others are passed over.
#[derive(Default)]
pub(crate) struct Awaited(Mutex<HashMap<PodName, Entry>>);

#[derive(Default)]
struct Entry {
    sight: channel::Sender<Sight>,
    /// Whether its Job was created since: all that becomes of its pod is seen.
    is_new: bool,
}

/// A pod that is waited for, until this is dropped.
pub(crate) struct AwaitedPod {
    name: PodName,
    awaited: Arc<Awaited>,
    sight: channel::Receiver<Sight>,
    is_new: bool,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl PodWatch {
    /// Of the pods that this selects. Sends nothing yet.
    pub(crate) fn new(pods: Api<Pod>, selector: String) -> Self {
        Self { pods, selector, awaited: Arc::default(), task: OnceLock::new() }
    }

    /// The pods that are awaited. The first call begins the watch, on the runtime of the caller.
    pub(crate) fn awaited(&self) -> &Arc<Awaited> {
        self.task.get_or_init(|| {
            let config = watcher::Config::default().labels(&self.selector);
            let events = watch(self.pods.clone(), config);
            let awaited = Arc::clone(&self.awaited);
            tokio::spawn(async move { awaited.follow_events(events).await })
        });
        &self.awaited
    }
}

impl Awaited {
    /// To be called before the Job of a pod is created: none of its events is missed then.
    pub(crate) fn expect(&self, pod: &PodName) {
        self.lock().insert(pod.clone(), Entry::default());
    }

    /// The Job of a pod that is expected did not exist, and was created.
    pub(crate) fn note_created(&self, pod: &PodName) {
        if let Some(entry) = self.lock().get_mut(pod) {
            entry.is_new = true;
        }
    }

    /// Nobody will wait for this pod.
    pub(crate) fn forget(&self, pod: &PodName) {
        self.lock().remove(pod);
    }

    /// Waits for a pod.
    pub(crate) fn follow(self: &Arc<Self>, pod: &PodName) -> AwaitedPod {
        let mut entries = self.lock();
        let Entry { sight, is_new } = entries.entry(pod.clone()).or_default();
        let (mut sight, is_new) = (sight.subscribe(), *is_new);
        drop(entries);
        // It may have been seen already.
        sight.mark_changed();
        AwaitedPod { name: pod.clone(), awaited: Arc::clone(self), sight, is_new }
    }

    /// A pod that is awaited now, as the watch has shown it.
    pub(crate) fn latest(&self, pod: &PodName) -> Option<Arc<Pod>> {
        match &*self.lock().get(pod)?.sight.borrow() {
            Sight::Seen(pod) => Some(Arc::clone(pod)),
            Sight::Unseen | Sight::Gone => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodName, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow_events(&self, events: impl Stream<Item = watcher::Result<Event<Pod>>>) {
        let mut events = std::pin::pin!(events);
        let (mut listed, failures) = (BTreeSet::new(), LoggedFailures::default());
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => listed.extend(self.seen(pod)),
                Ok(Event::InitDone) => self.unseen(|name| !listed.contains(name)),
                Ok(Event::Apply(pod)) => drop(self.seen(pod)),
                Ok(Event::Delete(pod)) => drop(self.show(&pod, Sight::Gone)),
                Err(error) => {
                    self.unseen(|_| true);
                    if let Some(error) = failures.admit(error_chain(&error)) {
                        tracing::warn!(error, "the watch of the pods failed");
                    }
                }
            }
        }
    }

    fn seen(&self, pod: Pod) -> Option<PodName> {
        let pod = Arc::new(pod);
        self.show(&pod, Sight::Seen(Arc::clone(&pod)))
    }

    /// The name, if it is awaited.
    fn show(&self, pod: &Pod, sight: Sight) -> Option<PodName> {
        let name = pod_of_lease(pod)?;
        self.lock().get(&name)?.sight.send_replace(sight);
        Some(name)
    }

    /// What is known of these may not be so any more.
    fn unseen(&self, is_unseen: impl Fn(&PodName) -> bool) {
        for (_, entry) in self.lock().iter().filter(|(name, _)| is_unseen(name)) {
            entry.sight.send_if_modified(|sight| {
                let was_seen = !matches!(sight, Sight::Unseen);
                *sight = Sight::Unseen;
                was_seen
            });
        }
    }
}

impl AwaitedPod {
    /// Whether its pod may have been there before it was expected.
    pub(crate) fn may_be_older(&self) -> bool {
        !self.is_new
    }

    /// Waits for what the watch shows next of it; `None`: another waits for it.
    pub(crate) async fn next(&mut self) -> Option<Sight> {
        self.sight.changed().await.ok()?;
        Some(self.sight.borrow_and_update().clone())
    }
}

impl Drop for AwaitedPod {
    fn drop(&mut self) {
        let mut entries = self.awaited.lock();
        let is_last = |entry: &Entry| {
            entry.sight.receiver_count() <= 1 && entry.sight.subscribe().same_channel(&self.sight)
        };
        if entries.get(&self.name).is_some_and(is_last) {
            entries.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::LEASE;
    use futures::{FutureExt, stream};
    use paygress_core::model::ids::LeaseId;
    use serde_json::json;

    fn name(lease: char) -> PodName {
        LeaseId::parse(lease.to_string().repeat(10)).unwrap().pod_name()
    }

    fn pod(lease: char, uid: &str) -> Pod {
        let labels = json!({LEASE: lease.to_string().repeat(10)});
        serde_json::from_value(json!({"metadata": {"uid": uid, "labels": labels}})).unwrap()
    }

    async fn show(awaited: &Awaited, events: Vec<watcher::Result<Event<Pod>>>) {
        awaited.follow_events(stream::iter(events)).await;
    }

    fn uid(sight: Option<Sight>) -> String {
        match sight {
            Some(Sight::Seen(pod)) => pod.metadata.uid.clone().unwrap(),
            other => format!("{other:?}"),
        }
    }

    fn failed() -> watcher::Result<Event<Pod>> {
        Err(watcher::Error::NoResourceVersion)
    }

    #[tokio::test]
    async fn whoever_waits_for_a_pod_is_shown_it_and_no_other() {
        let awaited = Arc::new(Awaited::default());
        let (first, second) = (name('a'), name('b'));
        awaited.expect(&first);
        show(&awaited, vec![Ok(Event::Apply(pod('a', "1"))), Ok(Event::Apply(pod('b', "2")))])
            .await;
        awaited.note_created(&first);
        let (mut of_first, mut of_second) = (awaited.follow(&first), awaited.follow(&second));
        assert_eq!((of_first.may_be_older(), of_second.may_be_older()), (false, true));
        assert_eq!(awaited.latest(&first).unwrap().metadata.uid.as_deref(), Some("1"));
        assert!(awaited.latest(&second).is_none(), "nobody waited for it then");
        assert_eq!(uid(of_first.next().await), "1");
        assert_eq!(uid(of_second.next().await), "Some(Unseen)");

        show(&awaited, vec![Ok(Event::Apply(pod('b', "2"))), Ok(Event::Delete(pod('a', "1")))])
            .await;
        assert_eq!(uid(of_second.next().await), "2");
        assert_eq!(uid(of_first.next().await), "Some(Gone)");
        assert!(of_first.next().now_or_never().is_none());
        drop((of_first, of_second));
        assert!(awaited.lock().is_empty(), "nothing is held of a pod that nobody waits for");
    }

    #[tokio::test]
    async fn what_a_watch_has_missed_is_not_taken_for_known() {
        let awaited = Arc::new(Awaited::default());
        let [mut kept, mut lost] = ['a', 'b'].map(|lease| awaited.follow(&name(lease)));
        let list = |pods: Vec<Pod>| {
            let pods = pods.into_iter().map(|pod| Ok(Event::InitApply(pod)));
            [Ok(Event::Init)].into_iter().chain(pods).chain([Ok(Event::InitDone)]).collect()
        };
        show(&awaited, list(vec![pod('a', "1"), pod('b', "2")])).await;
        assert_eq!([uid(kept.next().await), uid(lost.next().await)], ["1", "2"]);
        show(&awaited, list(vec![pod('a', "1")])).await;
        assert_eq!([uid(kept.next().await), uid(lost.next().await)], ["1", "Some(Unseen)"]);
        show(&awaited, vec![failed()]).await;
        assert_eq!(uid(kept.next().await), "Some(Unseen)");
        assert!(lost.next().now_or_never().is_none(), "nothing new is known of it");
    }

    #[tokio::test]
    async fn a_pod_that_is_expected_anew_is_another_one() {
        let awaited = Arc::new(Awaited::default());
        let pod_name = name('a');
        awaited.expect(&pod_name);
        awaited.note_created(&pod_name);
        let mut before = awaited.follow(&pod_name);
        assert_eq!(uid(before.next().await), "Some(Unseen)");
        awaited.expect(&pod_name);
        let mut now = awaited.follow(&pod_name);
        assert!(now.may_be_older(), "its Job was there already");
        assert_eq!(uid(before.next().await), "None");
        drop(before);
        show(&awaited, vec![Ok(Event::Apply(pod('a', "1")))]).await;
        assert_eq!(uid(now.next().await), "1");
        awaited.forget(&pod_name);
        assert_eq!(uid(now.next().await), "None");
    }
}
