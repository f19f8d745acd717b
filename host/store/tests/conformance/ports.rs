use crate::support::new_lease_id;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::store::PortAllocator;
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
    ports.release_port(&b).await.unwrap();
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
