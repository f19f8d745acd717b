use crate::support::{customer, lease_of, move_to, new_lease_id, open, order, sell, top_up};
use paygress_core::backend::cluster::{EndReason, Ending, ReadyPod};
use paygress_core::backend::store::{LeaseUpdate, Ledger, LedgerError, PodUpdate};
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::{LeaseId, PodUid, PublicKey};
use paygress_core::model::order::{Lease, LeaseState, Order, State};
use paygress_core::model::ssh_host::SshHost;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_core::testing;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A lease that ends at 1 000.
async fn live_lease(ledger: &dyn Ledger) -> Lease {
    let mut order = order("e0", &["e0"]);
    open(ledger, &order).await;
    let lease = lease_of(&order, 41_000, 1_000);
    move_to(ledger, &mut order, State::Decided, LeaseUpdate::Put(&lease)).await;
    lease
}

async fn extend(ledger: &dyn Ledger, lease: &Lease, seconds: u64) -> Order {
    let name = format!("e{seconds}");
    let mut order = top_up(lease, &name);
    open(ledger, &order).await;
    let update = LeaseUpdate::Extend(&lease.pod(), Seconds(seconds));
    move_to(ledger, &mut order, State::Provisioning, update).await;
    order
}

async fn end_of(ledger: &dyn Ledger, lease: &Lease) -> Option<UnixTime> {
    ledger.lease(&lease.pod()).await.unwrap().unwrap().expires_at
}

pub(crate) async fn extensions_at_the_same_time_add_up(ledger: Arc<dyn Ledger>) {
    let sold = live_lease(&*ledger).await;
    let tasks = [10, 200, 3_000].map(|seconds| {
        let (ledger, sold) = (Arc::clone(&ledger), sold.clone());
        tokio::spawn(async move { extend(&*ledger, &sold, seconds).await })
    });
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(end_of(&*ledger, &sold).await, Some(UnixTime(4_210)));
}

pub(crate) async fn an_extension_can_be_taken_back(ledger: Arc<dyn Ledger>) {
    let sold = live_lease(&*ledger).await;
    extend(&*ledger, &sold, 3_010).await;
    let mut failed = extend(&*ledger, &sold, 200).await;
    assert_eq!(end_of(&*ledger, &sold).await, Some(UnixTime(4_210)));
    let update = LeaseUpdate::Shorten(&sold.pod(), Seconds(200));
    move_to(&*ledger, &mut failed, State::RefundPending, update).await;
    assert_eq!(end_of(&*ledger, &sold).await, Some(UnixTime(4_010)));
}

pub(crate) async fn an_ended_lease_is_not_extended(ledger: Arc<dyn Ledger>) {
    let mut ended = live_lease(&*ledger).await;
    ended.state = LeaseState::Ended;
    ledger.end_lease(&ended, &[]).await.unwrap();
    assert_eq!(extend(&*ledger, &ended, 7).await.state(), State::Provisioning);
    assert_eq!(end_of(&*ledger, &ended).await, ended.expires_at);
}

/// Whoever ends a lease pays back the orders that are active then, and no others.
pub(crate) async fn what_needs_a_lease_is_not_active_after_its_end(ledger: Arc<dyn Ledger>) {
    let mut sold = live_lease(&*ledger).await;
    let (mut first, second) =
        (extend(&*ledger, &sold, 10).await, extend(&*ledger, &sold, 200).await);
    let pod = sold.pod();
    move_to(&*ledger, &mut first, State::Active, LeaseUpdate::Require(&pod)).await;
    sold.state = LeaseState::Ended;
    first.state = testing::order_state(&first.purchase, State::Ended);
    ledger.end_lease(&sold, &[first]).await.unwrap();
    let mut active = second.clone();
    active.state = testing::order_state(&second.purchase, State::Active);
    let written = ledger.transition(&active, second.state(), LeaseUpdate::Require(&pod)).await;
    assert!(matches!(written, Err(LedgerError::Conflict { .. })), "{written:?}");
    let stored = ledger.order(&second.id).await.unwrap().unwrap();
    assert_eq!(stored.state(), State::Provisioning, "nothing was written");
}

pub(crate) async fn live_leases_are_listed_by_customer(ledger: Arc<dyn Ledger>) {
    let sold = live_lease(&*ledger).await;
    for (of, listed) in [(Some("c"), true), (Some("d"), false), (None, true)] {
        let live = ledger.live_leases(of.map(customer).as_ref()).await.unwrap();
        assert_eq!(live.contains(&sold), listed, "of {of:?}");
    }
}

pub(crate) async fn a_decision_depends_on_what_is_reserved_and_on_the_customers_other_leases(
    ledger: Arc<dyn Ledger>,
) {
    let running = live_lease(&*ledger).await;
    let mut undecided = Vec::new();
    for (message, is_named) in [("own", false), ("besides", false), ("named", true)] {
        let mut order = order(message, &[message]);
        if is_named {
            order.reply_to = order.reply_to.named_by_payer();
        }
        open(&*ledger, &order).await;
        let sold = lease_of(&order, 41_000, 1_000);
        ledger.reserve_place(&sold.id, 10).await.unwrap();
        let reserved = Lease { state: LeaseState::Reserved, ..sold };
        move_to(&*ledger, &mut order, State::Decided, LeaseUpdate::Put(&reserved)).await;
        undecided.push((order, reserved));
    }
    let undecided: [(Order, Lease); 3] = undecided.try_into().unwrap();
    let [(_, own), (besides, _), (mut named, of_named)] = undecided;
    let basis = async |of: Option<&str>| {
        let of = of.map(customer);
        ledger.decision_basis(of.as_ref(), Some(&besides.id), UnixTime(200)).await.unwrap()
    };
    let leases = async |of: &str| -> BTreeSet<LeaseId> {
        let leases = basis(Some(of)).await.customer.unwrap().leases;
        leases.into_iter().map(|lease| lease.id).collect()
    };
    let mut known = BTreeSet::from([running.id.clone(), own.id.clone()]);
    assert_eq!(leases("c").await, known);
    assert_eq!(leases("d").await, BTreeSet::new());
    let of_nobody = basis(None).await;
    assert_eq!(of_nobody.customer, None);
    assert_eq!(of_nobody.reservations, ledger.reservations().await.unwrap());
    assert_eq!(of_nobody.ports_in_use, ledger.ports_in_use().await.unwrap());
    move_to(&*ledger, &mut named, State::Redeeming, LeaseUpdate::Keep).await;
    move_to(&*ledger, &mut named, State::Paid, LeaseUpdate::Keep).await;
    known.insert(of_named.id);
    assert_eq!(leases("c").await, known, "it is paid for");
}

pub(crate) async fn a_lease_is_found_by_the_key_of_its_pod(ledger: Arc<dyn Ledger>) {
    let mut order = order("k", &["k"]);
    open(&*ledger, &order).await;
    let [key, other] = [7, 8].map(|byte| PublicKey::from_bytes([byte; 32]));
    let mut sold = lease_of(&order, 41_000, 1_000);
    move_to(&*ledger, &mut order, State::Decided, LeaseUpdate::Put(&sold)).await;
    assert_eq!(ledger.lease_of_key(&key).await.unwrap(), None, "it has none yet");
    sold.pod_key = Some(key.clone());
    move_to(&*ledger, &mut order, State::Redeeming, LeaseUpdate::Put(&sold)).await;
    assert_eq!(ledger.lease_of_key(&key).await.unwrap().as_ref(), Some(&sold));
    assert_eq!(ledger.lease_of_key(&other).await.unwrap(), None);
    // A customer finds their refund when it is over.
    sold.state = LeaseState::Ended;
    ledger.end_lease(&sold, &[]).await.unwrap();
    assert_eq!(ledger.lease_of_key(&key).await.unwrap(), Some(sold));
}

pub(crate) async fn the_reason_of_an_end_is_recorded_before_it(ledger: Arc<dyn Ledger>) {
    let sold = live_lease(&*ledger).await;
    ledger.mark_ending(&sold.pod(), EndReason::Stopped.into()).await.unwrap();
    let marked = ledger.lease(&sold.pod()).await.unwrap().unwrap();
    assert_eq!((marked.state, marked.end), (LeaseState::Live, Some(EndReason::Stopped)));
    let served_until = Some(UnixTime(500));
    let lost = Ending { reason: EndReason::NodeLost, served_until };
    ledger.mark_ending(&sold.pod(), lost).await.unwrap();
    let marked = ledger.lease(&sold.pod()).await.unwrap().unwrap();
    assert_eq!(marked.end, Some(EndReason::Stopped), "the first reason counts");
    assert_eq!(marked.served_until, None, "so does its time");
}

pub(crate) async fn until_when_a_lost_pod_was_served_is_recorded_once(ledger: Arc<dyn Ledger>) {
    let sold = live_lease(&*ledger).await;
    for ready_until in [500, 400, 600] {
        let served_until = Some(UnixTime(ready_until));
        let lost = Ending { reason: EndReason::NodeLost, served_until };
        ledger.mark_ending(&sold.pod(), lost).await.unwrap();
        let marked = ledger.lease(&sold.pod()).await.unwrap().unwrap();
        assert_eq!(marked.end, Some(EndReason::NodeLost));
        assert_eq!(marked.served_until, Some(UnixTime(500)));
    }
}

pub(crate) async fn a_notice_is_recorded_once_for_each_end(ledger: Arc<dyn Ledger>) {
    let sold = live_lease(&*ledger).await;
    let (pod, end) = (sold.pod(), UnixTime(1_000));
    let mark = |end, due| ledger.mark_noticed(&pod, end, UnixTime(due));
    let (first, second) = tokio::join!(mark(end, 400), mark(end, 400));
    assert!(first.unwrap() ^ second.unwrap(), "one of two replicas gives it");
    assert!(!mark(end, 300).await.unwrap(), "a later one was given");
    assert!(!mark(UnixTime(999), 940).await.unwrap(), "it does not end then");
    assert!(mark(end, 940).await.unwrap());
    let noticed = ledger.lease(&pod).await.unwrap().unwrap();
    assert_eq!((noticed.noticed_at, noticed.expires_at), (Some(UnixTime(940)), Some(end)));
    // Who extends it learns its end.
    let now = UnixTime::now();
    extend(&*ledger, &sold, now.0).await;
    let end = UnixTime(1_000).after(Seconds(now.0));
    assert!(!mark(end, now.0.saturating_sub(1)).await.unwrap());
    assert!(mark(end, now.0.saturating_add(60)).await.unwrap());
    ledger.end_lease(&Lease { state: LeaseState::Ended, ..sold }, &[]).await.unwrap();
    assert!(!mark(end, end.0).await.unwrap(), "it has ended");
}

pub(crate) async fn what_is_known_of_a_pod_is_replaced_as_long_as_its_lease_lives(
    ledger: Arc<dyn Ledger>,
) {
    let sold = live_lease(&*ledger).await;
    let pod = sold.pod();
    let same = ReadyPod {
        uid: None,
        host_keys: sold.host_keys.clone(),
        root: true,
        pod_key: sold.pod_key.clone(),
        ssh_host: sold.ssh_host.clone(),
    };
    let replace = async |running: &ReadyPod| {
        let before = ledger.lease(&pod).await.unwrap().unwrap();
        ledger.replace_pod(&before, running).await.unwrap()
    };
    assert_eq!(replace(&same).await, PodUpdate::Unchanged);
    let [key, other_key] = [7, 8].map(|byte| PublicKey::from_bytes([byte; 32]));
    let ssh_host = Some(SshHost::parse("203.0.113.7").unwrap());
    let other = ReadyPod {
        uid: None,
        host_keys: Vec::new(),
        root: false,
        pod_key: Some(key.clone()),
        ssh_host: ssh_host.clone(),
    };
    let expected = Lease {
        host_keys: Vec::new(),
        root: Some(false),
        pod_key: Some(key.clone()),
        ssh_host,
        ..sold.clone()
    };
    assert_eq!(replace(&other).await, PodUpdate::Written(Box::new(expected.clone())));
    assert_eq!(ledger.lease(&pod).await.unwrap(), Some(expected.clone()));
    // Customers have the first key as a name of their pod.
    let third = ReadyPod { pod_key: Some(other_key.clone()), ..other.clone() };
    for later in [&third, &ReadyPod { pod_key: None, ..other }] {
        assert_eq!(replace(later).await, PodUpdate::Unchanged);
    }
    let third = ReadyPod { root: true, ..third };
    let expected = Lease { root: Some(true), ..expected };
    assert_eq!(replace(&third).await, PodUpdate::Written(Box::new(expected.clone())));
    assert_eq!(ledger.lease_of_key(&key).await.unwrap(), Some(expected.clone()));
    assert_eq!(ledger.lease_of_key(&other_key).await.unwrap(), None);
    ledger.end_lease(&Lease { state: LeaseState::Ended, ..expected }, &[]).await.unwrap();
    assert_eq!(replace(&same).await, PodUpdate::Unchanged, "it is over");
}

/// The pod of this uid, with the host key of the tests or none.
fn ready_pod(uid: &str, host_keys: &[&str]) -> ReadyPod {
    let host_keys = host_keys.iter().map(|key| HostKey::parse(key).unwrap()).collect();
    ReadyPod { uid: PodUid::parse(uid).ok(), host_keys, root: true, ..ReadyPod::default() }
}

/// As of two replicas that have both read the lease before.
pub(crate) async fn an_answer_about_a_pod_counts_until_another_is_recorded(
    ledger: Arc<dyn Ledger>,
) {
    let unnamed = live_lease(&*ledger).await;
    ledger.replace_pod(&unnamed, &ready_pod("sold", &[])).await.unwrap();
    let sold = ledger.lease(&unnamed.pod()).await.unwrap().unwrap();
    let (first, second) = (ready_pod("a", &[testing::HOST_KEY]), ready_pod("b", &[]));
    let replace = |running| ledger.replace_pod(&sold, running);
    let (one, other) = tokio::join!(replace(&first), replace(&second));
    let stored = ledger.lease(&sold.pod()).await.unwrap().unwrap();
    let (recorded, refused) = match stored.pod_uid == first.uid {
        true => (&first, &second),
        false => (&second, &first),
    };
    assert_eq!((&stored.pod_uid, &stored.host_keys), (&recorded.uid, &recorded.host_keys));
    let outcomes = [one.unwrap(), other.unwrap()];
    let written = PodUpdate::Written(Box::new(stored.clone()));
    let is_one_written = outcomes.contains(&written) && outcomes.contains(&PodUpdate::Outdated);
    assert!(is_one_written, "{outcomes:?}");
    assert_eq!(replace(refused).await.unwrap(), PodUpdate::Outdated);
    assert_eq!(replace(recorded).await.unwrap(), PodUpdate::Unchanged);
    assert_eq!(ledger.lease(&sold.pod()).await.unwrap(), Some(stored));
}

pub(crate) async fn host_keys_that_a_pod_has_proved_are_those_of_no_other(ledger: Arc<dyn Ledger>) {
    let pod = live_lease(&*ledger).await.pod();
    let stored = async || ledger.lease(&pod).await.unwrap().unwrap();
    let replace = async |before: &Lease, running: ReadyPod| {
        ledger.replace_pod(before, &running).await.unwrap()
    };
    let proved = Lease { pod_uid: PodUid::parse("a").ok(), ..stored().await };
    let update = replace(&stored().await, ready_pod("a", &[testing::HOST_KEY])).await;
    assert_eq!((update, stored().await), (PodUpdate::Identified, proved.clone()));
    let update = replace(&stored().await, ready_pod("a", &[])).await;
    assert_eq!(update, PodUpdate::Unchanged, "it has proved them before");
    // Nothing but their uids tells two pods apart that have proved no keys yet.
    let [of_second, of_third] = ["b", "c"].map(|uid| Lease {
        pod_uid: PodUid::parse(uid).ok(),
        host_keys: Vec::new(),
        ..proved.clone()
    });
    for (uid, expected) in [("b", &of_second), ("c", &of_third)] {
        let update = replace(&stored().await, ready_pod(uid, &[])).await;
        assert_eq!(update, PodUpdate::Written(Box::new(expected.clone())));
    }
    let update = replace(&of_second, ready_pod("b", &[testing::HOST_KEY])).await;
    assert_eq!(update, PodUpdate::Outdated);
    assert_eq!(stored().await, of_third);
}

/// An earlier version has sold it, and a replica of that writes it once more in a rolling update.
pub(crate) async fn a_lease_without_a_uid_has_it_recorded_and_keeps_its_host_keys(
    ledger: Arc<dyn Ledger>,
) {
    let mut order = order("e0", &["e0"]);
    open(&*ledger, &order).await;
    let unnamed = lease_of(&order, 41_000, 1_000);
    let named = Lease { pod_uid: PodUid::parse("a").ok(), ..unnamed.clone() };
    let stored = async || ledger.lease(&unnamed.pod()).await.unwrap().unwrap();
    let replace =
        async |running: ReadyPod| ledger.replace_pod(&stored().await, &running).await.unwrap();
    for state in [State::Decided, State::Active] {
        move_to(&*ledger, &mut order, state, LeaseUpdate::Put(&unnamed)).await;
        assert_eq!(replace(ready_pod("a", &[])).await, PodUpdate::Identified);
        assert_eq!(stored().await, named);
        assert_eq!(replace(ready_pod("a", &[])).await, PodUpdate::Unchanged);
    }
    let unproved = Lease { host_keys: Vec::new(), ..named };
    for running in [ready_pod("b", &[]), ready_pod("c", &[])] {
        let expected = Lease { pod_uid: running.uid.clone(), ..unproved.clone() };
        assert_eq!(replace(running).await, PodUpdate::Written(Box::new(expected)), "it is known");
    }
}

pub(crate) async fn an_end_needs_all_active_orders(ledger: Arc<dyn Ledger>) {
    let (_, mut sold) = sell(&*ledger, "l1", 42_000, 500).await;
    sold.state = LeaseState::Ended;
    let result = ledger.end_lease(&sold, &[]).await;
    assert!(matches!(result, Err(LedgerError::Conflict { .. })));
    let live = ledger.live_leases(None).await.unwrap();
    assert!(live.iter().any(|live| live.id == sold.id), "nothing was written");
}

pub(crate) async fn an_end_releases_the_port_and_writes_the_orders(ledger: Arc<dyn Ledger>) {
    let mut order = order("l1", &["l1"]);
    open(&*ledger, &order).await;
    let mut sold = lease_of(&order, 42_000, 500);
    let reserved = ledger.reserve_port(&sold.id, 42_000..=42_000).await.unwrap();
    assert_eq!(reserved, sold.port);
    move_to(&*ledger, &mut order, State::Active, LeaseUpdate::Put(&sold)).await;
    sold.state = LeaseState::Ended;
    sold.end = Some(EndReason::Expired);
    order.state = testing::order_state(&order.purchase, State::Ended);
    // Delivered after the caller has read the order.
    ledger.delivered(&order.id, State::Active).await.unwrap();
    ledger.end_lease(&sold, std::slice::from_ref(&order)).await.unwrap();
    assert_eq!(ledger.lease(&sold.pod()).await.unwrap(), Some(sold.clone()));
    assert!(!ledger.live_leases(None).await.unwrap().contains(&sold));
    let ended = ledger.order(&order.id).await.unwrap().unwrap();
    assert_eq!(
        (ended.state(), ended.state.password(), ended.delivered),
        (State::Ended, None, true)
    );
    assert_eq!(ledger.orders_of(&sold.id).await.unwrap().len(), 1);
    let reserved = ledger.reserve_port(&new_lease_id(), 42_000..=42_000).await.unwrap();
    assert_eq!(reserved, Some(42_000), "the port is free");
}
