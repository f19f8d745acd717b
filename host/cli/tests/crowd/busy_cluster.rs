//! A cluster whose API server is busy.

use crate::support::fake::{FakeCluster, Room};
use async_trait::async_trait;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::cluster::{
    Cluster, ClusterError, ClusterEvent, LeasePlan, ReadyPod, StartupPhase,
};
use paygress_core::model::ids::PodName;
use paygress_core::model::units::UnixTime;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Semaphore, mpsc};

/// A cluster with room for so many pods, which knows what they need, and validates none until it is
/// opened.
pub(crate) struct BusyCluster {
    pods: FakeCluster,
    room: u32,
    pub(crate) validating: Semaphore,
    /// How many dry runs have begun.
    pub(crate) begun: AtomicUsize,
}

impl BusyCluster {
    pub(crate) fn new(room: u32) -> Self {
        let (pods, validating) = (FakeCluster::default(), Semaphore::new(0));
        Self { pods, room, validating, begun: AtomicUsize::new(0) }
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
impl Cluster for BusyCluster {
    async fn dry_run(&self, _: &LeasePlan) -> Result<Demand, ClusterError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let _open = self.validating.acquire().await.unwrap();
        Ok(demand())
    }
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        Some(Arc::new(KnownRoom(Room(self.room))))
    }
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        self.pods.launch(plan).await
    }
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        self.pods.ready(pod).await
    }
    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase, ClusterError> {
        self.pods.startup_phase(pod).await
    }
    async fn check_running(&self, pod: &PodName, at: UnixTime) -> Result<(), ClusterError> {
        self.pods.check_running(pod, at).await
    }
    async fn set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<(), ClusterError> {
        self.pods.set_expiry(pod, at).await
    }
    async fn remove(&self, pod: &PodName) -> Result<(), ClusterError> {
        self.pods.remove(pod).await
    }
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        self.pods.observe(sink).await
    }
    async fn check(&self) -> Result<(), ClusterError> {
        self.pods.check().await
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        self.pods.list_orphan_candidates().await
    }
}
