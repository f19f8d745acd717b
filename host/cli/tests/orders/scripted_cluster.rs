//! A cluster without pods, which answers as a test says.

use crate::support::fake::{FakeCluster, Room};
use async_trait::async_trait;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::cluster::{
    CapacitySource, Cluster, ClusterError, ClusterEvent, LeasePlan, PodExpiry, PodLauncher,
    PodObserver, PodRemover, PodValidator, ReadyPod,
};
use paygress_core::model::ids::PodName;
use paygress_core::model::units::UnixTime;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// What a cluster without pods answers.
#[derive(Default)]
pub(crate) struct Script {
    /// How often the port of a new pod is taken.
    pub(crate) taken: usize,
    /// The ports of the pods that were validated, in turn; 0 for none.
    pub(crate) validated: Vec<u16>,
    /// Whether no pod ever takes logins.
    pub(crate) is_broken: bool,
    /// How many pods it has room for, if that is known.
    pub(crate) room: Option<u32>,
    /// How many pods were removed.
    pub(crate) removed: usize,
    /// Why a new pod does not fit, by its tier.
    pub(crate) too_little: Option<NoCapacity>,
    /// How many of the ports that were validated first other pods have.
    pub(crate) of_others: usize,
    /// Whether what it has left is not known yet.
    pub(crate) is_listing: bool,
    /// Whether its pods are gone.
    pub(crate) is_empty: bool,
    /// What it reports to whoever watches it first.
    pub(crate) events: Vec<ClusterEvent>,
    /// Set, no deadline of a pod is set before this is closed.
    pub(crate) deadlines: Option<Arc<Semaphore>>,
    /// Learns when pods without a lease are looked for.
    pub(crate) orphan_lists: Option<mpsc::UnboundedSender<Instant>>,
}

#[derive(Default)]
pub(crate) struct ScriptedCluster(pub(crate) Mutex<Script>);

impl ScriptedCluster {
    pub(crate) fn with_fake_parts(self: &Arc<Self>) -> Cluster {
        Cluster {
            validator: self.clone(),
            capacity: self.clone(),
            launcher: self.clone(),
            expiry: self.clone(),
            remover: self.clone(),
            observer: self.clone(),
            ..Arc::new(FakeCluster::default()).into()
        }
    }

    fn running(&self) -> Result<(), ClusterError> {
        match self.0.lock().unwrap().is_empty {
            true => Err(ClusterError::NotFound),
            false => Ok(()),
        }
    }
}

pub(crate) fn demand(port: u16) -> Demand {
    Demand::new(format!("port {port}"))
}

/// What it has left for pods.
struct Left {
    room: Room,
    too_little: Option<NoCapacity>,
    /// What pods on the ports of others need.
    of_others: Vec<Demand>,
}

impl Capacity for Left {
    fn check(&self, reserved: &[Reservation], new: &Demand) -> Result<(), NoCapacity> {
        if self.of_others.contains(new) {
            return Err(NoCapacity::Port);
        }
        self.room.check(reserved, new)
    }
    fn fits(&self, reserved: &[Reservation], tier: &Tier) -> Result<(), NoCapacity> {
        self.too_little.map_or_else(|| self.room.fits(reserved, tier), Err)
    }
    fn count(&self, reserved: &[Reservation], tier: &Tier, most: u32) -> u32 {
        self.room.count(reserved, tier, most)
    }
    fn utilisation(&self) -> Utilisation {
        self.room.utilisation()
    }
}

#[async_trait]
impl PodValidator for ScriptedCluster {
    async fn dry_run(&self, plan: &LeasePlan) -> Result<Demand, ClusterError> {
        let port = plan.placement.host_port.unwrap_or_default();
        self.0.lock().unwrap().validated.push(port);
        Ok(demand(port))
    }
}

#[async_trait]
impl CapacitySource for ScriptedCluster {
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        let script = self.0.lock().unwrap();
        let of_others = script.validated.iter().take(script.of_others);
        Some(Arc::new(Left {
            room: Room(script.room.unwrap_or(u32::MAX)),
            too_little: script.too_little,
            of_others: of_others.map(|port| demand(*port)).collect(),
        }))
    }
    fn is_capacity_pending(&self) -> bool {
        self.0.lock().unwrap().is_listing
    }
}

#[async_trait]
impl PodLauncher for ScriptedCluster {
    async fn launch(&self, _: &LeasePlan) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn ready(&self, _: &PodName) -> Result<ReadyPod, ClusterError> {
        let mut script = self.0.lock().unwrap();
        if script.is_broken {
            return Err(ClusterError::not_ready("a test"));
        }
        match script.taken.checked_sub(1) {
            Some(left) => {
                script.taken = left;
                Err(ClusterError::port_taken("a test"))
            }
            None => Ok(ReadyPod::default()),
        }
    }
}

#[async_trait]
impl PodExpiry for ScriptedCluster {
    async fn check_running(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        self.running()
    }
    async fn set_expiry(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        let deadlines = self.0.lock().unwrap().deadlines.clone();
        if let Some(deadlines) = deadlines {
            let _ = deadlines.acquire().await;
        }
        self.running()
    }
}

#[async_trait]
impl PodRemover for ScriptedCluster {
    async fn remove(&self, _: &PodName) -> Result<(), ClusterError> {
        self.0.lock().unwrap().removed += 1;
        Ok(())
    }
}

#[async_trait]
impl PodObserver for ScriptedCluster {
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let events = std::mem::take(&mut self.0.lock().unwrap().events);
        for event in events {
            if sink.send(event).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        if let Some(lists) = &self.0.lock().unwrap().orphan_lists {
            let _ = lists.send(Instant::now());
        }
        Ok(Vec::new())
    }
}
