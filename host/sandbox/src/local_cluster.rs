//! Leases without a cluster: an SSH server on 127.0.0.1 instead of a pod.
//!
//! **No isolation**: whoever logs in is the user who runs this process. What holds: the guard, the
//! port, the login, the deadline, and that everything a customer started ends with the lease.

use async_trait::async_trait;
use paygress_cluster::check_plan;
use paygress_cluster::guard::Allowed;
use paygress_core::backend::capacity::Demand;
use paygress_core::backend::cluster::{
    Cluster, ClusterError, ClusterEvent, EndReason, LeasePlan, ReadyPod, StartupPhase,
};
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::PodName;
use paygress_core::model::login::Login;
use paygress_core::model::units::UnixTime;
use paygress_sshd::{Account, Password, new_host_key, parse_keys, serve};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};

/// How many events an observer may be behind before it gets a resync.
const EVENTS: usize = 256;

struct Pod {
    stop: watch::Sender<bool>,
    /// None until it is set.
    expiry: watch::Sender<Option<UnixTime>>,
    host_key: HostKey,
}

struct Shared {
    pods: Mutex<HashMap<PodName, Pod>>,
    events: broadcast::Sender<ClusterEvent>,
}

/// SSH servers on 127.0.0.1. They end with this value.
pub struct LocalCluster {
    homes: PathBuf,
    shared: Arc<Shared>,
}

impl LocalCluster {
    /// Servers whose users have their homes in this directory.
    #[must_use]
    pub fn new(homes: PathBuf) -> Self {
        Self {
            homes,
            shared: Arc::new(Shared {
                pods: Mutex::default(),
                events: broadcast::Sender::new(EVENTS),
            }),
        }
    }

    fn with<T>(&self, pod: &PodName, work: impl FnOnce(&Pod) -> T) -> Result<T, ClusterError> {
        self.shared
            .pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(pod)
            .map(work)
            .ok_or(ClusterError::NotFound)
    }
}

#[async_trait]
impl Cluster for LocalCluster {
    async fn dry_run(&self, plan: &LeasePlan) -> Result<Demand, ClusterError> {
        check_plan(plan, &Allowed::default())?;
        Ok(Demand::default())
    }

    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        check_plan(plan, &Allowed::default())?;
        let pod = plan.lease.pod_name();
        if self.with(&pod, |_| ()).is_ok() {
            return Ok(());
        }
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, plan.placement.host_port)).await;
        let listener = bound.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => ClusterError::port_taken(error),
            _ => ClusterError::not_ready(error),
        })?;
        let home = self.homes.join(pod.as_str());
        std::fs::create_dir_all(&home).map_err(ClusterError::not_ready)?;
        let account = account(&plan.login, home.clone()).map_err(ClusterError::not_ready)?;
        let key = new_host_key().map_err(ClusterError::not_ready)?;
        let line = key.public_key().to_openssh().map_err(ClusterError::not_ready)?;
        let host_key = HostKey::parse(&line).map_err(ClusterError::not_ready)?;
        let (stop, stopped) = watch::channel(false);
        // Until its expiry is set the pod has all the time that was sold.
        let until_set = UnixTime::now().after(plan.sold);
        let (expiry, expires) = watch::channel(None);
        self.shared
            .pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.clone(), Pod { stop, expiry, host_key });
        let server = tokio::spawn(serve(listener, account, key, stopped.clone()));
        // Weak: when the runtime is dropped so are the pods' stop handles, and everything ends.
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            let reason = lifetime(until_set, expires, stopped).await;
            if let Some(shared) = shared.upgrade() {
                // Dropping its handle stops the server.
                drop(shared.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod));
            }
            let _ = server.await;
            let _ = std::fs::remove_dir_all(&home);
            if let Some(shared) = shared.upgrade() {
                let _ = shared.events.send(ClusterEvent::Ended(pod, reason));
            }
        });
        Ok(())
    }

    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        // It listens since it was launched.
        self.with(pod, |pod| ReadyPod { host_keys: vec![pod.host_key.clone()] })
    }

    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase, ClusterError> {
        self.with(pod, |_| StartupPhase::Starting)
    }

    async fn check_running(&self, pod: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        self.with(pod, |_| ())
    }

    async fn set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<(), ClusterError> {
        self.with(pod, |pod| {
            pod.expiry.send_if_modified(|expiry| {
                let later = Some(at) > *expiry;
                *expiry = (*expiry).max(Some(at));
                later
            });
        })
    }

    async fn remove(&self, pod: &PodName) -> Result<(), ClusterError> {
        let mut events = self.shared.events.subscribe();
        if self.with(pod, |pod| pod.stop.send_replace(true)).is_err() {
            return Ok(());
        }
        while !matches!(events.recv().await, Ok(ClusterEvent::Ended(ended, _)) if ended == *pod)
            && self.with(pod, |_| ()).is_ok()
        {}
        Ok(())
    }

    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let mut events = self.shared.events.subscribe();
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => ClusterEvent::Resync(
                    self.shared
                        .pods
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .keys()
                        .cloned()
                        .collect(),
                ),
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if sink.send(event).await.is_err() {
                return;
            }
        }
    }

    async fn check(&self) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        // Nothing here outlives the process that sold it.
        Ok(Vec::new())
    }
}

fn account(login: &Login, home: PathBuf) -> Result<Account, paygress_sshd::Error> {
    let password = login.password.as_ref();
    Ok(Account {
        username: login.username.clone(),
        aliases: Vec::new(),
        password: password.map_or(Password::none(), |password| Password::new(password.expose())),
        keys: parse_keys(login.public_key.as_deref().unwrap_or_default())?,
        shell: PathBuf::from("/bin/sh"),
        home,
        environment: Vec::new(),
    })
}

/// Waits until the time is over or the pod is stopped.
async fn lifetime(
    until_set: UnixTime,
    mut expiry: watch::Receiver<Option<UnixTime>>,
    mut stop: watch::Receiver<bool>,
) -> EndReason {
    loop {
        let left = expiry.borrow_and_update().unwrap_or(until_set).since(UnixTime::now());
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(left.0)) => {
                if expiry.borrow().unwrap_or(until_set) <= UnixTime::now() {
                    return EndReason::Expired;
                }
            }
            changed = expiry.changed() => if changed.is_err() { return EndReason::Removed },
            stopped = async { stop.wait_for(|stop| *stop).await.is_ok() } => {
                let _ = stopped;
                return EndReason::Removed;
            }
        }
    }
}
