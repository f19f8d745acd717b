//! Notices before the end of a pod and at it, on fake backends and a real ledger.

mod replacements;

use crate::support::customer::until;
use crate::support::fake::{FakeCluster, FakeWallet, Gate, Generous, settings};
use async_trait::async_trait;
use paygress_core::backend::cluster::{
    Cluster, ClusterError, EndReason, PodProgress, ReadyPod, StartupPhase,
};
use paygress_core::backend::responder::{ReplyTo, Responder, SendError};
use paygress_core::backend::store::{LeaseStore, LeaseUpdate, OrderStore, Repetition};
use paygress_core::limits;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::{Customer, LeaseId, MessageId, OrderId, PodName, PodUid};
use paygress_core::model::lease::{Lease, LeaseState};
use paygress_core::model::order::{Purchase, State};
use paygress_core::model::secret::Secret;
use paygress_core::model::ssh_host::SshHost;
use paygress_core::model::units::{Sat, Seconds, UnixTime};
use paygress_core::orders::{Backends, NewOrder, OrderService, Settings, Stage};
use paygress_core::protocol::{EndNotice, Response, StatusResponse};
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const NEXT_HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzI";

/// What customers get, through a relay that takes its time.
#[derive(Default)]
struct SlowInbox {
    received: Mutex<Vec<(Customer, EndNotice)>>,
    statuses: Mutex<Vec<(Customer, StatusResponse)>>,
    sending: AtomicUsize,
    most: AtomicUsize,
}

impl SlowInbox {
    fn notices(&self, of: &Customer) -> Vec<EndNotice> {
        let received = self.received.lock().unwrap();
        received.iter().filter(|(to, _)| to == of).map(|(_, notice)| notice.clone()).collect()
    }
}

#[async_trait]
impl Responder for SlowInbox {
    async fn send(&self, to: &ReplyTo, response: &Response) -> Result<(), SendError> {
        let sending = self.sending.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.most.fetch_max(sending, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let customer = to.customer.clone().unwrap();
        match response {
            Response::Notice(notice) => {
                self.received.lock().unwrap().push((customer, notice.clone()));
            }
            Response::Status(status) => {
                self.statuses.lock().unwrap().push((customer, status.clone()));
            }
            _ => {}
        }
        self.sending.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Service {
    ledger: Arc<SqlStore>,
    cluster: Arc<FakeCluster>,
    inbox: Arc<SlowInbox>,
    _directory: TempDir,
}

/// A process that follows the leases, until it is dropped.
struct Watching(Arc<OrderService>, JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.1.abort();
    }
}

impl Service {
    async fn new() -> Self {
        let directory = fast_directory().unwrap();
        let ledger = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await.unwrap();
        Self {
            ledger: Arc::new(ledger.with_reserve(0)),
            cluster: Arc::default(),
            inbox: Arc::default(),
            _directory: directory,
        }
    }

    fn orders(&self) -> Arc<OrderService> {
        self.orders_with(self.cluster.clone().into())
    }

    fn orders_with(&self, cluster: Cluster) -> Arc<OrderService> {
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: Arc::new(Generous),
            cluster,
            ledger: self.ledger.clone(),
            responder: self.inbox.clone(),
        };
        let end_notices = vec![Seconds(600), Seconds(60)];
        OrderService::new(Settings { end_notices, ..settings() }, backends)
    }

    fn start(&self) -> Watching {
        self.start_with(self.cluster.clone().into())
    }

    fn start_with(&self, cluster: Cluster) -> Watching {
        let orders = self.orders_with(cluster);
        let watching = tokio::spawn(Arc::clone(&orders).watch());
        Watching(orders, watching)
    }

    /// A pod that this customer has had for an hour, and that ends in so many seconds.
    async fn sell(&self, of: &Customer, wants: Wants, ends_in: u64) -> Lease {
        let mut order = testing::order(testing::spawn(), State::Received).unwrap();
        order.message = MessageId::parse(order.id.as_str()).unwrap();
        order.reply_to.customer = Some(of.clone());
        if wants == Wants::Notices {
            order.reply_to = order.reply_to.with_notices();
        }
        self.ledger.open(&order, Repetition::ByContent).await.unwrap();
        let now = UnixTime::now();
        let (created_at, ends) = (now.minus(Seconds(3_600)), now.after(Seconds(ends_in)));
        let mut lease = testing::lease(LeaseId::of(&order.id), created_at.0, ends.0);
        lease.customer = Some(of.clone());
        order.state = testing::order_state(&order.purchase, State::Active);
        let update = LeaseUpdate::Put(&lease);
        self.ledger.transition(&order, State::Received, update).await.unwrap();
        self.ledger.delivered(&order.id, State::Active).await.unwrap();
        lease
    }

    /// This customer has added time to a pod, and wants notices.
    async fn extend(&self, lease: &Lease, by: &Customer) {
        let more = Purchase::TopUp { pod: lease.pod() };
        let mut order = testing::order(more, State::Received).unwrap();
        order.message = MessageId::parse(order.id.as_str()).unwrap();
        order.reply_to.customer = Some(by.clone());
        order.reply_to = order.reply_to.with_notices();
        self.ledger.open(&order, Repetition::ByContent).await.unwrap();
        order.state = testing::order_state(&order.purchase, State::Active);
        self.ledger.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
        self.ledger.delivered(&order.id, State::Active).await.unwrap();
    }

    async fn stored(&self, lease: &Lease) -> Lease {
        self.ledger.lease(&lease.pod()).await.unwrap().unwrap()
    }

    /// Waits until this customer has got so many notices.
    async fn received(&self, of: &Customer, count: usize) -> Vec<EndNotice> {
        until("a notice was not sent", async || {
            let notices = self.inbox.notices(of);
            (notices.len() >= count).then_some(notices)
        })
        .await
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Notices,
    Nothing,
}

fn customer(number: usize) -> Customer {
    Customer::parse(&format!("{number:064x}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_sent_when_it_is_due_and_not_again_after_a_restart() {
    let service = Service::new().await;
    let (alice, bob, quiet) = (customer(1), customer(2), customer(3));
    // The last notice is due in ten seconds: the first is sent before.
    let lease = service.sell(&alice, Wants::Notices, 70).await;
    service.sell(&quiet, Wants::Nothing, 70).await;
    // The one of ten minutes before was missed: one says as much as two.
    let watching = service.start();
    let first = service.received(&alice, 1).await;
    assert_eq!(first[0].pod_name, lease.pod().to_string());
    let last = service.received(&alice, 2).await.pop().unwrap();
    assert!((50..=60).contains(&last.time_remaining_seconds), "{last:?}");
    assert_eq!(last.end_reason, None);
    until("the notice is not recorded", async || {
        (service.stored(&lease).await.noticed_at
            == lease.expires_at.map(|at| at.minus(Seconds(60))))
        .then_some(())
    })
    .await;
    drop(watching);
    service.sell(&bob, Wants::Notices, 59).await;
    let _watching = service.start();
    // The leases are looked at together.
    service.received(&bob, 1).await;
    assert_eq!(service.inbox.notices(&alice).len(), 2);
    assert_eq!(service.inbox.notices(&quiet), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_moves_the_notices() {
    let service = Service::new().await;
    let (alice, bob) = (customer(1), customer(2));
    let lease = service.sell(&alice, Wants::Notices, 70).await;
    service.sell(&bob, Wants::Notices, 70).await;
    let orders = service.orders();
    let answer = orders
        .submit(NewOrder {
            repetition: Repetition::ByContent,
            message: MessageId::parse(OrderId::random()).unwrap(),
            reply_to: ReplyTo {
                transport: "fake".to_owned(),
                customer: Some(alice.clone()),
                address: std::collections::BTreeMap::new(),
            },
            network: None,
            token: Secret::new("10-1"),
            purchase: Purchase::TopUp { pod: lease.pod() },
            password: None,
        })
        .await
        .unwrap()
        .answer()
        .await
        .unwrap();
    assert!(matches!(answer, Response::ToppedUp(_)), "{answer:?}");
    let _watching = service.start();
    service.received(&bob, 2).await;
    assert_eq!(service.inbox.notices(&alice), [], "they have just learned when it ends");
    let extended = service.stored(&lease).await;
    let old_end = lease.expires_at.unwrap();
    assert_eq!(extended.expires_at, Some(old_end.after(Seconds(600))));
    let shown = until("terminals do not show the new end", async || {
        service.cluster.shown.lock().unwrap().get(&lease.pod()).cloned()
    })
    .await;
    assert_eq!(shown, (old_end.after(Seconds(600)), vec![Seconds(600), Seconds(60)]));
    assert!(extended.noticed_at.unwrap() < old_end, "those before the new end are still to come");
    let progress = orders.progress(&lease.pod(), &alice).await.unwrap();
    assert_eq!(progress.notice, None, "more than ten minutes are left");
    let progress = orders.progress(&lease_of(&service, &bob).await.pod(), &bob).await.unwrap();
    assert_eq!((progress.stage, progress.notice), (Stage::Expiring, Some(Seconds(60))));
}

/// As after a crash between the launch and the annotation of the pod.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_were_sold_by_an_earlier_process_show_their_ends() {
    let service = Service::new().await;
    let mut leases = Vec::new();
    for number in 0..limits::ENDS_SHOWN_AT_ONCE.saturating_mul(3) {
        leases.push(service.sell(&customer(number), Wants::Nothing, 3_600).await);
    }
    let _watching = service.start();
    for lease in &leases {
        let shown = until("a pod does not show its end", async || {
            service.cluster.shown.lock().unwrap().get(&lease.pod()).cloned()
        })
        .await;
        assert_eq!(shown, (lease.expires_at.unwrap(), vec![Seconds(600), Seconds(60)]));
    }
}

async fn lease_of(service: &Service, customer: &Customer) -> Lease {
    service.ledger.live_leases(Some(customer)).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_an_end_is_in_message_status_and_events() {
    let service = Service::new().await;
    let (alice, quiet) = (customer(1), customer(2));
    let lease = service.sell(&alice, Wants::Notices, 3_600).await;
    let other = service.sell(&quiet, Wants::Nothing, 3_600).await;
    for lease in [&lease, &other] {
        let mut ended = service.cluster.ended.lock().unwrap();
        ended.insert(lease.pod(), EndReason::OutOfMemory);
    }
    let watching = service.start();
    let notice = service.received(&alice, 1).await.remove(0);
    assert_eq!(
        (notice.end_reason, notice.time_remaining_seconds),
        (Some(EndReason::OutOfMemory), 0)
    );
    let orders = &watching.0;
    let status = orders.status(&lease.pod(), &alice).await.unwrap();
    assert_eq!(status.end_reason, Some(EndReason::OutOfMemory));
    let progress = orders.progress(&lease.pod(), &alice).await.unwrap();
    assert_eq!((progress.stage, progress.end_reason), (Stage::Ended, status.end_reason));
    until("the other pod does not end", async || {
        service.stored(&other).await.end.is_some().then_some(())
    })
    .await;
    assert_eq!(service.inbox.notices(&quiet), []);
}

/// Its Job goes on, and its pod is still listed: the loss alone ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_node_is_lost_is_removed_and_its_customer_learns_why() {
    let service = Service::new().await;
    let (alice, bob) = (customer(1), customer(2));
    let lease = service.sell(&alice, Wants::Notices, 3_600).await;
    let other = service.sell(&bob, Wants::Notices, 3_600).await;
    for lease in [&lease, &other] {
        service.cluster.running.lock().unwrap().insert(lease.pod());
    }
    service.cluster.lost.lock().unwrap().push(lease.pod());
    let watching = service.start();
    let notice = service.received(&alice, 1).await.remove(0);
    assert_eq!(notice.end_reason, Some(EndReason::NodeLost));
    let stored = service.stored(&lease).await;
    assert_eq!((stored.state, stored.end), (LeaseState::Ended, Some(EndReason::NodeLost)));
    // It had ten minutes, until 700, for 10 sat; nothing was served after 400, whenever that is found.
    let orders = service.ledger.orders_of(&lease.id).await.unwrap();
    assert_eq!(orders[0].state.refund_due(), Some(Sat(5)));
    assert_eq!(orders[0].state.served_until(), Some(UnixTime(400)));
    assert_eq!(orders[0].state.used(), Some(Seconds(300)));
    assert!(!service.cluster.running.lock().unwrap().contains(&lease.pod()));
    // It is reported as long as something is left of it.
    drop(watching);
    let third = service.sell(&bob, Wants::Notices, 3_600).await;
    service.cluster.lost.lock().unwrap().push(third.pod());
    let _watching = service.start();
    service.received(&bob, 1).await;
    assert_eq!(service.inbox.notices(&alice).len(), 1);
    assert_eq!(service.stored(&other).await.state, LeaseState::Live, "on another node");
}

/// Where a template has its containers restarted, the cluster replaces a pod that is lost: the new
/// one has a new disk, and host keys of its own.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_pod_that_another_one_replaces_learns_its_host_keys_once() {
    let service = Service::new().await;
    let (alice, quiet) = (customer(1), customer(2));
    let lease = service.sell(&alice, Wants::Notices, 3_600).await;
    service.extend(&lease, &customer(3)).await;
    let other = service.sell(&quiet, Wants::Nothing, 3_600).await;
    let host_keys = vec![HostKey::parse(testing::HOST_KEY).unwrap()];
    let ssh_host = Some(SshHost::parse("node-2.example.com").unwrap());
    let running =
        ReadyPod { host_keys: host_keys.clone(), root: true, ssh_host, ..ReadyPod::default() };
    for lease in [&lease, &other] {
        service.cluster.replaced.lock().unwrap().push((lease.pod(), running.clone()));
    }
    let watching = service.start();
    let sent =
        until("nothing is sent", async || service.inbox.statuses.lock().unwrap().first().cloned());
    let (to, status) = sent.await;
    assert_eq!((to, status.pod_name), (alice, lease.pod().to_string()));
    assert_eq!(status.identity.ssh_host_keys, [testing::HOST_KEY]);
    assert_eq!(status.ssh_host, "node-2.example.com", "it may be on another node");
    until("the keys of the other pod are not stored", async || {
        (service.stored(&other).await.host_keys == host_keys).then_some(())
    })
    .await;
    let status = watching.0.status(&other.pod(), &quiet).await.unwrap();
    assert_eq!(status.identity.ssh_host_keys, [testing::HOST_KEY]);
    assert_eq!(status.ssh_host, "node-2.example.com");
    // Terminals of the new pods know nothing of their end.
    for lease in [&lease, &other] {
        let shown = until("terminals do not show the end", async || {
            service.cluster.shown.lock().unwrap().get(&lease.pod()).cloned()
        })
        .await;
        assert_eq!(Some(shown.0), lease.expires_at);
    }
    // The watch reports it again after a restart; of a third pod last, so that it is waited for.
    drop(watching);
    let third = service.sell(&quiet, Wants::Nothing, 3_600).await;
    service.cluster.replaced.lock().unwrap().push((third.pod(), running));
    let _watching = service.start();
    until("the keys of the third pod are not stored", async || {
        (service.stored(&third).await.host_keys == host_keys).then_some(())
    })
    .await;
    assert_eq!(service.inbox.statuses.lock().unwrap().len(), 1);
}

/// What it knows of a running pod, one answer after the other; the first one is held up.
struct HeldProgress {
    answers: Mutex<VecDeque<ReadyPod>>,
    gate: Gate,
    requests: AtomicUsize,
}

#[async_trait]
impl PodProgress for HeldProgress {
    async fn startup_phase(&self, _: &PodName) -> Result<StartupPhase, ClusterError> {
        Ok(StartupPhase::Starting)
    }
    async fn running_pod(&self, _: &PodName) -> Result<Option<ReadyPod>, ClusterError> {
        let answer = self.answers.lock().unwrap().pop_front();
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.gate.reached.notify_one();
            self.gate.go.notified().await;
        }
        Ok(answer)
    }
}

/// One replica opens a terminal in a pod while another one learns that a new pod runs in its place.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_a_pod_that_is_gone_does_not_replace_the_host_keys_of_the_next_one() {
    let service = Service::new().await;
    let alice = customer(1);
    let lease = service.sell(&alice, Wants::Nothing, 3_600).await;
    let pod = lease.pod();
    let [gone, running] = [("a", testing::HOST_KEY), ("b", NEXT_HOST_KEY)].map(|(uid, key)| {
        let host_keys = vec![HostKey::parse(key).unwrap()];
        ReadyPod { uid: PodUid::parse(uid).ok(), host_keys, ..ReadyPod::default() }
    });
    let progress = Arc::new(HeldProgress {
        answers: Mutex::new([gone, running.clone()].into()),
        gate: Gate::default(),
        requests: AtomicUsize::new(0),
    });
    let cluster = Cluster { progress: progress.clone(), ..service.cluster.clone().into() };
    let replica = service.orders_with(cluster);
    let terminal = {
        let pod = pod.clone();
        tokio::spawn(async move { replica.proved_login(&pod, &alice).await })
    };
    progress.gate.reached.notified().await;
    service.cluster.replaced.lock().unwrap().push((pod, running.clone()));
    let _watching = service.start();
    until("the keys of the new pod are not stored", async || {
        (service.stored(&lease).await.host_keys == running.host_keys).then_some(())
    })
    .await;
    progress.gate.go.notify_one();
    let login = terminal.await.unwrap().unwrap();
    assert_eq!(login.host_keys, running.host_keys);
    let stored = service.stored(&lease).await;
    assert_eq!((stored.host_keys, stored.pod_uid), (running.host_keys, running.uid));
    assert_eq!(progress.requests.load(Ordering::Relaxed), 2, "it is requested again");
}

/// Many pods may end in the same second: an operator who reboots sells them together.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_notices_at_once_few_are_sent_at_the_same_time() {
    const PODS: usize = 200;
    let service = Service::new().await;
    for number in 0..PODS {
        service.sell(&customer(number), Wants::Notices, 300).await;
    }
    let begun = Instant::now();
    let _watching = service.start();
    until("not all notices were sent", async || {
        (service.inbox.received.lock().unwrap().len() == PODS).then_some(())
    })
    .await;
    let most = service.inbox.most.load(Ordering::Relaxed);
    println!("{PODS} notices in {:.2?}, {most} at a time", begun.elapsed());
    assert!(most <= limits::NOTICES_AT_ONCE, "{most} at a time");
}
