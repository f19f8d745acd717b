//! A cluster whose API server is busy.

use crate::support::fake::{FakeCluster, Room};
use async_trait::async_trait;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::cluster::{
    CapacitySource, Cluster, ClusterError, LeasePlan, PodValidator,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

/// A cluster with room for so many pods, which knows what they need, and validates none until it is
/// opened.
pub(crate) struct BusyCluster {
    room: u32,
    pub(crate) validating: Semaphore,
    /// How many dry runs have begun.
    pub(crate) begun: AtomicUsize,
}

impl BusyCluster {
    pub(crate) fn new(room: u32) -> Self {
        Self { room, validating: Semaphore::new(0), begun: AtomicUsize::new(0) }
    }

    pub(crate) fn with_fake_parts(self: &Arc<Self>) -> Cluster {
        let pods = Cluster::from(Arc::new(FakeCluster::default()));
        Cluster { validator: self.clone(), capacity: self.clone(), ..pods }
    }
}

/// What a dry run returns, and what is known before.
fn demand() -> Demand {
    Demand::new("a pod".to_owned())
}

struct KnownRoom(Room);

impl Capacity for KnownRoom {
    fn check(&self, reserved: &[Reservation], demand: &Demand) -> Result<(), NoCapacity> {
        self.0.check(reserved, demand)
    }
    fn fits(&self, reserved: &[Reservation], tier: &Tier) -> Result<(), NoCapacity> {
        self.0.fits(reserved, tier)
    }
    fn count(&self, reserved: &[Reservation], tier: &Tier, most: u32) -> u32 {
        self.0.count(reserved, tier, most)
    }
    fn known_demands(&self, _: &Tier) -> Vec<Demand> {
        vec![demand()]
    }
    fn utilisation(&self) -> Utilisation {
        self.0.utilisation()
    }
}

#[async_trait]
impl PodValidator for BusyCluster {
    async fn dry_run(&self, _: &LeasePlan) -> Result<Demand, ClusterError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let _open = self.validating.acquire().await.unwrap();
        Ok(demand())
    }
}

#[async_trait]
impl CapacitySource for BusyCluster {
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        Some(Arc::new(KnownRoom(Room(self.room))))
    }
}
