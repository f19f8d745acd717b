//! One watch of the pods of all leases, for whoever waits for one of them. With a watch each, the API
//! server would compare each event of a pod with every one of them.

use crate::objects::pod_of_lease;
use crate::pod_names::PodNames;
use crate::watches::watch;
use futures::{Stream, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
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

/// Watches the pods of an installation, from the first use on, until it is dropped.
pub(crate) struct PodWatch {
    pods: Api<Pod>,
    selector: String,
    awaited: Arc<Awaited>,
    names: Arc<PodNames>,
    task: OnceLock<JoinHandle<()>>,
}

/// The pods that are awaited; all others are passed over.
#[derive(Default)]
pub(crate) struct Awaited(Mutex<HashMap<PodName, Entry>>);

#[derive(Default)]
struct Entry {
    sight: channel::Sender<Sight>,
    /// The uid of the Job whose pods these are; none: any of the name.
    job: Option<String>,
    /// Whether all that has become of its pods since that Job began was seen.
    is_complete: bool,
    /// How many wait for it.
    waiting: usize,
}

/// A pod that is waited for, until this is dropped.
pub(crate) struct AwaitedPod {
    name: PodName,
    awaited: Arc<Awaited>,
    sight: channel::Receiver<Sight>,
    is_complete: bool,
}

/// When a Job was created.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobOrigin {
    /// Just now, suspended: it has had no pod.
    Now,
    Before,
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
        let (awaited, names, task) = (Arc::default(), Arc::default(), OnceLock::new());
        Self { pods, selector, awaited, names, task }
    }

    /// The pods that are awaited.
    pub(crate) fn awaited(&self) -> &Arc<Awaited> {
        self.begin();
        &self.awaited
    }

    /// The names of all pods.
    pub(crate) fn names(&self) -> &PodNames {
        self.begin();
        &self.names
    }

    /// The first call begins the watch, on the runtime of the caller.
    fn begin(&self) {
        self.task.get_or_init(|| {
            let config = watcher::Config::default().labels(&self.selector);
            let (awaited, names) = (Arc::clone(&self.awaited), Arc::clone(&self.names));
            let events = watch(self.pods.clone(), config).inspect(move |event| names.note(event));
            tokio::spawn(async move { awaited.follow_events(events).await })
        });
    }
}

impl Awaited {
    /// Pays attention to the pods of this Job, and to none of an earlier one of its name: the watch may
    /// be behind. To be called before it is resumed.
    pub(crate) fn expect(&self, pod: &PodName, job: &Job, origin: JobOrigin) {
        let (job, is_complete) = (job.metadata.uid.clone(), origin == JobOrigin::Now);
        let mut entries = self.lock();
        if entries.get(pod).is_none_or(|entry| entry.job != job) {
            entries.insert(pod.clone(), Entry { job, is_complete, ..Entry::default() });
        }
    }

    /// Pays no more attention to a pod, unless somebody waits for it.
    pub(crate) fn forget(&self, pod: &PodName) {
        let mut entries = self.lock();
        if entries.get(pod).is_some_and(|entry| entry.waiting == 0) {
            entries.remove(pod);
        }
    }

    /// Waits for a pod.
    pub(crate) fn follow(self: &Arc<Self>, pod: &PodName) -> AwaitedPod {
        let mut entries = self.lock();
        let entry = entries.entry(pod.clone()).or_default();
        entry.waiting = entry.waiting.saturating_add(1);
        let (mut sight, is_complete) = (entry.sight.subscribe(), entry.is_complete);
        drop(entries);
        // It may have been seen already.
        sight.mark_changed();
        AwaitedPod { name: pod.clone(), awaited: Arc::clone(self), sight, is_complete }
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
                Ok(Event::Delete(pod)) => self.gone(&pod),
                Err(error) => {
                    self.unseen(|_| true);
                    if let Some(error) = failures.admit(error_chain(&error)) {
                        tracing::warn!(error, "the watch of the pods failed");
                    }
                }
            }
        }
    }

    /// Shows it, unless a later one of its Job was seen. The name, if it is awaited.
    fn seen(&self, pod: Pod) -> Option<PodName> {
        let name = pod_of_lease(&pod)?;
        let entries = self.lock();
        let entry = entries.get(&name).filter(|entry| entry.is_of(&pod))?;
        entry.sight.send_if_modified(|sight| match sight {
            Sight::Seen(seen) if is_later(seen, &pod) => false,
            _ => {
                *sight = Sight::Seen(Arc::new(pod));
                true
            }
        });
        drop(entries);
        Some(name)
    }

    /// Another one of its Job may be there still, or come.
    fn gone(&self, pod: &Pod) {
        let Some(name) = pod_of_lease(pod) else { return };
        if let Some(entry) = self.lock().get(&name) {
            entry.sight.send_if_modified(|sight| {
                let is_seen = matches!(sight, Sight::Seen(seen) if seen.uid() == pod.uid());
                if is_seen {
                    *sight = Sight::Gone;
                }
                is_seen
            });
        }
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

impl Entry {
    fn is_of(&self, pod: &Pod) -> bool {
        self.job.as_ref().is_none_or(|job| is_of_job(pod, job))
    }
}

/// Whether the Job of this uid has made the pod.
pub(crate) fn is_of_job(pod: &Pod, job: &str) -> bool {
    let is_controller = |owner: &OwnerReference| owner.controller == Some(true) && owner.uid == job;
    pod.owner_references().iter().any(is_controller)
}

/// Whether the first is another one than the second, and was made after it.
fn is_later(first: &Pod, second: &Pod) -> bool {
    first.uid() != second.uid() && first.creation_timestamp() > second.creation_timestamp()
}

impl AwaitedPod {
    /// Whether a pod may be there already that was never seen.
    pub(crate) fn may_be_there(&self) -> bool {
        !self.is_complete
    }

    /// Waits for what the watch shows next of it; `None`: its Job is another one now.
    pub(crate) async fn next(&mut self) -> Option<Sight> {
        self.sight.changed().await.ok()?;
        Some(self.sight.borrow_and_update().clone())
    }
}

impl Drop for AwaitedPod {
    fn drop(&mut self) {
        let mut entries = self.awaited.lock();
        let Some(entry) = entries.get_mut(&self.name) else { return };
        // Not of a later Job.
        if entry.sight.subscribe().same_channel(&self.sight) {
            entry.waiting = entry.waiting.saturating_sub(1);
            if entry.waiting == 0 {
                entries.remove(&self.name);
            }
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

    /// The pod of this uid, of the Job of this one, made at this second.
    fn pod_of_job(lease: char, uid: &str, job: &str, second: u8) -> Pod {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": job,
            "controller": true});
        let metadata = json!({
            "uid": uid,
            "labels": {LEASE: lease.to_string().repeat(10)},
            "ownerReferences": [owner],
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        });
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn pod(lease: char, uid: &str) -> Pod {
        pod_of_job(lease, uid, "job", 1)
    }

    fn job(uid: &str) -> Job {
        serde_json::from_value(json!({"metadata": {"uid": uid}})).unwrap()
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
        awaited.expect(&first, &job("job"), JobOrigin::Now);
        show(&awaited, vec![Ok(Event::Apply(pod('a', "1"))), Ok(Event::Apply(pod('b', "2")))])
            .await;
        let (mut of_first, mut of_second) = (awaited.follow(&first), awaited.follow(&second));
        assert_eq!((of_first.may_be_there(), of_second.may_be_there()), (false, true));
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

    /// Whatever the watch still shows of what was removed, a new pod has not ended by it.
    #[tokio::test]
    async fn pods_of_an_earlier_job_are_not_those_of_the_next_one() {
        let (awaited, pod_name) = (Arc::new(Awaited::default()), name('a'));
        awaited.expect(&pod_name, &job("first"), JobOrigin::Now);
        let mut before = awaited.follow(&pod_name);
        assert_eq!(uid(before.next().await), "Some(Unseen)");
        awaited.expect(&pod_name, &job("second"), JobOrigin::Before);
        let mut now = awaited.follow(&pod_name);
        assert!(now.may_be_there(), "its Job was there already");
        assert_eq!([uid(before.next().await), uid(now.next().await)], ["None", "Some(Unseen)"]);
        drop(before);
        let old = pod_of_job('a', "1", "first", 1);
        show(&awaited, vec![Ok(Event::Apply(old.clone())), Ok(Event::Delete(old.clone()))]).await;
        assert!(now.next().now_or_never().is_none());
        let new = pod_of_job('a', "2", "second", 2);
        show(&awaited, vec![Ok(Event::Apply(new)), Ok(Event::Delete(old))]).await;
        assert_eq!(uid(now.next().await), "2");
        // As by a second launch.
        awaited.expect(&pod_name, &job("second"), JobOrigin::Before);
        awaited.forget(&pod_name);
        assert!(now.next().now_or_never().is_none(), "who waits is not disturbed");
        drop(now);
        awaited.expect(&pod_name, &job("second"), JobOrigin::Before);
        awaited.forget(&pod_name);
        assert!(awaited.lock().is_empty());
    }

    #[tokio::test]
    async fn of_the_pods_of_a_job_the_latest_counts() {
        let (awaited, pod_name) = (Arc::new(Awaited::default()), name('a'));
        let mut waiting = awaited.follow(&pod_name);
        let [first, second] = [("1", 1), ("2", 2)].map(|(uid, at)| pod_of_job('a', uid, "job", at));
        let events = [&second, &first].map(|pod| Ok(Event::Apply(pod.clone())));
        show(&awaited, events.into()).await;
        assert_eq!(uid(waiting.next().await), "2");
        show(&awaited, vec![Ok(Event::Delete(first))]).await;
        assert!(waiting.next().now_or_never().is_none());
        show(&awaited, vec![Ok(Event::Delete(second))]).await;
        assert_eq!(uid(waiting.next().await), "Some(Gone)");
    }
}
