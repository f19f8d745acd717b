//! The names of all pods of an installation, by their leases, as the watch of pods shows them. To list
//! the pods of one lease by its label takes the API server time for each pod of the namespace; to get
//! one by its name does not.

use crate::objects::pod_of_lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use paygress_core::model::ids::PodName;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch as channel;

/// How long the first list is waited for, once: a right may be missing.
const FIRST_LIST: Duration = Duration::from_secs(15);

type ByLease = HashMap<PodName, BTreeSet<String>>;

#[derive(Default)]
pub(crate) struct PodNames {
    names: Mutex<Names>,
    /// Whether all pods were listed once.
    listed: channel::Sender<bool>,
}

#[derive(Default)]
struct Names {
    by_lease: ByLease,
    /// Of a list that has begun.
    listing: ByLease,
    /// Whether nothing was missed.
    is_current: bool,
    /// Whether the first list was waited for in vain.
    is_overdue: bool,
}

impl PodNames {
    pub(crate) fn note(&self, event: &watcher::Result<Event<Pod>>) {
        let mut names = self.lock();
        match event {
            Ok(Event::Init) => names.listing = ByLease::default(),
            Ok(Event::InitApply(pod)) => {
                insert(&mut names.by_lease, pod);
                insert(&mut names.listing, pod);
            }
            Ok(Event::InitDone) => {
                names.by_lease = std::mem::take(&mut names.listing);
                names.is_current = true;
                self.listed.send_replace(true);
            }
            Ok(Event::Apply(pod)) => {
                insert(&mut names.by_lease, pod);
                names.is_current = *self.listed.borrow();
            }
            Ok(Event::Delete(pod)) => {
                remove(&mut names.by_lease, pod);
                names.is_current = *self.listed.borrow();
            }
            Err(_) => names.is_current = false,
        }
    }

    /// The pods of a lease, also those that have ended. One that was made a moment ago may be missing.
    pub(crate) fn of(&self, pod: &PodName) -> Vec<String> {
        self.lock().by_lease.get(pod).into_iter().flatten().cloned().collect()
    }

    /// Whether a lease that has no pod here has none, but for a moment.
    pub(crate) fn are_current(&self) -> bool {
        self.lock().is_current
    }

    /// Waits until all pods were listed once, for as long as that takes at most.
    pub(crate) async fn wait_listed(&self) {
        if self.lock().is_overdue {
            return;
        }
        let mut listed = self.listed.subscribe();
        let first_list = listed.wait_for(|listed| *listed);
        if tokio::time::timeout(FIRST_LIST, first_list).await.is_err() {
            self.lock().is_overdue = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(names: &mut ByLease, pod: &Pod) {
    if let Some(lease) = pod_of_lease(pod) {
        names.entry(lease).or_default().insert(pod.name_any());
    }
}

fn remove(names: &mut ByLease, pod: &Pod) {
    let Some(lease) = pod_of_lease(pod) else { return };
    if let Some(of_lease) = names.get_mut(&lease) {
        of_lease.remove(&pod.name_any());
        if of_lease.is_empty() {
            names.remove(&lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::LEASE;
    use futures::FutureExt;
    use paygress_core::model::ids::LeaseId;
    use serde_json::json;

    fn lease(id: char) -> PodName {
        LeaseId::parse(id.to_string().repeat(10)).unwrap().pod_name()
    }

    fn pod(id: char, name: &str) -> Pod {
        let labels = json!({LEASE: id.to_string().repeat(10)});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_those_of_the_latest_list_and_what_came_after_it() {
        let names = PodNames::default();
        let [first, second] = ['a', 'b'].map(lease);
        names.wait_listed().await;
        assert!(!names.are_current(), "they were waited for in vain");
        assert!(names.wait_listed().now_or_never().is_some(), "and not again");
        for (event, of_first, of_second, are_current) in [
            (Ok(Event::Init), &[][..], &[][..], false),
            (Ok(Event::InitApply(pod('a', "1"))), &["1"], &[], false),
            (Ok(Event::InitDone), &["1"], &[], true),
            (Ok(Event::Apply(pod('a', "2"))), &["1", "2"], &[], true),
            (Ok(Event::Delete(pod('a', "1"))), &["2"], &[], true),
            (Err(watcher::Error::NoResourceVersion), &["2"], &[], false),
            (Ok(Event::Apply(pod('a', "2"))), &["2"], &[], true),
            (Ok(Event::Init), &["2"], &[], true),
            (Ok(Event::InitApply(pod('b', "3"))), &["2"], &["3"], true),
            (Ok(Event::InitDone), &[], &["3"], true),
            (Ok(Event::Delete(pod('b', "3"))), &[], &[], true),
        ] {
            names.note(&event);
            assert_eq!([names.of(&first), names.of(&second)], [of_first, of_second], "{event:?}");
            assert_eq!(names.are_current(), are_current, "{event:?}");
        }
        assert!(names.wait_listed().now_or_never().is_some());
        assert!(names.lock().by_lease.is_empty(), "nothing is held of leases without a pod");
    }
}
