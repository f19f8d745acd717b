//! Leases on a Kubernetes cluster.

mod creation;
mod examine;
mod lease_end;
mod lookup;
mod node;
mod node_loss;
mod observe;
mod reach;
mod ready;
mod removal;
mod room;

use crate::capacity::CapacityWatch;
use crate::check_plan::check_plan;
use crate::connection::{ConnectError, client, with_timeout};
use crate::image_program::has_node_port;
use crate::isolation::NetworkFindings;
use crate::objects::{EXPIRES, JobSettings, LEASE, Objects, deadline, selector, ttl};
use crate::pod_reply::ReplyStep;
use crate::pod_streams::KubernetesPods;
use crate::pod_watch::PodWatch;
use crate::recent_pods::RecentPods;
use crate::requests::{Result, cluster_error, is_gone, request};
use crate::settings::{RunImage, Settings, SshServerVolume};
use crate::ssh_server::{PodForm, PodUser, ServerVolume, SshServer};
use crate::status::{UNSCHEDULABLE, ended, finished, is_ready, program_state, startup_phase};
use crate::stream_permits::StreamPermits;
use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use paygress_core::backend::capacity::{Capacity, Demand, Tier};
use paygress_core::backend::cluster::{
    CapacitySource, ClusterError, ClusterEvent, ClusterFeatures, ClusterHealth, LeasePlan,
    PodExpiry, PodLauncher, PodObserver, PodProgress, PodRemover, PodValidator, PortKind, Probe,
    ReadyPod, StartupPhase,
};
use paygress_core::backend::pod_streams::PodStreams;
use paygress_core::limits::ORPHAN_AGE;
use paygress_core::logged_failures::LoggedFailures;
use paygress_core::model::ids::PodName;
use paygress_core::model::run::{ProgramState, Run};
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_sshd::HostKeySecret;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Attempts to raise a deadline while another client writes the same Job.
const CONFLICT_RETRIES: usize = 10;
const FIELD_MANAGER: &str = "paygress";
/// How many Jobs are in memory while all of them are listed: each is some kilobytes as text, and
/// several times that when it is read.
const JOBS_PAGE: u32 = 500;

/// The pods of one namespace. A lease is a Job that owns the lease's Secret, its Services and, where its
/// template says what the pod may connect to, its NetworkPolicy.
///
/// ```no_run
/// use paygress_cluster::guard::Allowed;
/// use paygress_cluster::{
///     Kubernetes, PodRoot, PodRoute, RunImage, Settings, SshHostFrom, SshServerVolume,
/// };
/// use paygress_core::backend::cluster::ClusterHealth;
/// use paygress_core::model::access::AccessModes;
/// use paygress_core::model::secret::Secret;
/// use paygress_core::model::units::Seconds;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = Settings {
///     namespace: "user-workloads".to_owned(),
///     instance: "example".to_owned(),
///     ready_within: Seconds(120),
///     ttl: Seconds(300),
///     allowed: Allowed::default(),
///     extra_capacity: None,
///     ssh_server_image: None,
///     ssh_server_volume: SshServerVolume::Auto,
///     host_key_seed: Secret::new("of this service alone"),
///     contact: None,
///     root: PodRoot::Never,
///     run_image: RunImage::Never,
///     probe: false,
///     reply_from_pod: false,
///     ssh_host_from: SshHostFrom::Setting,
///     node_lost_after: Seconds(300),
///     route: PodRoute::Auto,
///     access: AccessModes::default(),
/// };
/// let cluster = Kubernetes::connect(None, settings).await?;
/// cluster.check().await?;
/// # Ok(())
/// # }
/// ```
pub struct Kubernetes {
    settings: Settings,
    client: Client,
    jobs: Api<Job>,
    pods: Api<Pod>,
    secrets: Api<Secret>,
    services: Api<Service>,
    policies: Api<NetworkPolicy>,
    /// Begun by the first request for it.
    capacity: OnceLock<CapacityWatch>,
    /// Whether a probe pod has been root of a user namespace, and how it had its SSH server.
    form: Mutex<PodForm>,
    /// Whether the latest probe pod with its image's own program did not start.
    is_image_program_failing: AtomicBool,
    /// Whether the latest probe pod could not be reached for a login.
    is_login_unknown: AtomicBool,
    /// What the latest pod that has tried has shown; none: none has.
    findings: Mutex<Option<NetworkFindings>>,
    replies: Mutex<Replies>,
    /// The probe pods that are launched, and not removed yet.
    probes: Mutex<BTreeSet<PodName>>,
    /// The names of the nodes that are lost.
    lost_nodes: Mutex<BTreeSet<String>>,
    pod_watch: PodWatch,
    /// Of the requests for pods that are waited for, together.
    pod_failures: LoggedFailures,
}

/// What pods are to write to their customers that have no node yet.
type Replies = HashMap<PodName, Secret>;

/// The result of one attempt to raise a deadline.
enum ExpiryUpdate {
    Done,
    /// Another client wrote the Job in between.
    Conflict,
}

impl Kubernetes {
    /// Connects with this kubeconfig, or `$KUBECONFIG`, or as a pod of the cluster. Sends nothing
    /// yet.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        kubeconfig: Option<&Path>,
        settings: Settings,
    ) -> std::result::Result<Self, ConnectError> {
        let client = client(kubeconfig).await?;
        let namespace = &settings.namespace;
        // Until a probe pod has found more.
        let volume = match settings.ssh_server_volume {
            SshServerVolume::Image if !settings.reply_from_pod => ServerVolume::Image,
            _ => ServerVolume::Copy,
        };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        Ok(Self {
            pod_watch: PodWatch::new(pods.clone(), selector(&settings.instance)),
            jobs: Api::namespaced(client.clone(), namespace),
            pods,
            secrets: Api::namespaced(client.clone(), namespace),
            services: Api::namespaced(client.clone(), namespace),
            policies: Api::namespaced(client.clone(), namespace),
            client,
            settings,
            capacity: OnceLock::new(),
            form: Mutex::new(PodForm { user: PodUser::Template, volume }),
            is_image_program_failing: AtomicBool::new(false),
            is_login_unknown: AtomicBool::new(false),
            findings: Mutex::new(None),
            replies: Mutex::default(),
            probes: Mutex::default(),
            lost_nodes: Mutex::default(),
            pod_failures: LoggedFailures::default(),
        })
    }

    fn capacity_watch(&self) -> &CapacityWatch {
        let Settings { namespace, allowed, extra_capacity, .. } = &self.settings;
        self.capacity.get_or_init(|| {
            CapacityWatch::begin(self.client.clone(), namespace, allowed, extra_capacity.clone())
        })
    }

    /// How long a pod may be unschedulable. A node that an autoscaler adds for it takes minutes.
    fn unschedulable_within(&self) -> Duration {
        match self.settings.extra_capacity {
            Some(_) => Duration::from_secs(self.settings.ready_within.0),
            None => UNSCHEDULABLE,
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a probe pod has found.
    pub(crate) fn set_form(&self, form: PodForm) {
        *self.form.lock().unwrap_or_else(PoisonError::into_inner) = form;
    }

    /// What a probe pod with its image's own program has found.
    pub(crate) fn set_image_program_failing(&self, is_failing: bool) {
        self.is_image_program_failing.store(is_failing, Ordering::Relaxed);
    }

    /// Notes whether a probe pod could not be reached for a login; whether that was so before.
    pub(crate) fn set_login_unknown(&self, is_unknown: bool) -> bool {
        self.is_login_unknown.swap(is_unknown, Ordering::Relaxed)
    }

    /// Whether the operator's settings let pods run their images' own programs.
    pub(crate) fn may_run_images(&self) -> bool {
        let Settings { run_image, ssh_server_image, .. } = &self.settings;
        *run_image == RunImage::Allowed && ssh_server_image.is_some()
    }

    /// What a pod is like that is launched now.
    pub(crate) fn form(&self) -> PodForm {
        *self.form.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the host's server in this pod proves its host keys by.
    fn host_key_secret(&self, pod: &PodName) -> HostKeySecret {
        HostKeySecret::derive(self.settings.host_key_seed.expose().as_bytes(), pod.as_str())
    }

    pub(crate) fn objects(
        &self,
        plan: &LeasePlan,
        mut form: PodForm,
        reply: ReplyStep,
    ) -> Result<Objects> {
        // Other containers that the host adds rely on the one that copies it.
        if reply == ReplyStep::Present || plan.run == Run::Image {
            form.volume = ServerVolume::Copy;
        }
        let host_key_secret = self.host_key_secret(&plan.lease.pod_name());
        let Settings { instance, ready_within, ttl, allowed, ssh_server_image, contact, .. } =
            &self.settings;
        let settings = JobSettings {
            instance,
            ready_within: *ready_within,
            ttl: *ttl,
            allowed,
            ssh_server: ssh_server_image.as_deref().map(|image| SshServer { image, form }),
            host_key_secret: &host_key_secret,
            contact: contact.as_ref(),
            reply,
        };
        Ok(Objects::of(plan, &settings)?)
    }

    /// How long a Job that the ledger does not know is left alone. It knows no probe pod: one that is
    /// older than a probe takes is of a process that has died.
    fn orphan_age(&self, job: &Job) -> Duration {
        let is_probe = pod_of(job).and_then(|pod| pod.lease()).is_some_and(|it| it.is_probe());
        let starting = if is_probe { self.settings.ready_within.0 } else { 0 };
        ORPHAN_AGE.saturating_add(Duration::from_secs(starting))
    }

    /// The Job of a pod, if it exists and has not finished.
    async fn running(&self, pod: &PodName) -> Result<Job> {
        match request(self.jobs.get_opt(pod.as_str())).await? {
            Some(job) if ended(&job).is_none() && job.metadata.deletion_timestamp.is_none() => {
                Ok(job)
            }
            _ => Err(ClusterError::NotFound),
        }
    }

    /// One attempt to raise the deadline.
    async fn try_set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<ExpiryUpdate> {
        let job = self.running(pod).await?;
        let known = job.annotations().get(EXPIRES).and_then(|text| text.parse().ok()).map(UnixTime);
        if known.is_some_and(|known| known >= at) {
            return Ok(ExpiryUpdate::Done);
        }
        let unstarted = || ClusterError::unavailable("the cluster has not started the Job yet");
        let deadline = deadline(&job, at).ok_or_else(unstarted)?;
        let patch = json!({
            // With the resourceVersion a concurrent extension is a conflict, and both count.
            "metadata": {"resourceVersion": job.resource_version(), "annotations": {EXPIRES: at.0.to_string()}},
            "spec": {"activeDeadlineSeconds": deadline},
        });
        let patch = Patch::Merge(patch);
        match with_timeout(self.jobs.patch(pod.as_str(), &patch_params(), &patch)).await {
            Ok(patched) if ended(&patched).is_none() => Ok(ExpiryUpdate::Done),
            Ok(_) => Err(ClusterError::NotFound),
            Err(error) if error.is_conflict() => Ok(ExpiryUpdate::Conflict),
            Err(error) if error.is_not_found() => Err(ClusterError::NotFound),
            Err(error) => Err(cluster_error(error)),
        }
    }
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Selects what belongs to the lease of this pod.
fn lease_selector(pod: &PodName) -> Result<String> {
    let lease = pod.lease().ok_or(ClusterError::NotFound)?;
    Ok(format!("{LEASE}={lease}"))
}

/// The pod of a Job; none if the Job cannot be ours.
fn pod_of(job: &Job) -> Option<PodName> {
    PodName::parse(job.name_any()).ok()
}

#[async_trait]
impl PodValidator for Kubernetes {
    async fn dry_run(&self, plan: &LeasePlan) -> Result<Demand> {
        let reply = ReplyStep::of_settings(&self.settings);
        let objects = self.objects(plan, self.form(), reply)?;
        let pod = self.dry_run_of_order(&objects).await?;
        Ok(self.capacity_watch().demand(&Tier::from(plan), &pod, &objects.services))
    }

    fn port_kind(&self, plan: &LeasePlan) -> PortKind {
        let services = check_plan(plan, &self.settings.allowed).map(|checked| checked.services);
        match services.is_ok_and(|services| services.iter().any(has_node_port)) {
            true => PortKind::NodePort,
            false => PortKind::HostPort,
        }
    }
}

#[async_trait]
impl CapacitySource for Kubernetes {
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        self.capacity_watch().capacity().await
    }

    fn is_capacity_pending(&self) -> bool {
        self.capacity_watch().is_pending()
    }
}

#[async_trait]
impl PodLauncher for Kubernetes {
    async fn launch(&self, plan: &LeasePlan) -> Result<()> {
        let objects = self.objects(plan, self.form(), ReplyStep::of_plan(plan))?;
        self.create_all(&plan.lease, objects).await
    }

    async fn ready(&self, pod: &PodName) -> Result<ReadyPod> {
        self.wait_ready(pod).await
    }
}

#[async_trait]
impl PodProgress for Kubernetes {
    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase> {
        if let Some(pod) = self.pod_watch.awaited().latest(pod) {
            return Ok(startup_phase(&pod));
        }
        Ok(self.named_pods(pod).await?.first().map_or(StartupPhase::Waiting, startup_phase))
    }

    async fn image_program(&self, pod: &PodName) -> Result<Option<ProgramState>> {
        Ok(self.known_pods(pod).await?.first().and_then(program_state))
    }

    async fn running_pod(&self, pod: &PodName) -> Result<Option<ReadyPod>> {
        let pods = self.pods_of(pod).await?;
        match pods.iter().find(|pod| is_ready(pod)) {
            Some(running) => self.ready_pod(pod, running).await.map(Some),
            None => Ok(None),
        }
    }
}

#[async_trait]
impl PodExpiry for Kubernetes {
    async fn check_running(&self, pod: &PodName, _: UnixTime) -> Result<()> {
        self.running(pod).await.map(drop)
    }

    async fn set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<()> {
        for _ in 0..CONFLICT_RETRIES {
            if let ExpiryUpdate::Done = self.try_set_expiry(pod, at).await? {
                return Ok(());
            }
        }
        Err(ClusterError::unavailable("the Job is being written by another client"))
    }

    async fn show_end(&self, pod: &PodName, at: UnixTime, notices: &[Seconds]) -> Result<()> {
        self.annotate_end(pod, at, notices).await
    }
}

#[async_trait]
impl PodRemover for Kubernetes {
    async fn remove(&self, pod: &PodName) -> Result<()> {
        self.delete_job(pod).await?;
        self.delete_owned_in_time(pod).await?;
        self.pod_watch.awaited().forget(pod);
        Ok(())
    }

    async fn forget(&self, pod: &PodName) -> Result<()> {
        let patch =
            Patch::Merge(json!({"spec": {"ttlSecondsAfterFinished": ttl(self.settings.ttl)}}));
        is_gone(with_timeout(self.jobs.patch(pod.as_str(), &patch_params(), &patch)).await)
            .map(drop)
    }
}

#[async_trait]
impl PodObserver for Kubernetes {
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        // Both end with the receiver alone.
        tokio::select! {
            () = self.observe_jobs(&sink) => {}
            () = self.observe_nodes(&sink) => {}
        }
    }

    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>> {
        let now = UnixTime::now().0;
        let is_old = |job: &Job| {
            let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
            let created = created.and_then(|seconds| u64::try_from(seconds).ok());
            let age = self.orphan_age(job).as_secs();
            created.is_some_and(|created| created < now.saturating_sub(age))
                && finished(job).is_none()
        };
        let mut candidates = Vec::new();
        let mut params =
            ListParams::default().labels(&selector(&self.settings.instance)).limit(JOBS_PAGE);
        loop {
            let page = request(self.jobs.list(&params)).await?;
            candidates.extend(page.items.iter().filter(|job| is_old(job)).filter_map(pod_of));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(candidates);
            }
        }
    }
}

#[async_trait]
impl ClusterHealth for Kubernetes {
    async fn check(&self) -> Result<()> {
        request(self.jobs.list(&ListParams::default().limit(1))).await.map(drop)
    }
}

impl ClusterFeatures for Kubernetes {
    fn root(&self) -> bool {
        self.form().user == PodUser::Root
    }

    fn runs_images(&self) -> bool {
        self.may_run_images() && !self.is_image_program_failing.load(Ordering::Relaxed)
    }

    fn probe(&self) -> Option<&dyn Probe> {
        let probe: &dyn Probe = self;
        self.settings.probe.then_some(probe)
    }

    fn pod_streams(&self) -> Option<Arc<dyn PodStreams>> {
        Some(Arc::new(KubernetesPods {
            pods: self.pods.clone(),
            route: self.settings.route.decided(),
            selector: lease_selector,
            recent: RecentPods::default(),
            visits: StreamPermits::default(),
        }))
    }
}
