//! Leases without a cluster: an SSH server on 127.0.0.1 instead of a pod.
//!
//! By [`LocalCluster::isolated`], which the demo uses, each is a process of its own that is kept
//! apart from this machine. By [`LocalCluster::in_process`], for tests and benchmarks alone, it is
//! in this process, and whoever logs in is the user who runs it. In both the guard, the port, the
//! login and the deadline hold, and everything a customer started ends with the lease.

use crate::isolation::{Isolation, Means};
use crate::pod_directory::{HOST_KEY, PodDirectory};
use crate::pod_process::PodProcess;
use async_trait::async_trait;
use paygress_cluster::guard::Allowed;
use paygress_cluster::{check_plan, lease_end};
use paygress_core::backend::capacity::Demand;
use paygress_core::backend::cluster::{
    CapacitySource, ClusterError, ClusterEvent, ClusterFeatures, ClusterHealth, EndReason,
    LeasePlan, PodExpiry, PodLauncher, PodObserver, PodProgress, PodRemover, PodValidator,
    ReadyPod, StartupPhase,
};
use paygress_core::backend::pod_streams::{ByteStream, OpenError, PodPort, PodStreams};
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::PodName;
use paygress_core::model::login::Login;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_sshd::{
    Account, LeaseEnd, Password, PrivateKey, is_set, new_host_key, parse_keys, serve,
};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

/// How many events an observer may be behind before it gets a resync.
const EVENTS: usize = 256;
/// For the kernel to close the listener of a process that was killed, and how often it is tried.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_POLL: Duration = Duration::from_millis(5);

struct Pod {
    stop: watch::Sender<bool>,
    /// None until it is set.
    expiry: watch::Sender<Option<UnixTime>>,
    /// What its terminals show; none until it is known.
    end: watch::Sender<Option<LeaseEnd>>,
    host_key: HostKey,
    port: u16,
}

struct Shared {
    pods: Mutex<HashMap<PodName, Pod>>,
    events: broadcast::Sender<ClusterEvent>,
}

/// How the servers run.
enum Runtime {
    /// With the homes of their users in this directory.
    InProcess(PathBuf),
    Isolated(Isolation),
}

/// SSH servers on 127.0.0.1. They end with this value.
pub struct LocalCluster {
    runtime: Runtime,
    shared: Arc<Shared>,
}

impl LocalCluster {
    /// Servers in this process, **without isolation**, whose users have their homes in this
    /// directory: for tests and benchmarks, which are their own customers.
    #[must_use]
    pub fn in_process(homes: PathBuf) -> Self {
        Self::new(Runtime::InProcess(homes))
    }

    /// Servers in processes of their own.
    #[must_use]
    pub fn isolated(isolation: Isolation) -> Self {
        Self::new(Runtime::Isolated(isolation))
    }

    fn new(runtime: Runtime) -> Self {
        Self {
            runtime,
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

/// What stands for the other ports of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OtherPorts {
    /// Those of this machine, which pods in this process share with it.
    OfThisMachine,
    /// Nothing: they would be those of whoever runs the demo.
    None,
}

/// The ports of the servers that run. Weak: they end with their cluster.
struct LocalPods(Weak<Shared>, OtherPorts);

#[async_trait]
impl PodStreams for LocalPods {
    async fn open(&self, pod: &PodName, port: PodPort) -> Result<Box<dyn ByteStream>, OpenError> {
        let ssh = self.0.upgrade().and_then(|shared| {
            let pods = shared.pods.lock().unwrap_or_else(PoisonError::into_inner);
            pods.get(pod).map(|pod| pod.port)
        });
        let ssh = ssh.ok_or_else(|| OpenError::new(ClusterError::NotFound))?;
        let port = match (port, self.1) {
            (PodPort::Ssh, _) => ssh,
            (PodPort::Tcp(port), OtherPorts::OfThisMachine) => port.get(),
            (PodPort::Tcp(_), OtherPorts::None) => {
                return Err(OpenError::new("pods of the demo have no port but that of SSH"));
            }
        };
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        Ok(Box::new(stream.map_err(OpenError::new)?))
    }
}

/// A new key of a server, and its public half.
fn host_keys() -> Result<(PrivateKey, HostKey), ClusterError> {
    let key = new_host_key().map_err(ClusterError::not_ready)?;
    let line = key.public_key().to_openssh().map_err(ClusterError::not_ready)?;
    Ok((key, HostKey::parse(&line).map_err(ClusterError::not_ready)?))
}

async fn listen(port: u16) -> Result<TcpListener, ClusterError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    bound.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ClusterError::port_taken(error),
        _ => ClusterError::not_ready(error),
    })
}

/// Nothing here would hold a pod to what it may connect to.
fn check(plan: &LeasePlan) -> Result<(), Refusal> {
    match check_plan(plan, &Allowed::default())?.egress {
        None => Ok(()),
        Some(_) => Err(Refusal::new(
            ErrorType::BackendError,
            "local pods have no egress rules; order another tier, or use a cluster",
        )),
    }
}

#[async_trait]
impl PodValidator for LocalCluster {
    async fn dry_run(&self, plan: &LeasePlan) -> Result<Demand, ClusterError> {
        check(plan)?;
        Ok(Demand::default())
    }
}

impl CapacitySource for LocalCluster {}

#[async_trait]
impl PodLauncher for LocalCluster {
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        check(plan)?;
        let pod = plan.lease.pod_name();
        if self.with(&pod, |_| ()).is_ok() {
            return Ok(());
        }
        // Without a port of the nodes it is at one that is free.
        let listener = listen(plan.placement.host_port.unwrap_or_default()).await?;
        let port = listener.local_addr().map_err(ClusterError::not_ready)?.port();
        let (key, host_key) = host_keys()?;
        let ((stop, stopped), end) = (watch::channel(false), watch::Sender::new(None));
        let started = match &self.runtime {
            Runtime::InProcess(homes) => {
                start_in_process(homes.join(pod.as_str()), plan, listener, key, &stopped)
            }
            Runtime::Isolated(isolation) => {
                start_isolated(isolation, plan, listener, &key, Updates::of(&stopped, &end)).await
            }
        };
        let mut server = started?;
        // Until its expiry is set the pod has all the time that was sold.
        let until_set = UnixTime::now().after(plan.sold);
        let (expiry, expires) = watch::channel(None);
        self.shared
            .pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.clone(), Pod { stop, expiry, end, host_key, port });
        // Weak: when the runtime is dropped so are the pods' stop handles, and everything ends.
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            let reason = tokio::select! {
                // A server that was stopped has ended as well.
                biased;
                reason = lifetime(until_set, expires, stopped) => reason,
                _ = &mut server => EndReason::Exited,
            };
            if let Some(shared) = shared.upgrade() {
                // Dropping its handle stops the server.
                drop(shared.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod));
            }
            if !server.is_finished() {
                let _ = server.await;
            }
            if let Some(shared) = shared.upgrade() {
                let _ = shared.events.send(ClusterEvent::Ended(pod, reason));
            }
        });
        Ok(())
    }

    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        // It listens since it was launched.
        self.with(pod, |pod| ReadyPod {
            host_keys: vec![pod.host_key.clone()],
            ..ReadyPod::default()
        })
    }
}

#[async_trait]
impl PodProgress for LocalCluster {
    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase, ClusterError> {
        self.with(pod, |_| StartupPhase::Starting)
    }
}

#[async_trait]
impl PodExpiry for LocalCluster {
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

    async fn show_end(
        &self,
        pod: &PodName,
        at: UnixTime,
        notices: &[Seconds],
    ) -> Result<(), ClusterError> {
        let Some(end) = lease_end(at, notices) else { return Ok(()) };
        self.with(pod, |pod| {
            pod.end.send_if_modified(|known| {
                let is_later =
                    known.as_ref().is_none_or(|known| known.expires_at() < end.expires_at());
                if is_later {
                    *known = Some(end);
                }
                is_later
            });
        })
    }
}

#[async_trait]
impl PodRemover for LocalCluster {
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
}

#[async_trait]
impl PodObserver for LocalCluster {
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

    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        // Nothing here outlives the process that sold it.
        Ok(Vec::new())
    }
}

#[async_trait]
impl ClusterHealth for LocalCluster {
    async fn check(&self) -> Result<(), ClusterError> {
        Ok(())
    }
}

impl ClusterFeatures for LocalCluster {
    fn pod_streams(&self) -> Option<Arc<dyn PodStreams>> {
        let others = match self.runtime {
            Runtime::InProcess(_) => OtherPorts::OfThisMachine,
            Runtime::Isolated(_) => OtherPorts::None,
        };
        Some(Arc::new(LocalPods(Arc::downgrade(&self.shared), others)))
    }
}

/// Gives the task that ends with the server.
fn start_in_process(
    home: PathBuf,
    plan: &LeasePlan,
    listener: TcpListener,
    key: PrivateKey,
    stopped: &watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ClusterError> {
    std::fs::create_dir_all(&home).map_err(ClusterError::not_ready)?;
    let account = account(&plan.login, home.clone()).map_err(ClusterError::not_ready)?;
    let stopped = stopped.clone();
    Ok(tokio::spawn(async move {
        serve(listener, account, key, stopped).await;
        let _ = std::fs::remove_dir_all(&home);
    }))
}

/// What an isolated pod is brought in its life.
struct Updates {
    stopped: watch::Receiver<bool>,
    end: watch::Receiver<Option<LeaseEnd>>,
}

impl Updates {
    fn of(stopped: &watch::Receiver<bool>, end: &watch::Sender<Option<LeaseEnd>>) -> Self {
        Self { stopped: stopped.clone(), end: end.subscribe() }
    }

    /// Gives the pod each end of its lease, until it is stopped.
    async fn run(mut self, directory: &PodDirectory) {
        loop {
            tokio::select! {
                () = is_set(&mut self.stopped) => return,
                changed = self.end.changed() => if changed.is_err() { return },
            }
            let end = self.end.borrow_and_update().clone();
            let written = end.map_or(Ok(()), |end| directory.write_end(&end.to_json()));
            if let Err(error) = written {
                tracing::warn!(%error, "terminals of a local pod do not show its end");
            }
        }
    }
}

/// Gives the task that ends when nothing of the pod is left, its port included.
async fn start_isolated(
    isolation: &Isolation,
    plan: &LeasePlan,
    listener: TcpListener,
    key: &PrivateKey,
    updates: Updates,
) -> Result<JoinHandle<()>, ClusterError> {
    let port = listener.local_addr().map_err(ClusterError::not_ready)?.port();
    let key = key.to_openssh(Default::default()).map_err(ClusterError::not_ready)?;
    let files = plan.login.files().map(|(name, content)| (name, content.as_bytes()));
    let login: Vec<_> = files.chain([(HOST_KEY, key.as_bytes())]).collect();
    let directory = isolation.directory(port, plan.login.username.as_str(), &login);
    let directory = directory.map_err(ClusterError::not_ready)?;
    let name = plan.lease.pod_name();
    let mut command = isolation.command(&directory, name.as_str(), "serve");
    command.stdin(OwnedFd::from(listener.into_std().map_err(ClusterError::not_ready)?));
    let started = PodProcess::start(command, isolation.cleanup(&directory)).await;
    let mut process = started.map_err(ClusterError::not_ready)?;
    let means = isolation.means();
    Ok(tokio::spawn(async move {
        tokio::select! {
            () = updates.run(&directory) => {}
            () = process.ended() => {}
        }
        if means == Means::Nothing {
            process.terminate().await;
        }
        process.kill();
        process.ended().await;
        wait_until_free(port).await;
        drop(directory);
    }))
}

async fn wait_until_free(port: u16) {
    let begun = Instant::now();
    while TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_err()
        && begun.elapsed() < CLOSE_TIMEOUT
    {
        tokio::time::sleep(CLOSE_POLL).await;
    }
}

fn account(login: &Login, home: PathBuf) -> Result<Account, paygress_sshd::Error> {
    let password = login.password.as_ref();
    let password = password.map_or(Password::none(), |password| Password::new(password.expose()));
    let keys = parse_keys(login.public_key.as_deref().unwrap_or_default())?;
    Ok(Account { keys, ..Account::new(login.username.as_str(), password, home) })
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
            () = is_set(&mut stop) => return EndReason::Removed,
        }
    }
}
