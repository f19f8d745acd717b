//! The cluster: leases are dry-run, launched, extended and observed, each by a trait of its own.

pub use crate::backend::probe::{Neighbours, NetworkIsolation, ProbeProblem};
pub use crate::model::lease::{EndReason, Ending, PortKind};

use crate::backend::capacity::{Capacity, Demand, Tier};
use crate::backend::pod_streams::PodStreams;
use crate::backend::responder::PodReply;
use crate::model::decision::{Placement, Rendered};
use crate::model::host_key::HostKey;
use crate::model::ids::{LeaseId, PodName, PodUid, PublicKey, TierId};
use crate::model::lease::Lease;
use crate::model::login::Login;
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::{ProgramState, Run};
use crate::model::ssh_host::SshHost;
use crate::model::units::{Seconds, UnixTime};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The port that a pod's SSH server listens on by default: unprivileged, since not every pod has
/// root.
pub const CONTAINER_PORT: u16 = 2222;
/// Where a pod finds its login, as files.
pub const LOGIN_MOUNT_PATH: &str = "/run/paygress/login";

/// All that is needed to run a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePlan {
    pub lease: LeaseId,
    /// The id of its tier.
    pub tier: TierId,
    /// What the host has fixed.
    pub placement: Placement,
    /// What the policy made of it; not trusted.
    pub rendered: Rendered,
    /// How the customer logs in.
    pub login: Login,
    /// The time that was sold; it counts from readiness.
    pub sold: Seconds,
    /// What runs in it.
    pub run: Run,
    /// What the pod writes to its customer by itself, before anything of the customer runs in it.
    /// Where it cannot, nothing else changes.
    pub pod_reply: Option<PodReply>,
}

impl From<&LeasePlan> for Tier {
    fn from(plan: &LeasePlan) -> Self {
        Self { id: plan.tier.clone(), resources: plan.placement.resources }
    }
}

/// The cause of a [`ClusterError`].
pub type ClusterErrorSource = Arc<dyn Error + Send + Sync>;

/// Why the cluster did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClusterError {
    /// Rejected for a reason that a retry does not change.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The port is taken on every node: another one may do.
    #[error("the port is taken: {0}")]
    PortTaken(#[source] ClusterErrorSource),
    /// The pod did not become ready in time. Customers see the cause.
    #[error("the pod did not become ready: {0}")]
    NotReady(#[source] ClusterErrorSource),
    /// The pod's image could not be pulled or started. Customers see the cause.
    #[error("the pod did not become ready: {0}")]
    ImageFailed(#[source] ClusterErrorSource),
    /// No node took the pod in time, or the host's SSH server could not be put into it: the image
    /// that the customer has named was not tried. Customers see the cause.
    #[error("the pod did not become ready: {0}")]
    NotScheduled(#[source] ClusterErrorSource),
    /// The pod has ended, or never was.
    #[error("the pod is gone")]
    NotFound,
    /// Unreachable, or it failed: a later retry may succeed.
    #[error("the cluster cannot be reached: {0}")]
    Unavailable(#[source] ClusterErrorSource),
}

impl ClusterError {
    pub fn port_taken(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::PortTaken(Arc::from(source.into()))
    }

    pub fn not_ready(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::NotReady(Arc::from(source.into()))
    }

    pub fn image_failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::ImageFailed(Arc::from(source.into()))
    }

    pub fn not_scheduled(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::NotScheduled(Arc::from(source.into()))
    }

    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(source.into()))
    }
}

impl From<ClusterError> for Refusal {
    /// What the customer sees.
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Refused(refusal) => refusal,
            ClusterError::PortTaken(_) => Self::new(
                ErrorType::ResourceUnavailable,
                "no node has the reserved port free; try again later",
            ),
            ClusterError::NotReady(why) | ClusterError::NotScheduled(why) => did_not_start(&why),
            ClusterError::ImageFailed(why) => {
                did_not_start(&why).with_end_reason(EndReason::ImageFailed)
            }
            ClusterError::NotFound => {
                Self::new(ErrorType::LeaseExpired, "the pod has ended; order a new one")
            }
            ClusterError::Unavailable(_) => Self::new(
                ErrorType::BackendError,
                "the cluster cannot be reached right now; try again later",
            ),
        }
    }
}

fn did_not_start(why: &ClusterErrorSource) -> Refusal {
    Refusal::new(ErrorType::ProvisioningError, format!("the pod did not start: {why}"))
}

/// What the cluster reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// This pod has ended for good; its port is free.
    Ended(PodName, EndReason),
    /// The cluster has started another pod in its place, which takes logins: the disk and the host
    /// keys of the one before are gone, and its node may be another one: see
    /// [`PodProgress::running_pod`].
    Replaced(PodName),
    /// The node of these pods is lost: nobody knows whether they run, and their customers do not reach
    /// them. It was last known to be ready at `ready_until`.
    NodeLost { pods: Vec<PodName>, ready_until: UnixTime },
    /// These pods, and no others, are there.
    Resync(Vec<PodName>),
}

/// How far a launched pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupPhase {
    /// No node has it yet.
    Waiting,
    /// A node has it.
    Scheduled,
    /// The node fetches its image.
    Pulling,
    /// It runs, and does not take logins yet.
    Starting,
}

/// What is known of a pod that takes logins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyPod {
    /// Which pod it is; none where the cluster does not name it.
    #[serde(default)]
    pub uid: Option<PodUid>,
    /// The public keys of its SSH server, made in the pod; none where they are not known.
    pub host_keys: Vec<HostKey>,
    /// Whether its customer is root in it.
    #[serde(default)]
    pub root: bool,
    /// The key with which it has written to its customer, with the same host keys.
    #[serde(default)]
    pub pod_key: Option<PublicKey>,
    /// Where customers reach its node; none where they reach all pods at the same host.
    #[serde(default)]
    pub ssh_host: Option<SshHost>,
}

impl ReadyPod {
    /// What a lease knows of its pod. Where it does not know whether its customer is root, they are not.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        Self {
            uid: lease.pod_uid.clone(),
            host_keys: lease.host_keys.clone(),
            root: lease.root.unwrap_or_default(),
            pod_key: lease.pod_key.clone(),
            ssh_host: lease.ssh_host.clone(),
        }
    }

    /// The lease once it knows this of its pod, and nothing else.
    #[must_use]
    pub fn recorded_in(self, lease: Lease) -> Lease {
        let Self { uid, host_keys, root, pod_key, ssh_host } = self;
        Lease { pod_uid: uid, host_keys, root: Some(root), pod_key, ssh_host, ..lease }
    }
}

/// Finds out whether pods start, before customers pay for them.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Launches a pod as an order would, but without a port of the nodes, waits until it is ready, logs
    /// in, and removes it. None: nothing is wrong.
    async fn run(&self, plan: &LeasePlan) -> Option<ProbeProblem>;

    /// Launches a pod that tries what no customer may reach, waits until it has, and removes it. This
    /// neighbour, if there is room for it, is launched before, tried too, and removed with it. None:
    /// nothing has kept it from trying.
    async fn try_network(
        &self,
        _plan: &LeasePlan,
        _neighbour: Option<&LeasePlan>,
    ) -> Option<ProbeProblem> {
        None
    }

    /// What the latest pod that has tried has shown.
    fn network_isolation(&self) -> NetworkIsolation {
        NetworkIsolation::Unknown
    }
}

/// Validates pods, without an effect.
#[async_trait]
pub trait PodValidator: Send + Sync {
    /// Validates everything without an effect: the template guard, quota, admission, schema. What
    /// the pod needs of the cluster.
    ///
    /// # Errors
    /// What launching would meet: [`ClusterError::Refused`] with the field or the quota, or
    /// [`ClusterError::Unavailable`].
    async fn dry_run(&self, plan: &LeasePlan) -> Result<Demand, ClusterError>;

    /// Where the port of this pod is open, if it has one. Its template decides that.
    fn port_kind(&self, _plan: &LeasePlan) -> PortKind {
        PortKind::HostPort
    }
}

/// Knows what the cluster has left for pods.
#[async_trait]
pub trait CapacitySource: Send + Sync {
    /// What it has left for pods; none where that is not known.
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        None
    }

    /// Whether what it has left is not known yet, but will be: until then orders are checked by
    /// their dry run alone.
    fn is_capacity_pending(&self) -> bool {
        false
    }
}

/// Starts pods.
#[async_trait]
pub trait PodLauncher: Send + Sync {
    /// Starts the pod. Idempotent.
    ///
    /// # Errors
    /// As [`PodValidator::dry_run`].
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError>;

    /// Waits until the pod takes logins. Called again it gives the same keys, as long as the pod
    /// lives, and is not replaced ([`ClusterEvent::Replaced`]).
    ///
    /// # Errors
    /// [`ClusterError::PortTaken`], [`ClusterError::NotReady`], [`ClusterError::ImageFailed`],
    /// [`ClusterError::NotScheduled`], [`ClusterError::NotFound`], [`ClusterError::Unavailable`].
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError>;
}

/// Knows how far launched pods are.
#[async_trait]
pub trait PodProgress: Send + Sync {
    /// How far a launched pod is.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`], [`ClusterError::Unavailable`].
    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase, ClusterError>;

    /// How the image's own program is; none where the pod runs none.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`].
    async fn image_program(&self, _pod: &PodName) -> Result<Option<ProgramState>, ClusterError> {
        Ok(None)
    }

    /// What is known now of a pod that takes logins, whichever one it runs in place of: never of one that
    /// was gone when it was requested. Its server is waited for a moment, if it has to prove its host
    /// keys. None: there is none, or no more is known of it than when it became ready.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`].
    async fn running_pod(&self, _pod: &PodName) -> Result<Option<ReadyPod>, ClusterError> {
        Ok(None)
    }
}

/// Moves the end of pods that run, and shows it in them.
#[async_trait]
pub trait PodExpiry: Send + Sync {
    /// Whether the pod can be extended now.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`], [`ClusterError::Unavailable`].
    async fn check_running(&self, pod: &PodName, at: UnixTime) -> Result<(), ClusterError>;

    /// Lets the pod live until `at`, without a restart. Idempotent.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`], [`ClusterError::Unavailable`].
    async fn set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<(), ClusterError>;

    /// Lets the terminals that are open in the pod show when it ends, with notices so long before.
    /// Idempotent; an end that is earlier than the last one changes nothing. Where the pod's SSH
    /// server cannot show it, it does nothing.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`], [`ClusterError::NotFound`], [`ClusterError::Refused`] where a
    /// right is missing.
    async fn show_end(
        &self,
        _pod: &PodName,
        _at: UnixTime,
        _notices: &[Seconds],
    ) -> Result<(), ClusterError> {
        Ok(())
    }
}

/// Removes pods.
#[async_trait]
pub trait PodRemover: Send + Sync {
    /// Removes the pod and everything that belongs to it, and waits until its port is free. Of a pod
    /// whose node is lost ([`ClusterEvent::NodeLost`]) that is as soon as nothing starts it again.
    /// Idempotent.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`].
    async fn remove(&self, pod: &PodName) -> Result<(), ClusterError>;

    /// The end of this pod is recorded: how it ended need not be kept any longer. Idempotent.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`].
    async fn forget(&self, _pod: &PodName) -> Result<(), ClusterError> {
        Ok(())
    }
}

/// Reports which pods are there.
#[async_trait]
pub trait PodObserver: Send + Sync {
    /// Reports events until the receiver is dropped. Events may be missed; a resync makes up for
    /// it.
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>);

    /// The pods of this operator that are orphans unless a ledger knows them: those that were made
    /// longer ago than [`crate::limits::ORPHAN_AGE`].
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`].
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError>;
}

/// Checks the connection with the cluster.
#[async_trait]
pub trait ClusterHealth: Send + Sync {
    /// Whether it can be reached and permits listing our pods.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`].
    async fn check(&self) -> Result<(), ClusterError>;
}

/// What not every cluster has.
pub trait ClusterFeatures: Send + Sync {
    /// Whether customers are root in the pods that are launched now.
    fn root(&self) -> bool {
        false
    }

    /// Whether pods may run what their images start by themselves.
    fn runs_images(&self) -> bool {
        false
    }

    /// How to find out whether pods start; none where nothing keeps them from it.
    fn probe(&self) -> Option<&dyn Probe> {
        None
    }

    /// The way to the ports of its pods from here; none where there is none.
    fn pod_streams(&self) -> Option<Arc<dyn PodStreams>> {
        None
    }
}

/// Where pods run, split by caller. One value may be every part ([`From`]); tests replace those that
/// they are about.
#[derive(Clone)]
pub struct Cluster {
    pub validator: Arc<dyn PodValidator>,
    pub capacity: Arc<dyn CapacitySource>,
    pub launcher: Arc<dyn PodLauncher>,
    pub progress: Arc<dyn PodProgress>,
    pub expiry: Arc<dyn PodExpiry>,
    pub remover: Arc<dyn PodRemover>,
    pub observer: Arc<dyn PodObserver>,
    pub health: Arc<dyn ClusterHealth>,
    pub features: Arc<dyn ClusterFeatures>,
}

impl<C> From<Arc<C>> for Cluster
where
    C: PodValidator
        + CapacitySource
        + PodLauncher
        + PodProgress
        + PodExpiry
        + PodRemover
        + PodObserver
        + ClusterHealth
        + ClusterFeatures
        + 'static,
{
    fn from(cluster: Arc<C>) -> Self {
        Self {
            validator: cluster.clone(),
            capacity: cluster.clone(),
            launcher: cluster.clone(),
            progress: cluster.clone(),
            expiry: cluster.clone(),
            remover: cluster.clone(),
            observer: cluster.clone(),
            health: cluster.clone(),
            features: cluster,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::OrderId;
    use crate::testing;

    #[test]
    fn a_lease_knows_of_its_pod_what_was_recorded_last() {
        let first = ReadyPod {
            uid: PodUid::parse("a").ok(),
            host_keys: vec![HostKey::parse(testing::HOST_KEY).unwrap()],
            root: true,
            pod_key: Some(PublicKey::from_bytes([7; 32])),
            ssh_host: SshHost::parse("203.0.113.7").ok(),
        };
        let mut lease = testing::lease(LeaseId::of(&OrderId::random()), 1, 2);
        assert_eq!(ReadyPod::of(&lease), ReadyPod::default());
        for running in [first, ReadyPod::default()] {
            lease = running.clone().recorded_in(lease);
            assert_eq!(ReadyPod::of(&lease), running);
        }
        assert_eq!(lease.root, Some(false), "it is known");
    }

    #[test]
    fn an_error_keeps_its_source_and_customers_see_why_a_pod_did_not_start() {
        let cause = || std::io::Error::other("no space left");
        let constructors: [fn(std::io::Error) -> ClusterError; 5] = [
            ClusterError::port_taken,
            ClusterError::not_ready,
            ClusterError::image_failed,
            ClusterError::not_scheduled,
            ClusterError::unavailable,
        ];
        for constructor in constructors {
            let error = constructor(cause());
            assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("no space left"));
            let refusal = Refusal::from(error.clone());
            let is_image = matches!(error, ClusterError::ImageFailed(_));
            let is_start = is_image
                || matches!(error, ClusterError::NotReady(_) | ClusterError::NotScheduled(_));
            assert_eq!(refusal.message.contains("no space left"), is_start, "{error}");
            assert_eq!(refusal.end_reason, is_image.then_some(EndReason::ImageFailed), "{error}");
        }
    }
}
