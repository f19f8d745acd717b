//! Leases on a Kubernetes cluster.

use crate::guard::Allowed;
use crate::objects::{APP, EXPIRES, INSTANCE, JobSettings, LEASE, LONGEST, Objects};
use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, Request,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config, Resource, ResourceExt};
use paygress_core::backend::cluster::{
    Cluster, ClusterError, ClusterEvent, EndReason, LeasePlan, StartupPhase,
};
use paygress_core::limits::ORPHAN_AGE;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{PodName, Seconds, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// One request to the API server. It answers in milliseconds; one that takes longer than this is
/// away.
const REQUEST: Duration = Duration::from_secs(15);
/// How long a removal may take: the grace period of the guard, and the controllers' work.
const REMOVAL: Duration = Duration::from_secs(60);
/// How often a removal looks whether it is done.
const REMOVAL_POLL: Duration = Duration::from_millis(250);
/// A pod that no node has room for is given this long: an autoscaler may bring one.
const UNSCHEDULABLE: Duration = Duration::from_secs(30);
/// Attempts to raise a deadline while somebody else writes the same Job.
const CONFLICTS: usize = 10;
const MANAGER: &str = "paygress";

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the pods.
    pub namespace: String,
    /// A label value that is this paygress's own.
    pub instance: String,
    /// How long a pod may take to become ready, image pull included.
    pub ready_within: Seconds,
    /// How long a finished Job is kept.
    pub ttl: Seconds,
    /// What templates may ask for beyond the ordinary.
    pub allowed: Allowed,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[error(
    "no connection to Kubernetes: {0}; set KUBECONFIG, or run inside the cluster with a ServiceAccount"
)]
pub struct ConnectError(String);

/// A namespace of a cluster.
pub struct Kubernetes {
    settings: Settings,
    client: Client,
    jobs: Api<Job>,
    pods: Api<Pod>,
    secrets: Api<Secret>,
    services: Api<Service>,
}

type Result<T> = std::result::Result<T, ClusterError>;

impl Kubernetes {
    /// Connects, with this kubeconfig, or `$KUBECONFIG`, or as a pod of the cluster. Asks nothing
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
        Ok(Self {
            jobs: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            services: Api::namespaced(client.clone(), namespace),
            client,
            settings,
        })
    }

    fn objects(&self, plan: &LeasePlan) -> Result<Objects> {
        let Settings { instance, ready_within, ttl, allowed, .. } = &self.settings;
        let settings = JobSettings { instance, ready_within: *ready_within, ttl: *ttl, allowed };
        Ok(Objects::of(plan, &settings)?)
    }

    /// Creates, strictly; for a rehearsal everything but that.
    async fn create<K>(
        &self,
        api: &Api<K>,
        object: &K,
        dry_run: bool,
    ) -> std::result::Result<K, kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let params = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let mut request = Request::new(api.resource_url())
            .create(&params, body)
            .map_err(kube::Error::BuildRequest)?;
        if let Ok(strict) = format!("{}&fieldValidation=Strict", request.uri()).parse() {
            *request.uri_mut() = strict;
        }
        self.client.request(request).await
    }

    /// Creates what is not there yet.
    async fn ensure<K>(&self, api: &Api<K>, object: &K) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        match tokio::time::timeout(REQUEST, self.create(api, object, false)).await {
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Ok(()),
            Ok(done) => done.map(drop).map_err(translate),
            Err(_) => Err(late()),
        }
    }

    fn selector(&self) -> String {
        format!("{}={},{INSTANCE}={}", APP.0, APP.1, self.settings.instance)
    }

    /// The Job, if it is there and not finished.
    async fn running(&self, pod: &PodName) -> Result<Job> {
        match timely(self.jobs.get_opt(&pod.0)).await? {
            Some(job) if ended(&job).is_none() && job.metadata.deletion_timestamp.is_none() => {
                Ok(job)
            }
            _ => Err(ClusterError::NotFound),
        }
    }

    async fn pods_of(&self, pod: &PodName) -> Result<Vec<Pod>> {
        let lease = pod.lease();
        Ok(timely(self.pods.list(&ListParams::default().labels(&format!("{LEASE}={lease}"))))
            .await?
            .items)
    }

    /// Why a finished Job has ended. A pod that stopped by itself is still there; one that somebody
    /// deleted is not.
    async fn reason(&self, job: &Job) -> Option<EndReason> {
        let reason = finished(job)?;
        let gone =
            async || self.pods_of(&PodName(job.name_any())).await.is_ok_and(|pods| pods.is_empty());
        Some(if reason == EndReason::Exited && gone().await { EndReason::Removed } else { reason })
    }

    async fn services_of(&self, pod: &PodName) -> Result<Vec<String>> {
        let lease = pod.lease();
        let services =
            timely(self.services.list(&ListParams::default().labels(&format!("{LEASE}={lease}"))))
                .await?;
        Ok(services.items.iter().map(ResourceExt::name_any).collect())
    }

    /// One attempt to set the deadline; `false` when somebody else wrote in between.
    async fn try_expiry(&self, pod: &PodName, at: UnixTime) -> Result<bool> {
        let job = self.running(pod).await?;
        let known = job.annotations().get(EXPIRES).and_then(|text| text.parse().ok()).map(UnixTime);
        if known.is_some_and(|known| known >= at) {
            return Ok(true);
        }
        let start = job
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref())
            .map(|time| time.0.as_second());
        let start = start
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(UnixTime)
            .ok_or(ClusterError::NotFound)?;
        let deadline = at.since(start).0.clamp(1, LONGEST);
        let patch = json!({
            // Only if nobody wrote since: two extensions at once must both count.
            "metadata": {"resourceVersion": job.resource_version(), "annotations": {EXPIRES: at.0.to_string()}},
            "spec": {"activeDeadlineSeconds": deadline},
        });
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match tokio::time::timeout(REQUEST, self.jobs.patch(&pod.0, &params, &Patch::Merge(patch)))
            .await
        {
            Ok(Ok(patched)) if ended(&patched).is_none() => Ok(true),
            Ok(Ok(_)) => Err(ClusterError::NotFound),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Ok(false),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
                Err(ClusterError::NotFound)
            }
            Ok(Err(error)) => Err(translate(error)),
            Err(_) => Err(late()),
        }
    }
}

/// A client of the API server.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> std::result::Result<Client, ConnectError> {
    let config = async {
        match kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| error.to_string())
            }
            None => Config::infer().await.map_err(|error| error.to_string()),
        }
    };
    let mut config = config.await.map_err(ConnectError)?;
    config.connect_timeout = Some(REQUEST);
    // The desk tries again itself, and knows what may be tried again.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ConnectError(error.to_string()))
}

fn late() -> ClusterError {
    ClusterError::Unavailable(format!("no answer within {} s", REQUEST.as_secs()))
}

pub(crate) async fn timely<T>(
    call: impl Future<Output = std::result::Result<T, kube::Error>>,
) -> Result<T> {
    timely_raw(call).await?.map_err(translate)
}

pub(crate) async fn timely_raw<T>(
    call: impl Future<Output = std::result::Result<T, kube::Error>>,
) -> Result<std::result::Result<T, kube::Error>> {
    tokio::time::timeout(REQUEST, call).await.map_err(|_| late())
}

/// Whether what was to be removed is not there any more.
fn removed<T>(deleted: std::result::Result<T, kube::Error>) -> Result<bool> {
    match deleted {
        Ok(_) => Ok(false),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(true),
        Err(error) => Err(translate(error)),
    }
}

/// What an error of the API means for an order.
pub(crate) fn translate(error: kube::Error) -> ClusterError {
    let kube::Error::Api(status) = error else {
        return ClusterError::Unavailable(error.to_string());
    };
    let message = status.message.clone();
    // The cluster's own words are the operator's: they name namespaces, quotas and rights.
    let refused = |code, told: &str| {
        tracing::warn!(code = status.code, message, "the cluster refused");
        ClusterError::Refused(Refusal::new(code, told))
    };
    match status.code {
        403 if message.contains("exceeded quota") => refused(
            ErrorType::ResourceUnavailable,
            "the cluster's quota is used up; try again later or choose a smaller tier",
        ),
        403 if message.contains("violates PodSecurity") => {
            refused(ErrorType::BackendError, "the cluster's security rules do not allow this pod")
        }
        // A right that is missing, or a rule that only the operator knows.
        400 | 401 | 403 | 404 | 405 | 409 | 422 => refused(
            ErrorType::BackendError,
            "the cluster refused this pod; the operator has been told",
        ),
        _ => ClusterError::Unavailable(message),
    }
}

/// Why a Job has ended, if it has. `FailureTarget` and `SuccessCriteriaMet` come first, while its
/// pods are being stopped.
fn ended(job: &Job) -> Option<EndReason> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let met = conditions.iter().find(|condition| {
        condition.status == "True"
            && matches!(
                condition.type_.as_str(),
                "Complete" | "Failed" | "FailureTarget" | "SuccessCriteriaMet"
            )
    })?;
    Some(match met.reason.as_deref() {
        Some("DeadlineExceeded") => EndReason::Expired,
        Some("PodFailurePolicy") => EndReason::Disrupted,
        _ => EndReason::Exited,
    })
}

/// Whether its pods are gone too, so that the port is free.
fn finished(job: &Job) -> Option<EndReason> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .any(|condition| {
            condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed")
        })
        .then(|| ended(job))
        .flatten()
}

/// What a pod's status says about its readiness: ready, hopeless, or wait.
fn readiness(pod: &Pod, waited: Duration) -> Option<Result<()>> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some()
        || matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
    {
        return Some(Err(ClusterError::NotReady("it ended at once".to_owned())));
    }
    if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return Some(Ok(()));
    }
    let unschedulable = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(why) = unschedulable.and_then(|condition| condition.message.as_deref()) {
        if why.contains("free ports") {
            return Some(Err(ClusterError::PortTaken(why.to_owned())));
        }
        if waited >= UNSCHEDULABLE {
            tracing::warn!(why, "no node has room for a pod");
            return Some(Err(ClusterError::NotReady("no node has room for it".to_owned())));
        }
    }
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let stuck = containers
        .iter()
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find(|waiting| {
            matches!(
                waiting.reason.as_deref(),
                Some(
                    "ImagePullBackOff"
                        | "ErrImageNeverPull"
                        | "InvalidImageName"
                        | "CreateContainerConfigError"
                        | "CrashLoopBackOff"
                )
            )
        })?;
    let reason = stuck.reason.clone().unwrap_or_default();
    tracing::warn!(reason, message = stuck.message, "a pod cannot start");
    Some(Err(ClusterError::NotReady(reason)))
}

/// How far a pod is that is not ready yet.
fn launch(pod: &Pod) -> StartupPhase {
    let Some(status) = &pod.status else { return StartupPhase::Waiting };
    let met = |wanted: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == wanted && condition.status == "True")
    };
    let started =
        status.container_statuses.iter().flatten().any(|container| container.started == Some(true));
    // The sandbox is there, and nothing runs in it: the image is being fetched.
    match (started, met("PodReadyToStartContainers"), met("PodScheduled")) {
        (true, _, _) => StartupPhase::Starting,
        (_, true, _) => StartupPhase::Pulling,
        (_, _, true) => StartupPhase::Scheduled,
        _ => StartupPhase::Waiting,
    }
}

#[async_trait]
impl Cluster for Kubernetes {
    async fn dry_run(&self, plan: &LeasePlan) -> Result<()> {
        let objects = self.objects(plan)?;
        // A Job's own dry run does not meet quota or Pod Security; its pod's does.
        timely(self.create(&self.jobs, &objects.job, true)).await?;
        timely(self.create(&self.pods, &objects.pod(), true)).await?;
        timely(self.create(&self.secrets, &objects.secret, true)).await?;
        for service in &objects.services {
            timely(self.create(&self.services, service, true)).await?;
        }
        Ok(())
    }

    async fn launch(&self, plan: &LeasePlan) -> Result<()> {
        let mut objects = self.objects(plan)?;
        self.ensure(&self.jobs, &objects.job).await?;
        let pod = PodName(plan.placement.pod_name.clone());
        let job = self.running(&pod).await?;
        let owner = job.controller_owner_ref(&()).ok_or(ClusterError::NotFound)?;
        objects.own(&owner);
        self.ensure(&self.secrets, &objects.secret).await?;
        for service in &objects.services {
            self.ensure(&self.services, service).await?;
        }
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        timely(self.jobs.patch(&pod.0, &params, &Patch::Merge(json!({"spec": {"suspend": false}}))))
            .await
            .map(drop)
    }

    async fn ready(&self, pod: &PodName) -> Result<()> {
        let lease = pod.lease();
        let selector = watcher::Config::default().labels(&format!("{LEASE}={lease}"));
        let mut events = std::pin::pin!(watcher(self.pods.clone(), selector).default_backoff());
        let begun = tokio::time::Instant::now();
        let deadline =
            begun.checked_add(Duration::from_secs(self.settings.ready_within.0)).unwrap_or(begun);
        let mut latest: Option<Pod> = None;
        let mut again = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => latest = Some(pod),
                    Some(Ok(Event::Delete(_))) => return Err(ClusterError::NotFound),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::warn!(%error, "watching a pod"),
                    None => return Err(ClusterError::Unavailable("the watch ended".to_owned())),
                },
                // No event says that nothing happens; nor does one say that the Job itself has
                // failed.
                _ = again.tick() => { self.running(pod).await?; }
                () = tokio::time::sleep_until(deadline) => return Err(ClusterError::NotReady("it took too long".to_owned())),
            }
            if let Some(verdict) = latest.as_ref().and_then(|pod| readiness(pod, begun.elapsed())) {
                return verdict;
            }
        }
    }

    async fn startup_phase(&self, pod: &PodName) -> Result<StartupPhase> {
        Ok(self.pods_of(pod).await?.first().map_or(StartupPhase::Waiting, launch))
    }

    async fn check_running(&self, pod: &PodName, _: UnixTime) -> Result<()> {
        self.running(pod).await.map(drop)
    }

    async fn set_expiry(&self, pod: &PodName, at: UnixTime) -> Result<()> {
        for _ in 0..CONFLICTS {
            if self.try_expiry(pod, at).await? {
                return Ok(());
            }
        }
        Err(ClusterError::Unavailable("somebody else keeps writing the Job".to_owned()))
    }

    async fn remove(&self, pod: &PodName) -> Result<()> {
        if let Some(job) = timely(self.jobs.get_opt(&pod.0)).await? {
            let this_one = Preconditions { uid: job.uid(), ..Preconditions::default() };
            match tokio::time::timeout(
                REQUEST,
                self.jobs.delete(&pod.0, &DeleteParams::background().preconditions(this_one)),
            )
            .await
            {
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status)))
                    if status.is_not_found() || status.is_conflict() => {}
                Ok(Err(error)) => return Err(translate(error)),
                Err(_) => return Err(late()),
            }
        }
        // The login goes with its Job, a little later; a new pod of the same name must not meet the
        // old one. It is not looked up but removed until there is nothing to remove: reading
        // Secrets is a right that we do not have.
        let gone = async {
            loop {
                let job = timely(self.jobs.get_opt(&pod.0)).await?.is_some();
                let secret = removed(
                    timely_raw(self.secrets.delete(&pod.0, &DeleteParams::default())).await?,
                )?;
                let services = self.services_of(pod).await?;
                for service in &services {
                    removed(
                        timely_raw(self.services.delete(service, &DeleteParams::default())).await?,
                    )?;
                }
                if !job && secret && services.is_empty() && self.pods_of(pod).await?.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(REMOVAL_POLL).await;
            }
        };
        tokio::time::timeout(REMOVAL, gone)
            .await
            .unwrap_or_else(|_| Err(ClusterError::Unavailable("a removal takes long".to_owned())))
    }

    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let mut events = std::pin::pin!(
            watcher(self.jobs.clone(), watcher::Config::default().labels(&self.selector()))
                .default_backoff()
        );
        let mut inventory = Vec::new();
        while let Some(event) = events.next().await {
            let told = match event {
                Ok(Event::Init) => {
                    inventory.clear();
                    None
                }
                Ok(Event::InitApply(job)) => {
                    inventory.push(PodName(job.name_any()));
                    self.reason(&job)
                        .await
                        .map(|reason| ClusterEvent::Ended(PodName(job.name_any()), reason))
                }
                Ok(Event::InitDone) => Some(ClusterEvent::Resync(std::mem::take(&mut inventory))),
                Ok(Event::Apply(job)) => self
                    .reason(&job)
                    .await
                    .map(|reason| ClusterEvent::Ended(PodName(job.name_any()), reason)),
                Ok(Event::Delete(job)) => {
                    Some(ClusterEvent::Ended(PodName(job.name_any()), EndReason::Removed))
                }
                Err(error) => {
                    tracing::warn!(%error, "watching Jobs");
                    None
                }
            };
            if let Some(told) = told
                && sink.send(told).await.is_err()
            {
                return;
            }
        }
    }

    async fn check(&self) -> Result<()> {
        timely(self.jobs.list(&ListParams::default().limit(1))).await.map(drop)
    }

    async fn list_older_than(&self) -> Result<Vec<PodName>> {
        let jobs = timely(self.jobs.list(&ListParams::default().labels(&self.selector()))).await?;
        let before = UnixTime::now().0.saturating_sub(ORPHAN_AGE.as_secs());
        let old = |job: &Job| {
            let made = job.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
            made.and_then(|seconds| u64::try_from(seconds).ok()).is_some_and(|made| made < before)
                && finished(job).is_none()
        };
        Ok(jobs.items.iter().filter(|job| old(job)).map(|job| PodName(job.name_any())).collect())
    }
}
