//! A fake cluster: pods in memory only.

use async_trait::async_trait;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::cluster::{
    CapacitySource, ClusterError, ClusterEvent, ClusterFeatures, ClusterHealth, EndReason,
    LeasePlan, PodExpiry, PodLauncher, PodObserver, PodProgress, PodRemover, PodValidator, Probe,
    ReadyPod, StartupPhase,
};
use paygress_core::backend::responder::PodReply;
use paygress_core::model::ids::PodName;
use paygress_core::model::run::ProgramState;
use paygress_core::model::units::{Seconds, UnixTime};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, mpsc};

/// A cluster that agrees to everything.
#[derive(Default)]
pub struct FakeCluster {
    /// How many pods it has room for; as many as there are ports if it is not known.
    pub room: Option<u32>,
    pub running: Mutex<HashSet<PodName>>,
    /// How many pods ran at the same time, at most.
    pub most: AtomicUsize,
    /// Pods that have ended, which it reports to whoever watches it.
    pub ended: Mutex<HashMap<PodName, EndReason>>,
    /// Pods that others run in place of, which it reports likewise.
    pub replaced: Mutex<Vec<(PodName, ReadyPod)>>,
    /// Pods whose node is lost, which was ready until 400; it reports them likewise.
    pub lost: Mutex<Vec<PodName>>,
    /// What is known of every pod.
    pub ready: ReadyPod,
    /// What is known of every pod that runs for a while.
    pub running_pod: Option<ReadyPod>,
    /// What each pod that was launched was to write.
    pub pod_replies: Mutex<Vec<Option<PodReply>>>,
    /// Holds up the pods that start.
    pub gate: Option<Arc<Gate>>,
    /// Finds out whether pods start; without it nothing keeps them from it.
    pub probe: Option<Arc<dyn Probe>>,
    /// Pods that are old, and nobody's.
    pub old: Vec<PodName>,
    /// Images that no node can pull…
    pub broken_images: Vec<&'static str>,
    /// …and the pods that were launched with them.
    pub broken: Mutex<HashSet<PodName>>,
    /// Whether its pods run their images' own programs.
    pub runs_images: bool,
    /// How often it was requested how these are.
    pub program_requests: AtomicU64,
    /// Whether pods that are ready are gone a moment later.
    pub gone: AtomicBool,
    /// The end that terminals of a pod show, and how long before they have notices.
    pub shown: Mutex<HashMap<PodName, (UnixTime, Vec<Seconds>)>>,
}

impl FakeCluster {
    /// One no node of which can pull these images.
    pub fn without_images(images: &[&'static str]) -> Self {
        Self { broken_images: images.to_vec(), ..Self::default() }
    }
}

/// A test waits until it is reached, and lets it go on.
#[derive(Default)]
pub struct Gate {
    pub reached: Notify,
    pub go: Notify,
}

/// A tier that no node is large enough for.
pub const TOO_LARGE: &str = "huge";

/// Room for so many pods.
pub struct Room(pub u32);

impl Room {
    fn left(&self, reserved: &[Reservation]) -> u32 {
        let pods = reserved.iter().filter(|reserved| reserved.demand != Demand::default()).count();
        self.0.saturating_sub(u32::try_from(pods).unwrap())
    }
}

impl Capacity for Room {
    fn check(&self, reserved: &[Reservation], _: &Demand) -> Result<(), NoCapacity> {
        if self.left(reserved) == 0 { Err(NoCapacity::Nodes) } else { Ok(()) }
    }
    fn fits(&self, reserved: &[Reservation], tier: &Tier) -> Result<(), NoCapacity> {
        if tier.id.as_str() == TOO_LARGE {
            return Err(NoCapacity::TooLarge);
        }
        self.check(reserved, &Demand::default())
    }
    fn count(&self, reserved: &[Reservation], _: &Tier, most: u32) -> u32 {
        self.left(reserved).min(most)
    }
    fn utilisation(&self) -> Utilisation {
        Utilisation { cpu: 0, memory: 0 }
    }
}

#[async_trait]
impl PodValidator for FakeCluster {
    async fn dry_run(&self, _: &LeasePlan) -> Result<Demand, ClusterError> {
        Ok(Demand::new("a pod".to_owned()))
    }
}

#[async_trait]
impl CapacitySource for FakeCluster {
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        Some(Arc::new(Room(self.room?)))
    }
}

#[async_trait]
impl PodLauncher for FakeCluster {
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        self.pod_replies.lock().unwrap().push(plan.pod_reply.clone());
        if self.broken_images.contains(&plan.placement.image.as_str()) {
            self.broken.lock().unwrap().insert(plan.lease.pod_name());
        }
        let mut running = self.running.lock().unwrap();
        running.insert(plan.lease.pod_name());
        self.most.fetch_max(running.len(), Ordering::Relaxed);
        Ok(())
    }
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        if self.broken.lock().unwrap().contains(pod) {
            return Err(ClusterError::image_failed("ErrImagePull"));
        }
        if let Some(gate) = &self.gate {
            gate.reached.notify_one();
            gate.go.notified().await;
        }
        Ok(self.ready.clone())
    }
}

#[async_trait]
impl PodProgress for FakeCluster {
    async fn startup_phase(&self, _: &PodName) -> Result<StartupPhase, ClusterError> {
        Ok(StartupPhase::Starting)
    }
    async fn image_program(&self, _: &PodName) -> Result<Option<ProgramState>, ClusterError> {
        self.program_requests.fetch_add(1, Ordering::Relaxed);
        Ok(Some(ProgramState::Running))
    }
    async fn running_pod(&self, pod: &PodName) -> Result<Option<ReadyPod>, ClusterError> {
        let replaced = self.replaced.lock().unwrap();
        let found = replaced.iter().rev().find(|(of, _)| of == pod);
        Ok(found.map(|(_, running)| running.clone()).or_else(|| self.running_pod.clone()))
    }
}

#[async_trait]
impl PodExpiry for FakeCluster {
    async fn check_running(&self, pod: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        match self.ended.lock().unwrap().contains_key(pod) {
            true => Err(ClusterError::NotFound),
            false => Ok(()),
        }
    }
    async fn set_expiry(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        if self.gone.load(Ordering::Relaxed) { Err(ClusterError::NotFound) } else { Ok(()) }
    }
    async fn show_end(
        &self,
        pod: &PodName,
        at: UnixTime,
        notices: &[Seconds],
    ) -> Result<(), ClusterError> {
        self.shown.lock().unwrap().insert(pod.clone(), (at, notices.to_vec()));
        Ok(())
    }
}

#[async_trait]
impl PodRemover for FakeCluster {
    async fn remove(&self, pod: &PodName) -> Result<(), ClusterError> {
        self.running.lock().unwrap().remove(pod);
        Ok(())
    }
}

#[async_trait]
impl PodObserver for FakeCluster {
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let replaced = self.replaced.lock().unwrap().clone();
        for (pod, _) in replaced {
            if sink.send(ClusterEvent::Replaced(pod)).await.is_err() {
                return;
            }
        }
        let ended = self.ended.lock().unwrap().clone();
        for (pod, reason) in ended {
            if sink.send(ClusterEvent::Ended(pod, reason)).await.is_err() {
                return;
            }
        }
        let lost = self.lost.lock().unwrap().clone();
        let _ = sink.send(ClusterEvent::NodeLost { pods: lost, ready_until: UnixTime(400) }).await;
        std::future::pending().await
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        Ok(self.old.clone())
    }
}

#[async_trait]
impl ClusterHealth for FakeCluster {
    async fn check(&self) -> Result<(), ClusterError> {
        Ok(())
    }
}

impl ClusterFeatures for FakeCluster {
    fn runs_images(&self) -> bool {
        self.runs_images
    }
    fn probe(&self) -> Option<&dyn Probe> {
        self.probe.as_deref()
    }
}
