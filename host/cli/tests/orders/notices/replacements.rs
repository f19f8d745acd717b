//! Pods that the cluster has started in place of others.

use super::*;
use paygress_core::backend::cluster::{ClusterEvent, PodObserver};
use tokio::sync::mpsc;

/// Cannot be reached so often, or knows of a silent pod, and never answers after that unless something is
/// known.
struct UnreachedProgress {
    failures: usize,
    silent: Option<ReadyPod>,
    known: Option<ReadyPod>,
    requests: AtomicUsize,
}

#[async_trait]
impl PodProgress for UnreachedProgress {
    async fn startup_phase(&self, _: &PodName) -> Result<StartupPhase, ClusterError> {
        Ok(StartupPhase::Starting)
    }
    async fn running_pod(&self, _: &PodName) -> Result<Option<ReadyPod>, ClusterError> {
        if self.requests.fetch_add(1, Ordering::Relaxed) < self.failures {
            let silent = self.silent.clone().map(Some);
            return silent.ok_or_else(|| ClusterError::unavailable("a test"));
        }
        match &self.known {
            Some(known) => Ok(Some(known.clone())),
            None => std::future::pending().await,
        }
    }
}

/// Reports what a test sends.
struct Reports(tokio::sync::Mutex<mpsc::Receiver<ClusterEvent>>);

#[async_trait]
impl PodObserver for Reports {
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let mut events = self.0.lock().await;
        while let Some(event) = events.recv().await {
            sink.send(event).await.unwrap();
        }
        std::future::pending().await
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        Ok(Vec::new())
    }
}

fn running(uid: &str, host_keys: &[&str]) -> ReadyPod {
    let host_keys = host_keys.iter().map(|key| HostKey::parse(key).unwrap()).collect();
    ReadyPod { uid: PodUid::parse(uid).ok(), host_keys, root: true, ..ReadyPod::default() }
}

/// An earlier version has recorded its host keys, and no uid.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_pod_that_was_replaced_long_ago_is_not_notified_of_it_again() {
    let service = Service::new().await;
    let alice = customer(1);
    let lease = service.sell(&alice, Wants::Notices, 3_600).await;
    let pod = lease.pod();
    let [proved, next] = [running("a", &[testing::HOST_KEY]), running("b", &[NEXT_HOST_KEY])];
    let unnamed = ReadyPod { uid: None, ..proved.clone() };
    service.ledger.replace_pod(&lease, &unnamed).await.unwrap();
    service.cluster.replaced.lock().unwrap().push((pod.clone(), proved.clone()));
    // While it proves nothing it may be another pod, and nothing is recorded.
    let progress = Arc::new(UnreachedProgress {
        failures: 1,
        silent: Some(running("c", &[])),
        known: Some(proved.clone()),
        requests: AtomicUsize::new(0),
    });
    let watching = service
        .start_with(Cluster { progress: progress.clone(), ..service.cluster.clone().into() });
    let stored = until("the pod is not named", async || {
        let stored = service.stored(&lease).await;
        stored.pod_uid.is_some().then_some(stored)
    })
    .await;
    assert_eq!((stored.pod_uid, stored.host_keys), (proved.uid, proved.host_keys));
    assert_eq!(progress.requests.load(Ordering::Relaxed), 2);
    drop(watching);
    service.cluster.replaced.lock().unwrap().push((pod, next));
    let _watching = service.start();
    let sent = until("nothing is sent of the next pod", async || {
        let statuses = service.inbox.statuses.lock().unwrap();
        (!statuses.is_empty()).then(|| statuses.clone())
    })
    .await;
    let keys: Vec<_> = sent.into_iter().map(|(_, status)| status.identity.ssh_host_keys).collect();
    assert_eq!(keys, [[NEXT_HOST_KEY]]);
}

/// Its Job does not change again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_replaced_is_requested_again_where_the_cluster_was_not_reached() {
    let service = Service::new().await;
    let lease = service.sell(&customer(1), Wants::Nothing, 3_600).await;
    let known = running("a", &[testing::HOST_KEY]);
    service.cluster.replaced.lock().unwrap().push((lease.pod(), ReadyPod::default()));
    let progress = Arc::new(UnreachedProgress {
        failures: 1,
        silent: None,
        known: Some(known.clone()),
        requests: AtomicUsize::new(0),
    });
    let cluster = Cluster { progress: progress.clone(), ..service.cluster.clone().into() };
    let _watching = service.start_with(cluster);
    until("the keys of the new pod are not stored", async || {
        (service.stored(&lease).await.host_keys == known.host_keys).then_some(())
    })
    .await;
    assert_eq!(progress.requests.load(Ordering::Relaxed), 2);
}

/// More than are looked at together.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_prove_nothing_hold_up_no_other_event() {
    let service = Service::new().await;
    for number in 0..limits::REPLACEMENTS_AT_ONCE.saturating_mul(2) {
        let lease = service.sell(&customer(number), Wants::Nothing, 3_600).await;
        service.cluster.replaced.lock().unwrap().push((lease.pod(), ReadyPod::default()));
    }
    let ended = service.sell(&customer(0), Wants::Nothing, 3_600).await;
    service.cluster.ended.lock().unwrap().insert(ended.pod(), EndReason::OutOfMemory);
    let requests = AtomicUsize::new(0);
    let progress = Arc::new(UnreachedProgress { failures: 0, silent: None, known: None, requests });
    let cluster = Cluster { progress: progress.clone(), ..service.cluster.clone().into() };
    let _watching = service.start_with(cluster);
    until("the end is not recorded", async || service.stored(&ended).await.end).await;
    until("they are not looked at", async || {
        let requests = progress.requests.load(Ordering::Relaxed);
        (requests >= limits::REPLACEMENTS_AT_ONCE).then_some(())
    })
    .await;
    assert_eq!(progress.requests.load(Ordering::Relaxed), limits::REPLACEMENTS_AT_ONCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_replaced_while_it_is_looked_at_is_looked_at_again() {
    let service = Service::new().await;
    let lease = service.sell(&customer(1), Wants::Nothing, 3_600).await;
    let ended = service.sell(&customer(2), Wants::Nothing, 3_600).await;
    service.cluster.ended.lock().unwrap().insert(ended.pod(), EndReason::OutOfMemory);
    let [first, next] = [running("a", &[testing::HOST_KEY]), running("b", &[NEXT_HOST_KEY])];
    let progress = Arc::new(HeldProgress {
        answers: Mutex::new([first, next.clone()].into()),
        gate: Gate::default(),
        requests: AtomicUsize::new(0),
    });
    let (events, receiver) = mpsc::channel(4);
    let observer = Arc::new(Reports(tokio::sync::Mutex::new(receiver)));
    let fake: Cluster = service.cluster.clone().into();
    let cluster = Cluster { progress: progress.clone(), observer, ..fake };
    let _watching = service.start_with(cluster);
    events.send(ClusterEvent::Replaced(lease.pod())).await.unwrap();
    progress.gate.reached.notified().await;
    for _ in 0..2 {
        events.send(ClusterEvent::Replaced(lease.pod())).await.unwrap();
    }
    events.send(ClusterEvent::Ended(ended.pod(), EndReason::OutOfMemory)).await.unwrap();
    until("the events are not read", async || service.stored(&ended).await.end).await;
    assert_eq!(progress.requests.load(Ordering::Relaxed), 1, "it has one task");
    progress.gate.go.notify_one();
    until("the keys of the next pod are not stored", async || {
        (service.stored(&lease).await.host_keys == next.host_keys).then_some(())
    })
    .await;
    assert_eq!(progress.requests.load(Ordering::Relaxed), 2);
}
