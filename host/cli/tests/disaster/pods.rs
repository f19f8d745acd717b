//! Pods that outlive the processes of the service, and that several of them share: files in one
//! directory, with the time of their end in them.

use async_trait::async_trait;
use paygress_core::backend::capacity::Demand;
use paygress_core::backend::cluster::{
    CapacitySource, ClusterError, ClusterEvent, ClusterFeatures, ClusterHealth, EndReason,
    LeasePlan, PodExpiry, PodLauncher, PodObserver, PodProgress, PodRemover, PodValidator,
    ReadyPod, StartupPhase,
};
use paygress_core::limits;
use paygress_core::model::ids::PodName;
use paygress_core::model::units::UnixTime;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

const POLL: Duration = Duration::from_millis(50);

/// What is wrong with the cluster, until it is taken away.
#[derive(Clone, Copy)]
pub(crate) enum Trouble {
    /// The API server refuses connections; what runs goes on.
    ApiServerAway,
    /// Pods are launched, and take no logins.
    Starting,
}

impl Trouble {
    fn file(self) -> &'static str {
        match self {
            Self::ApiServerAway => "api-server-away",
            Self::Starting => "starting",
        }
    }
}

#[derive(Clone)]
pub(crate) struct SharedPods {
    directory: PathBuf,
}

/// The nodes' clock, whatever the service's says.
fn node_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl SharedPods {
    pub(crate) fn at(directory: &Path) -> Self {
        std::fs::create_dir_all(directory.join("pods")).unwrap();
        Self { directory: directory.to_owned() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn begin(&self, trouble: Trouble) {
        std::fs::write(self.directory.join(trouble.file()), "").unwrap();
    }

    pub(crate) fn end(&self, trouble: Trouble) {
        std::fs::remove_file(self.directory.join(trouble.file())).unwrap();
    }

    fn has(&self, trouble: Trouble) -> bool {
        self.directory.join(trouble.file()).exists()
    }

    fn file(&self, pod: &PodName) -> PathBuf {
        self.directory.join("pods").join(pod.as_str())
    }

    /// The pods whose time is not over.
    pub(crate) fn running(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.directory.join("pods")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| PodName::parse(name.as_str()).is_ok_and(|pod| self.alive(&pod).is_ok()))
            .collect()
    }

    /// How long a pod still runs.
    pub(crate) fn seconds_left(&self, pod: &str) -> u64 {
        let end = std::fs::read_to_string(self.directory.join("pods").join(pod)).unwrap();
        end.parse::<u64>().unwrap().saturating_sub(node_time())
    }

    fn call(&self) -> Result<(), ClusterError> {
        match self.has(Trouble::ApiServerAway) {
            true => Err(ClusterError::unavailable("a test: connection refused")),
            false => Ok(()),
        }
    }

    fn alive(&self, pod: &PodName) -> Result<(), ClusterError> {
        let Ok(text) = std::fs::read_to_string(self.file(pod)) else {
            return Err(ClusterError::NotFound);
        };
        // Empty: it is being written.
        match text.parse::<u64>() {
            Ok(end) if end <= node_time() => Err(ClusterError::NotFound),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl PodValidator for SharedPods {
    async fn dry_run(&self, _: &LeasePlan) -> Result<Demand, ClusterError> {
        self.call().map(|()| Demand::default())
    }
}

impl CapacitySource for SharedPods {}

#[async_trait]
impl PodLauncher for SharedPods {
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        self.call()?;
        let file = self.file(&plan.lease.pod_name());
        match OpenOptions::new().write(true).create_new(true).open(file) {
            Ok(mut file) => {
                write!(file, "{}", node_time() + plan.sold.0).map_err(ClusterError::not_ready)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(ClusterError::not_ready(error)),
        }
    }
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        while self.has(Trouble::Starting) {
            self.call()?;
            tokio::time::sleep(POLL).await;
        }
        self.call()?;
        self.alive(pod).map(|()| ReadyPod::default())
    }
}

#[async_trait]
impl PodProgress for SharedPods {
    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase, ClusterError> {
        self.call()?;
        self.alive(pod).map(|()| StartupPhase::Starting)
    }
}

#[async_trait]
impl PodExpiry for SharedPods {
    async fn check_running(&self, pod: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        self.call()?;
        self.alive(pod)
    }
    async fn set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<(), ClusterError> {
        self.call()?;
        self.alive(pod)?;
        // As a deadline of Kubernetes: so much from now, by the nodes' clock.
        let end = node_time() + at.since(UnixTime::now()).0;
        std::fs::write(self.file(pod), end.to_string()).map_err(ClusterError::unavailable)
    }
}

#[async_trait]
impl PodRemover for SharedPods {
    async fn remove(&self, pod: &PodName) -> Result<(), ClusterError> {
        self.call()?;
        match std::fs::remove_file(self.file(pod)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(ClusterError::unavailable(error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl PodObserver for SharedPods {
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let mut known: Option<BTreeSet<String>> = None;
        loop {
            if !self.has(Trouble::ApiServerAway) {
                let running = self.running();
                let ended = known.iter().flatten().filter(|pod| !running.contains(*pod)).cloned();
                let ended: Vec<String> = ended.collect();
                let mut events: Vec<ClusterEvent> = Vec::new();
                if known.is_none() {
                    let pods = running.iter().map(|pod| PodName::parse(pod.as_str()).unwrap());
                    events.push(ClusterEvent::Resync(pods.collect()));
                }
                events.extend(ended.into_iter().map(|pod| {
                    ClusterEvent::Ended(PodName::parse(pod).unwrap(), EndReason::Expired)
                }));
                known = Some(running);
                for event in events {
                    if sink.send(event).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        self.call()?;
        let is_old = |pod: &PodName| {
            let modified = std::fs::metadata(self.file(pod)).and_then(|file| file.modified());
            let age = modified.ok().and_then(|at| at.elapsed().ok());
            age.is_some_and(|age| age > limits::ORPHAN_AGE)
        };
        let pods = self.running().into_iter().map(|pod| PodName::parse(pod).unwrap());
        Ok(pods.filter(is_old).collect())
    }
}

#[async_trait]
impl ClusterHealth for SharedPods {
    async fn check(&self) -> Result<(), ClusterError> {
        self.call()
    }
}

impl ClusterFeatures for SharedPods {}
