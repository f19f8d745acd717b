use crate::support::{lease_of, move_to, new_lease_id, open, order, sell};
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::store::{LeaseUpdate, Ledger, LedgerError, PortAllocator};
use paygress_core::model::ids::LeaseId;
use paygress_core::model::order::{LeaseState, State};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Two ports.
const RANGE: RangeInclusive<u16> = 40_000..=40_001;

pub(crate) async fn a_lease_keeps_its_port(ports: Arc<dyn PortAllocator>) {
    let lease = new_lease_id();
    let first = ports.reserve_port(&lease, RANGE).await.unwrap();
    assert!(first.is_some_and(|port| RANGE.contains(&port)));
    assert_eq!(ports.reserve_port(&lease, RANGE).await.unwrap(), first);
    assert_eq!(ports.ports_in_use().await.unwrap(), 1);
}

/// What was sold goes on when the operator changes the range.
pub(crate) async fn a_lease_keeps_a_port_that_is_no_longer_in_the_range(
    ports: Arc<dyn PortAllocator>,
) {
    let (old, new) = (new_lease_id(), new_lease_id());
    assert_eq!(ports.reserve_port(&old, 30_005..=30_005).await.unwrap(), Some(30_005));
    assert_eq!(ports.reserve_port(&old, 20_000..=20_000).await.unwrap(), Some(30_005));
    assert_eq!(ports.reserve_port(&new, 20_000..=20_000).await.unwrap(), Some(20_000));
    assert_eq!(ports.ports_in_use().await.unwrap(), 2);
    ports.release_port(&old).await.unwrap();
    assert_eq!(ports.ports_in_use().await.unwrap(), 1);
}

pub(crate) async fn a_port_belongs_to_one_lease(ports: Arc<dyn PortAllocator>) {
    let (a, b, c) = (new_lease_id(), new_lease_id(), new_lease_id());
    let first = ports.reserve_port(&a, RANGE).await.unwrap().unwrap();
    let second = ports.reserve_port(&b, RANGE).await.unwrap().unwrap();
    assert_ne!(first, second);
    assert_eq!(ports.reserve_port(&c, RANGE).await.unwrap(), None, "all are taken");
    assert_eq!(ports.ports_in_use().await.unwrap(), 2);
    assert!(!ports.has_free_port(RANGE).await.unwrap());
    assert!(ports.has_free_port(40_001..=40_002).await.unwrap(), "another range");
    ports.release_port(&b).await.unwrap();
    assert!(ports.has_free_port(RANGE).await.unwrap());
    assert_eq!(ports.reserve_port(&c, RANGE).await.unwrap(), Some(second));
    ports.release_port(&a).await.unwrap();
    ports.release_port(&c).await.unwrap();
    assert_eq!(ports.ports_in_use().await.unwrap(), 0);
}

pub(crate) async fn a_lease_is_given_another_port_if_there_is_one(ports: Arc<dyn PortAllocator>) {
    let (a, b, c) = (new_lease_id(), new_lease_id(), new_lease_id());
    let first = ports.reserve_port(&a, RANGE).await.unwrap().unwrap();
    let second = ports.reserve_port(&b, RANGE).await.unwrap().unwrap();
    assert_eq!(ports.reassign_port(&a, RANGE).await.unwrap(), None, "there is no other one…");
    assert_eq!(ports.reserve_port(&a, RANGE).await.unwrap(), Some(first), "…and it keeps its own");
    ports.release_port(&b).await.unwrap();
    assert_eq!(ports.reassign_port(&a, RANGE).await.unwrap(), Some(second));
    assert_eq!(ports.reserve_port(&c, RANGE).await.unwrap(), Some(first));
}

pub(crate) async fn the_last_port_can_be_reserved(ports: Arc<dyn PortAllocator>) {
    let reserved = ports.reserve_port(&new_lease_id(), u16::MAX..=u16::MAX).await.unwrap();
    assert_eq!(reserved, Some(u16::MAX));
}

pub(crate) async fn leases_at_the_same_time_get_a_port_each(ports: Arc<dyn PortAllocator>) {
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let ports = Arc::clone(&ports);
            tokio::spawn(async move {
                ports.reserve_port(&new_lease_id(), 43_000..=43_004).await.unwrap()
            })
        })
        .collect();
    let mut reserved = Vec::new();
    for task in tasks {
        reserved.extend(task.await.unwrap());
    }
    let distinct: HashSet<_> = reserved.iter().collect();
    assert_eq!((reserved.len(), distinct.len()), (5, 5), "each once, and none is left over");
}

/// Room for so many pods.
struct Pods(usize);

impl Capacity for Pods {
    fn check(&self, reserved: &[Reservation], _: &Demand) -> Result<(), NoCapacity> {
        let counted = reserved.iter().filter(|reserved| reserved.demand != Demand::default());
        (counted.count() < self.0).then_some(()).ok_or(NoCapacity::Nodes)
    }
    fn fits(&self, reserved: &[Reservation], _: &Tier) -> Result<(), NoCapacity> {
        self.check(reserved, &Demand::default())
    }
    fn count(&self, _: &[Reservation], _: &Tier, most: u32) -> u32 {
        most
    }
    fn utilisation(&self) -> Utilisation {
        Utilisation { cpu: 0, memory: 0 }
    }
}

pub(crate) async fn leases_at_the_same_time_reserve_what_there_is(ports: Arc<dyn PortAllocator>) {
    let demand = || Demand::new("a pod".to_owned());
    let capacity = || -> Option<Arc<dyn Capacity>> { Some(Arc::new(Pods(5))) };
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let ports = Arc::clone(&ports);
            tokio::spawn(async move {
                let lease = new_lease_id();
                ports.reserve_port(&lease, 43_000..=43_019).await.unwrap().unwrap();
                let reserved = ports.reserve_capacity(&lease, &demand(), capacity()).await.unwrap();
                (lease, reserved)
            })
        })
        .collect();
    let (mut reserved, mut refused) = (Vec::new(), 0);
    for task in tasks {
        match task.await.unwrap() {
            (lease, Ok(())) => reserved.push(lease),
            (_, Err(NoCapacity::Nodes)) => refused += 1,
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!((reserved.len(), refused), (5, 7));
    // Whoever has it keeps it, and what is released is there for another one.
    let again = ports.reserve_capacity(&reserved[0], &demand(), capacity()).await.unwrap();
    assert_eq!(again, Ok(()));
    ports.release_port(&reserved[0]).await.unwrap();
    let next = new_lease_id();
    ports.reserve_port(&next, 43_000..=43_019).await.unwrap().unwrap();
    assert_eq!(ports.reserve_capacity(&next, &demand(), capacity()).await.unwrap(), Ok(()));
    assert_eq!(
        ports.reservations().await.unwrap().iter().filter(|one| one.demand == demand()).count(),
        5
    );
}

/// Another replica may know the capacity, and counts it.
pub(crate) async fn what_is_reserved_uncounted_is_recorded(ports: Arc<dyn PortAllocator>) {
    let (a, b) = (new_lease_id(), new_lease_id());
    let demand = Demand::new("a pod".to_owned());
    for lease in [&a, &b] {
        ports.reserve_port(lease, RANGE).await.unwrap().unwrap();
    }
    assert_eq!(ports.reserve_capacity(&a, &demand, None).await.unwrap(), Ok(()));
    let full = ports.reserve_capacity(&b, &demand, Some(Arc::new(Pods(1)))).await.unwrap();
    assert_eq!(full, Err(NoCapacity::Nodes));
}

pub(crate) async fn nothing_is_reserved_for_a_lease_without_a_port(ports: Arc<dyn PortAllocator>) {
    let demand = Demand::new("a pod".to_owned());
    let reserved = ports.reserve_capacity(&new_lease_id(), &demand, None).await;
    assert!(matches!(reserved, Err(LedgerError::Database(_))), "{reserved:?}");
}

pub(crate) async fn leases_without_a_port_are_counted_with_the_others(
    ports: Arc<dyn PortAllocator>,
) {
    let (with, without, refused) = (new_lease_id(), new_lease_id(), new_lease_id());
    let port = ports.reserve_port(&with, RANGE).await.unwrap();
    assert!(ports.reserve_place(&with, 1).await.unwrap(), "its port is its place");
    assert!(!ports.reserve_place(&without, 1).await.unwrap());
    for _ in 0..2 {
        assert!(ports.reserve_place(&without, 2).await.unwrap());
    }
    assert_eq!(ports.ports_in_use().await.unwrap(), 2);
    assert!(!ports.reserve_place(&refused, 2).await.unwrap());
    // It takes no port, and reserves as others do.
    assert!(ports.has_free_port(RANGE).await.unwrap());
    let demand = Demand::new("a pod".to_owned());
    assert_eq!(ports.reserve_capacity(&without, &demand, None).await.unwrap(), Ok(()));
    // The operator sells ports again.
    let reserved = ports.reserve_port(&without, RANGE).await.unwrap();
    assert!(reserved.is_some_and(|port| RANGE.contains(&port)) && reserved != port);
    ports.release_port(&without).await.unwrap();
    ports.release_port(&with).await.unwrap();
    assert_eq!(ports.ports_in_use().await.unwrap(), 0);
}

pub(crate) async fn leases_at_the_same_time_get_no_more_places_than_there_are(
    ports: Arc<dyn PortAllocator>,
) {
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let ports = Arc::clone(&ports);
            tokio::spawn(async move { ports.reserve_place(&new_lease_id(), 5).await.unwrap() })
        })
        .collect();
    let mut reserved = 0;
    for task in tasks {
        reserved += u32::from(task.await.unwrap());
    }
    assert_eq!((reserved, ports.ports_in_use().await.unwrap()), (5, 5));
}

pub(crate) async fn a_port_is_released_with_the_end_of_its_order(ledger: Arc<dyn Ledger>) {
    let (mut without, mut with) = (order("u1", &["u1"]), order("u2", &["u2"]));
    let mut ended = lease_of(&with, 40_000, 500);
    for order in [&without, &with] {
        open(&*ledger, order).await;
        ledger.reserve_port(&LeaseId::of(&order.id), RANGE).await.unwrap().unwrap();
    }
    let id = LeaseId::of(&without.id);
    move_to(&*ledger, &mut without, State::Refused, LeaseUpdate::Release(&id, None)).await;
    assert_eq!(ledger.ports_in_use().await.unwrap(), 1);
    ended.state = LeaseState::Ended;
    let update = LeaseUpdate::Release(&ended.id, Some(&ended));
    move_to(&*ledger, &mut with, State::Refused, update).await;
    assert_eq!(ledger.ports_in_use().await.unwrap(), 0);
    assert_eq!(ledger.lease(&ended.pod()).await.unwrap(), Some(ended.clone()));
    // Whoever works on it still does not get it back.
    for id in [&id, &ended.id] {
        let again = ledger.reserve_port(id, RANGE).await;
        assert!(matches!(again, Err(LedgerError::Conflict { .. })), "{again:?}");
    }
    assert_eq!(ledger.ports_in_use().await.unwrap(), 0);
}

pub(crate) async fn ports_that_nobody_has_or_will_have_are_released(ledger: Arc<dyn Ledger>) {
    let range = || 40_000..=40_009;
    // One is being made, one is live, one ends with its order, and one has neither.
    let (made, mut live, mut refused) =
        (order("v1", &["v1"]), order("v2", &["v2"]), order("v3", &["v3"]));
    for order in [&made, &live, &refused] {
        open(&*ledger, order).await;
        ledger.reserve_port(&LeaseId::of(&order.id), range()).await.unwrap().unwrap();
    }
    ledger.reserve_port(&new_lease_id(), range()).await.unwrap().unwrap();
    let lease = lease_of(&live, 40_000, 500);
    move_to(&*ledger, &mut live, State::Active, LeaseUpdate::Put(&lease)).await;
    move_to(&*ledger, &mut refused, State::Refused, LeaseUpdate::Keep).await;
    // Without a port, others are in nobody's way.
    sell(&*ledger, "v4", 40_001, 500).await;
    assert_eq!(ledger.release_unused_ports().await.unwrap(), 2);
    let mut left: Vec<LeaseId> =
        ledger.reservations().await.unwrap().into_iter().map(|one| one.lease).collect();
    let mut kept = vec![LeaseId::of(&made.id), lease.id];
    left.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    kept.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(left, kept);
    assert_eq!(ledger.release_unused_ports().await.unwrap(), 0);
}
