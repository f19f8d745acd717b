//! Pods that the cluster has started in place of others.

use super::*;

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
    let [proved, silent, next] = [
        ReadyPod { uid: None, ..running("a", &[testing::HOST_KEY]) },
        running("a", &[]),
        running("b", &[NEXT_HOST_KEY]),
    ];
    service.ledger.replace_pod(&lease, &proved).await.unwrap();
    service.cluster.replaced.lock().unwrap().push((pod.clone(), silent.clone()));
    let watching = service.start();
    let stored = until("the pod is not named", async || {
        let stored = service.stored(&lease).await;
        (stored.pod_uid == silent.uid).then_some(stored)
    })
    .await;
    assert_eq!(stored.host_keys, proved.host_keys, "its proof was silent");
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
