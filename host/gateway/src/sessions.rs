//! The sessions of each lease, by both ways together: how many there may be, and which one loses its
//! place to a newcomer.
//!
//! Over iroh the pod's own server authenticates, and whoever knows the name of a pod may connect, with
//! as many keys as they like. So the places of sessions that have not proved themselves are not for
//! who comes first: a newcomer takes one of them, and the customer always gets in. A session that has
//! proved itself is never cut.

use crate::limits;
use crate::origin::{Origin, of_most};
use paygress_core::keyed_limit::share;
use paygress_core::model::ids::PodName;
use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// How many bytes wait for the pod of a lease, in all its sessions by the jump host, and how many for all
/// pods.
#[derive(Clone, Default)]
pub(crate) struct WaitingBytes {
    of_lease: Arc<AtomicUsize>,
    of_all: Arc<AtomicUsize>,
}

impl WaitingBytes {
    /// For the pod of the lease.
    pub(crate) fn count(&self) -> usize {
        self.of_lease.load(Ordering::Relaxed)
    }

    /// How many the lease may have: fewer where many wait for others.
    pub(crate) fn most(&self) -> usize {
        let all = limits::WAITING_BYTES_OF_ALL;
        let free = all.saturating_sub(self.of_all.load(Ordering::Relaxed));
        share(limits::WAITING_BYTES_OF_LEASE, free, all)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.of_lease.fetch_add(bytes, Ordering::Relaxed);
        self.of_all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// As many as were added at the most.
    pub(crate) fn remove(&self, bytes: usize) {
        self.of_lease.fetch_sub(bytes, Ordering::Relaxed);
        self.of_all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct OfLease {
    waiting: Arc<AtomicUsize>,
    proven: usize,
    /// The oldest first. Dropping the sender tells the session that it has lost its place.
    unproven: BTreeMap<u64, (Origin, oneshot::Sender<()>)>,
}

impl OfLease {
    fn count(&self) -> usize {
        self.proven.saturating_add(self.unproven.len())
    }

    /// The oldest of those from where most come: the ids are in the order of age.
    fn first_to_go(&self) -> Option<u64> {
        let ids = of_most(self.unproven.iter().map(|(id, (origin, _))| (*id, *origin)));
        ids.first().copied()
    }

    /// Whether there is room for one more, if need be instead of another.
    fn make_room(&mut self) -> bool {
        let is_free = self.count() < limits::SESSIONS_OF_LEASE;
        is_free || self.first_to_go().and_then(|id| self.unproven.remove(&id)).is_some()
    }
}

#[derive(Default)]
struct Table {
    next: u64,
    /// A lease without sessions is forgotten.
    leases: HashMap<PodName, OfLease>,
}

impl Table {
    fn forget_empty(&mut self, pod: &PodName) {
        if self.leases.get(pod).is_some_and(|lease| lease.count() == 0) {
            self.leases.remove(pod);
        }
    }
}

/// All sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    table: Arc<Mutex<Table>>,
    waiting: Arc<AtomicUsize>,
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Standing {
    Proven,
    Unproven { id: u64, lost: oneshot::Receiver<()> },
}

/// A session's place, until it is dropped.
pub(crate) struct Place {
    table: Arc<Mutex<Table>>,
    pod: PodName,
    waiting: WaitingBytes,
    standing: Standing,
}

impl Sessions {
    /// A session of somebody who has logged in; none if the lease has as many of these as it may.
    pub(crate) fn begin(&self, pod: &PodName) -> Option<Place> {
        let mut table = lock(&self.table);
        let lease = table.leases.entry(pod.clone()).or_default();
        lease.make_room().then(|| {
            lease.proven = lease.proven.saturating_add(1);
            self.place(pod, lease, Standing::Proven)
        })
    }

    /// A session of anybody; none if the lease has as many as it may that have proved themselves.
    pub(crate) fn begin_unproven(&self, pod: &PodName, origin: Origin) -> Option<Place> {
        let mut table = lock(&self.table);
        let id = table.next;
        table.next = id.wrapping_add(1);
        let lease = table.leases.entry(pod.clone()).or_default();
        if lease.unproven.len() >= limits::UNPROVEN_SESSIONS_OF_LEASE
            && let Some(first) = lease.first_to_go()
        {
            lease.unproven.remove(&first);
        }
        lease.make_room().then(|| {
            let (sender, lost) = oneshot::channel();
            lease.unproven.insert(id, (origin, sender));
            self.place(pod, lease, Standing::Unproven { id, lost })
        })
    }

    /// Makes room in all leases: of the sessions that have not proved themselves and come from where most
    /// of these do, the oldest loses its place. Whether there is one.
    pub(crate) fn drop_unproven(&self) -> bool {
        let mut table = lock(&self.table);
        let unproven = table.leases.values().flat_map(|lease| &lease.unproven);
        let ids = of_most(unproven.map(|(id, (origin, _))| (*id, *origin)));
        let Some(oldest) = ids.into_iter().min() else { return false };
        table.leases.values_mut().any(|lease| lease.unproven.remove(&oldest).is_some())
    }

    fn place(&self, pod: &PodName, lease: &OfLease, standing: Standing) -> Place {
        let (of_lease, of_all) = (Arc::clone(&lease.waiting), Arc::clone(&self.waiting));
        let waiting = WaitingBytes { of_lease, of_all };
        Place { table: Arc::clone(&self.table), pod: pod.clone(), waiting, standing }
    }
}

impl Place {
    /// Of all sessions of the lease, and of all.
    pub(crate) fn waiting(&self) -> WaitingBytes {
        self.waiting.clone()
    }

    /// Waits until another session has taken this place. None does once `proof` has returned.
    pub(crate) async fn lost(&mut self, proof: impl Future<Output = ()>) {
        if let Standing::Unproven { lost, .. } = &mut self.standing {
            tokio::select! {
                biased;
                _ = lost => return,
                () = proof => {}
            }
            if !self.prove() {
                return;
            }
        }
        pending().await
    }

    /// Fails if it has lost its place.
    fn prove(&mut self) -> bool {
        let Standing::Unproven { id, .. } = self.standing else { return true };
        let mut table = lock(&self.table);
        let Some(lease) = table.leases.get_mut(&self.pod) else { return false };
        if lease.unproven.remove(&id).is_none() {
            return false;
        }
        lease.proven = lease.proven.saturating_add(1);
        drop(table);
        self.standing = Standing::Proven;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if let Some(lease) = table.leases.get_mut(&self.pod) {
            match self.standing {
                Standing::Proven => lease.proven = lease.proven.saturating_sub(1),
                Standing::Unproven { id, .. } => drop(lease.unproven.remove(&id)),
            }
        }
        table.forget_empty(&self.pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::net::{IpAddr, Ipv6Addr};

    const ALL: usize = limits::SESSIONS_OF_LEASE;
    const UNPROVEN: usize = limits::UNPROVEN_SESSIONS_OF_LEASE;

    fn pod() -> PodName {
        PodName::parse("ssh-pod-aaaaaaaaaa").unwrap()
    }

    /// One of each provider's.
    fn network(number: usize) -> Origin {
        Some([198, u8::try_from(number).unwrap(), 2, 7].into())
    }

    fn is_lost(place: &mut Place) -> bool {
        match &mut place.standing {
            Standing::Proven => false,
            Standing::Unproven { lost, .. } => {
                lost.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed)
            }
        }
    }

    async fn prove(place: &mut Place) {
        tokio::select! {
            biased;
            () = place.lost(ready(())) => panic!("it is lost"),
            () = ready(()) => {}
        }
    }

    /// The name of a pod is no secret: it is in the URL of its HTTP port.
    #[test]
    fn who_holds_all_places_without_proof_loses_the_oldest_to_a_newcomer() {
        let sessions = Sessions::default();
        let begin = |origin| sessions.begin_unproven(&pod(), origin).expect("a newcomer gets in");
        let mut held: Vec<Place> = (0..UNPROVEN).map(|_| begin(None)).collect();
        assert!(held.iter_mut().all(|place| !is_lost(place)));
        let mut customer = begin(None);
        let lost: Vec<bool> = held.iter_mut().map(is_lost).collect();
        assert_eq!(lost.iter().filter(|lost| **lost).count(), 1);
        assert!(lost[0] && !is_lost(&mut customer), "the oldest goes, the newest stays");
        let more: Vec<Place> = (0..1_000).map(|_| begin(None)).collect();
        assert_eq!(lock(&sessions.table).leases[&pod()].count(), UNPROVEN);
        assert!(is_lost(&mut customer), "to so many from where it comes from");
        drop((held, more, customer));
        assert!(lock(&sessions.table).leases.is_empty(), "a lease without sessions is forgotten");
    }

    #[test]
    fn who_fills_the_places_from_one_network_takes_none_of_another() {
        let sessions = Sessions::default();
        let begin = |origin| sessions.begin_unproven(&pod(), origin).unwrap();
        let mut customer = begin(network(1));
        let mut others: Vec<Place> = (0..1_000).map(|_| begin(None)).collect();
        others.extend((0..1_000).map(|_| begin(network(2))));
        assert!(!is_lost(&mut customer));
        // Of many networks with one place each, it is the oldest that goes.
        others.extend((3..UNPROVEN - 10).map(|number| begin(network(number))));
        assert!(!is_lost(&mut customer), "there were some with more");
        others.extend((0..UNPROVEN).map(|number| begin(network(100 + number))));
        assert!(is_lost(&mut customer));
    }

    /// A site of IPv6 has 65 536 networks, and costs nothing; a provider has as many sites.
    #[test]
    fn who_comes_from_all_networks_of_a_site_or_provider_takes_no_place_of_another() {
        for (name, host_bits) in [("site", 64), ("provider", 80)] {
            let sessions = Sessions::default();
            let begin = |origin| sessions.begin_unproven(&pod(), origin).unwrap();
            let mut customer = begin(network(1));
            let address = |number: u128| {
                let bits = (0x2001_0db8_u128 << 96) | (number << host_bits);
                Some(IpAddr::from(Ipv6Addr::from_bits(bits)))
            };
            let _flood: Vec<Place> = (0..1_000).map(|number| begin(address(number))).collect();
            assert!(!is_lost(&mut customer), "{name}");
        }
    }

    #[tokio::test]
    async fn a_session_that_has_proved_itself_stays() {
        let sessions = Sessions::default();
        let mut first = sessions.begin_unproven(&pod(), None).unwrap();
        prove(&mut first).await;
        let mut proven = vec![first];
        let mut others: Vec<Place> =
            (0..1_000).map(|_| sessions.begin_unproven(&pod(), None).unwrap()).collect();
        assert!(!is_lost(&mut proven[0]));
        // Who has logged in takes the places of those who have not.
        proven.extend((1..ALL).map(|_| sessions.begin(&pod()).unwrap()));
        assert!(others.iter_mut().all(is_lost));
        assert!(sessions.begin(&pod()).is_none(), "there is an end to these");
        assert!(sessions.begin_unproven(&pod(), None).is_none());
        let other = PodName::parse("ssh-pod-bbbbbbbbbb").unwrap();
        assert!(sessions.begin(&other).is_some(), "others have theirs");
        drop(others);
        assert!(sessions.begin(&pod()).is_none(), "a lost place is not given back twice");
        drop(proven);
        assert!(lock(&sessions.table).leases.is_empty());
    }

    #[tokio::test]
    async fn room_in_all_leases_is_made_by_those_from_where_most_come() {
        let sessions = Sessions::default();
        let pods = ["a", "b"].map(|end| PodName::parse(format!("ssh-pod-{end:a<10}")).unwrap());
        let [mut customer, mut first, mut second] = [(0, 1), (1, 2), (0, 2)]
            .map(|(pod, origin)| sessions.begin_unproven(&pods[pod], network(origin)).unwrap());
        for expected in [[false, true, false], [true, true, false], [true; 3]] {
            assert!(sessions.drop_unproven());
            let all = [&mut customer, &mut first, &mut second];
            assert_eq!(all.map(is_lost), expected);
        }
        let mut proven = sessions.begin_unproven(&pods[0], network(1)).unwrap();
        prove(&mut proven).await;
        assert!(!sessions.drop_unproven(), "there is no other");
        assert!(!is_lost(&mut proven));
    }

    #[test]
    fn what_waits_is_counted_for_each_lease() {
        let sessions = Sessions::default();
        let other = PodName::parse("ssh-pod-bbbbbbbbbb").unwrap();
        let places = [pod(), pod(), other].map(|pod| sessions.begin(&pod).unwrap());
        places[0].waiting().add(7);
        places[1].waiting().remove(3);
        assert_eq!(places.each_ref().map(|place| place.waiting().count()), [4, 4, 0]);
    }

    #[tokio::test]
    async fn what_is_lost_cannot_be_proved() {
        let sessions = Sessions::default();
        let mut first = sessions.begin_unproven(&pod(), None).unwrap();
        let _others: Vec<Place> =
            (0..UNPROVEN).map(|_| sessions.begin_unproven(&pod(), None).unwrap()).collect();
        first.lost(pending()).await;
        assert!(!first.prove());
    }
}
