//! The probe pod: what an order would launch, but without a port of the nodes, and removed as soon
//! as it has taken a login (`login`), or will not become ready.
//!
//! Where customers may be root it is launched as root of a user namespace first. If it starts only
//! without, customers are not root. Root that is not nobody on its node does not start, here and in
//! customers' pods (`ssh_server`).
//!
//! In either case it has the image with the SSH server mounted first, and its server must prove its
//! host keys to the service: customers could not know those otherwise. Where it starts only with a
//! copy of the server, or cannot be reached, it is copied into customers' pods too.
//!
//! Where orders may have `run: image`, another one is launched after it as for such an order. If that
//! one does not start, such orders are refused, and all others go on. A last one, with a copy of the
//! server, tries what no customer may reach (`isolation`), and yet another one as its neighbour
//! (`network`): nobody waits for them.
//!
//! All of them give way to orders that need their room (`kubernetes::room`).

mod login;
mod network;

use crate::kubernetes::Kubernetes;
use crate::objects::{Objects, PROBE, ttl};
use crate::pod_reply::ReplyStep;
use crate::pod_server::PROOF_TIMEOUT;
use crate::settings::{PodRoot, Settings, SshServerVolume};
use crate::ssh_server::{
    PROGRAM_CONTAINER, PodForm, PodUser, ServerVolume, is_hosts, mounted_image,
};
use crate::status::{
    IMAGE_FAILED, containers, has_mounted_server, is_scheduled, needs_only_proof, startup_phase,
    waits_for_server,
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{self, Container, Pod, PodSpec, PodStatus, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use paygress_core::backend::cluster::{
    ClusterError, LeasePlan, NetworkIsolation, PodLauncher, PodRemover, Probe, ProbeProblem,
    ReadyPod, StartupPhase,
};
use paygress_core::error_chain;
use paygress_core::model::ids::PodName;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::run::Run;
use paygress_core::model::units::Seconds;
use std::time::Duration;

/// How long a node may take to make a pod's sandbox, its user namespace included. It pulls no image
/// for that, and tries again and again where it cannot.
const SANDBOX: Duration = Duration::from_secs(20);
/// How long a runtime may refuse to create a container with the image with the server mounted: one
/// that does not know such volumes always does.
const REFUSED: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_secs(1);

/// How long its Job is there at least, once it has ended: one that is gone before was deleted.
const KEPT_AT_LEAST: Seconds = Seconds(60);
/// Nobody is logged in, and what is ended for an order is gone at once.
const GRACE_SECONDS: i64 = 1;

type Result<T> = std::result::Result<T, ProbeProblem>;

#[async_trait]
impl Probe for Kubernetes {
    async fn run(&self, plan: &LeasePlan) -> Option<ProbeProblem> {
        let found = self.probe_server(plan).await;
        match found {
            None | Some(ProbeProblem::NoUserNamespaces) => self.probe_program(plan).await.or(found),
            Some(problem) => Some(problem),
        }
    }

    async fn try_network(
        &self,
        plan: &LeasePlan,
        neighbour: Option<&LeasePlan>,
    ) -> Option<ProbeProblem> {
        let problem = self.probe_network(plan, neighbour).await.err()?;
        tracing::info!(?problem, "what pods reach is not known: the pod that tries does not start");
        Some(problem)
    }

    fn network_isolation(&self) -> NetworkIsolation {
        self.network_findings().isolation
    }
}

/// Whether the same pod may start when its user is not root.
fn may_start_without_root(problem: ProbeProblem) -> bool {
    match problem {
        ProbeProblem::Image
        | ProbeProblem::ServerImage
        | ProbeProblem::Login
        | ProbeProblem::Full
        | ProbeProblem::GaveWay
        | ProbeProblem::Unavailable
        | ProbeProblem::Policies => false,
        ProbeProblem::Port
        | ProbeProblem::Exited
        | ProbeProblem::NotStarted
        | ProbeProblem::Refused
        | ProbeProblem::NoUserNamespaces
        | ProbeProblem::NoImagePrograms => true,
    }
}

/// Whether the same pod may start when the server is copied into it.
fn may_start_with_copy(problem: ProbeProblem) -> bool {
    may_start_without_root(problem)
        && !matches!(problem, ProbeProblem::NoUserNamespaces | ProbeProblem::NoImagePrograms)
}

/// Why a probe pod is given up.
struct Failure {
    problem: ProbeProblem,
    /// Whether the reason may be how the server comes into it.
    may_be_volume: bool,
}

impl From<ProbeProblem> for Failure {
    fn from(problem: ProbeProblem) -> Self {
        Self { problem, may_be_volume: may_start_with_copy(problem) }
    }
}

impl Kubernetes {
    /// One with the SSH server alone, as root first where customers may be root.
    async fn probe_server(&self, plan: &LeasePlan) -> Option<ProbeProblem> {
        let settings = self.settings();
        let may_be_root = settings.root == PodRoot::Auto && settings.ssh_server_image.is_some();
        if may_be_root {
            match self.probe_as(plan, PodUser::Root).await {
                Ok(volume) => {
                    self.set_form(PodForm { user: PodUser::Root, volume });
                    return None;
                }
                Err(problem) if !may_start_without_root(problem) => return Some(problem),
                Err(problem) => {
                    tracing::warn!(?problem, "as root of a user namespace a probe pod fails");
                }
            }
        }
        match self.probe_as(plan, PodUser::Template).await {
            Ok(volume) => {
                self.set_form(PodForm { user: PodUser::Template, volume });
                may_be_root.then_some(ProbeProblem::NoUserNamespaces)
            }
            Err(problem) => Some(problem),
        }
    }

    /// One that runs its image's own program too, if orders may want that.
    async fn probe_program(&self, plan: &LeasePlan) -> Option<ProbeProblem> {
        if !self.may_run_images() {
            return None;
        }
        let plan = LeasePlan { run: Run::Image, ..plan.clone() };
        let form = self.form();
        if let Err(ClusterError::Refused(refusal)) = self.objects(&plan, form, ReplyStep::Absent)
            && refusal.code == ErrorType::InvalidSpec
        {
            tracing::info!(%refusal, "no pod of the default tier has its image's own program");
            return None;
        }
        match self.probe_in(&plan, form).await.map_err(|failure| failure.problem) {
            Ok(()) => {
                self.set_image_program_failing(false);
                None
            }
            Err(ProbeProblem::GaveWay) => Some(ProbeProblem::GaveWay),
            // Neither says anything of such pods.
            Err(problem @ (ProbeProblem::Full | ProbeProblem::Unavailable)) => {
                tracing::info!(?problem, "a probe pod with its image's own program was not tried");
                None
            }
            Err(problem) => {
                tracing::warn!(?problem, "with its image's own program a probe pod fails");
                self.set_image_program_failing(true);
                Some(ProbeProblem::NoImagePrograms)
            }
        }
    }

    pub(crate) async fn remove_probe(&self, pod: &PodName) {
        if let Err(error) = self.remove(pod).await {
            tracing::warn!(%error, %pod, "a probe pod could not be removed; it ends by its deadline");
        }
        self.forget_probe(pod);
    }

    /// Launches a probe pod with this user, with the server mounted if that is allowed, or else
    /// copied. How it is there in the pod that has started.
    async fn probe_as(&self, plan: &LeasePlan, user: PodUser) -> Result<ServerVolume> {
        let Settings { ssh_server_image, ssh_server_volume, reply_from_pod, .. } = self.settings();
        let (mounted, copied) = (ServerVolume::Image, ServerVolume::Copy);
        // The container that writes to the customer relies on the one that copies it.
        let may_mount = ssh_server_image.is_some() && !reply_from_pod;
        if may_mount && *ssh_server_volume != SshServerVolume::Copy {
            let Err(failure) = self.probe_in(plan, PodForm { user, volume: mounted }).await else {
                return Ok(mounted);
            };
            if !failure.may_be_volume || *ssh_server_volume == SshServerVolume::Image {
                return Err(failure.problem);
            }
            tracing::info!(problem = ?failure.problem, "the image with the SSH server is not mounted into pods; it is copied");
        }
        let started = self.probe_in(plan, PodForm { user, volume: copied }).await;
        started.map(|()| copied).map_err(|failure| failure.problem)
    }

    /// Launches a probe pod of this form, waits for it, logs in, and removes it.
    async fn probe_in(&self, plan: &LeasePlan, form: PodForm) -> std::result::Result<(), Failure> {
        // It has nothing to write, and shows whether the container that would is there.
        let reply = ReplyStep::of_settings(self.settings());
        let objects = self.objects(plan, form, reply);
        let mut objects = objects.map_err(|error| problem(&error, None))?;
        let port = plan.placement.container_port;
        let server = as_probe(&mut objects, port, self.settings().ttl);
        if form.user == PodUser::Root && server == Server::Own {
            tracing::warn!("the template has a command of its own, so that customers are not root");
            return Err(ProbeProblem::NoUserNamespaces.into());
        }
        let started = self.start_probe(plan, objects).await;
        let login = match &started {
            Ok(_) => self.log_in(plan).await,
            Err(_) => Ok(()),
        };
        self.remove_probe(&plan.lease.pod_name()).await;
        started?;
        login.map_err(Failure::from)
    }

    async fn start_probe(
        &self,
        plan: &LeasePlan,
        objects: Objects,
    ) -> std::result::Result<ReadyPod, Failure> {
        let (pod, is_mounted) = (plan.lease.pod_name(), has_mounted_server(&objects.pod()));
        let started = async {
            self.dry_run_all(&objects).await?;
            self.note_probe(&pod);
            self.create_all(&plan.lease, objects).await?;
            tokio::select! {
                ready = self.ready(&pod) => ready,
                why = self.stuck(&pod) => Err(ClusterError::not_ready(why)),
            }
        };
        let error = match started.await {
            Ok(ready) => return Ok(ready),
            Err(error) => error,
        };
        if is_of_pod(&error) && self.has_given_way(&pod).await {
            return Err(ProbeProblem::GaveWay.into());
        }
        let pods = self.known_pods(&pod).await.unwrap_or_default();
        let pod = pods.first();
        let status = pod.and_then(|pod| pod.status.as_ref());
        let container = status.and_then(failing_message);
        let error_text = error_chain(&error);
        tracing::warn!(error = error_text, container, "a probe pod does not start");
        let mut failure = Failure::from(problem(&error, pod));
        // Where its node has not come to its containers, what these are like does not matter.
        let had_containers = !pod.is_some_and(has_no_sandbox);
        failure.may_be_volume = failure.may_be_volume && is_mounted && had_containers;
        Err(failure)
    }

    /// Ends when the pod has been stuck for as long as it may, with the reason.
    async fn stuck(&self, pod: &PodName) -> &'static str {
        let mut waited = STUCK.map(|_| Duration::ZERO);
        loop {
            tokio::time::sleep(POLL).await;
            let pods = self.known_pods(pod).await.unwrap_or_default();
            for (Stuck { is_so, limit, why }, waited) in STUCK.iter().zip(&mut waited) {
                *waited = match pods.first().is_some_and(is_so) {
                    true => waited.saturating_add(POLL),
                    false => Duration::ZERO,
                };
                if *waited >= *limit {
                    return why;
                }
            }
        }
    }
}

/// What a pod may be for a while only.
struct Stuck {
    is_so: fn(&Pod) -> bool,
    limit: Duration,
    why: &'static str,
}

const STUCK: [Stuck; 3] = [
    Stuck { is_so: has_no_sandbox, limit: SANDBOX, why: "its node makes no sandbox for it" },
    Stuck { is_so: is_mount_refused, limit: REFUSED, why: "its container is not created" },
    Stuck {
        is_so: needs_only_proof,
        limit: PROOF_TIMEOUT,
        why: "it runs, and cannot be reached from here to prove its host keys, or its SSH server is of an earlier version",
    },
];

/// Whether a node has the pod, and has made no sandbox for it. Where none has it `ready` notices that.
fn has_no_sandbox(pod: &Pod) -> bool {
    startup_phase(pod) == StartupPhase::Scheduled
}

/// Whether the runtime does not create a container with the image with the server mounted.
fn is_mount_refused(pod: &Pod) -> bool {
    let mut containers = pod.status.iter().flat_map(containers);
    has_mounted_server(pod)
        && containers.any(|container| {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.and_then(|it| it.reason.as_deref()) == Some("CreateContainerError")
        })
}

/// Where a pod has its SSH server from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Its image.
    Own,
    /// The host, which has copied it.
    Copied,
    /// The host, which has mounted it.
    Mounted,
}

/// Makes a probe of these objects: without ports of the nodes, kept no longer than necessary, and
/// ready when its SSH server is.
fn as_probe(objects: &mut Objects, port: u16, kept: Seconds) -> Server {
    objects.services.clear();
    label(&mut objects.job.metadata);
    label(&mut objects.secret.metadata);
    if let Some(policy) = &mut objects.egress {
        label(&mut policy.metadata);
    }
    let Some(job) = &mut objects.job.spec else { return Server::Own };
    job.ttl_seconds_after_finished = Some(ttl(kept.max(KEPT_AT_LEAST)));
    label(job.template.metadata.get_or_insert_default());
    let Some(spec) = &mut job.template.spec else { return Server::Own };
    spec.termination_grace_period_seconds = Some(GRACE_SECONDS);
    for container in &mut spec.containers {
        container.ports = None;
    }
    if let Some(server) = server_container(spec) {
        server.readiness_probe = Some(v1::Probe {
            tcp_socket: Some(TCPSocketAction {
                host: None,
                port: IntOrString::Int(i32::from(port)),
            }),
            period_seconds: Some(1),
            ..v1::Probe::default()
        });
    }
    match (mounted_image(spec), spec.init_containers.as_deref()) {
        (Some(_), _) => Server::Mounted,
        (None, None | Some([])) => Server::Own,
        (None, Some(_)) => Server::Copied,
    }
}

/// No customer's: whoever lists leases leaves it out.
fn label(metadata: &mut ObjectMeta) {
    metadata.labels.get_or_insert_default().insert(PROBE.to_owned(), "true".to_owned());
}

/// The one of the SSH server: the pod's, or a sidecar before its image's own program.
fn server_container(spec: &mut PodSpec) -> Option<&mut Container> {
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let program = inits.iter().position(|init| init.name == PROGRAM_CONTAINER);
    match program.and_then(|program| program.checked_sub(1)) {
        Some(server) => spec.init_containers.as_mut()?.get_mut(server),
        None => spec.containers.first_mut(),
    }
}

/// Whether it is about a pod that was launched.
fn is_of_pod(error: &ClusterError) -> bool {
    match error {
        ClusterError::NotScheduled(_)
        | ClusterError::NotReady(_)
        | ClusterError::ImageFailed(_)
        | ClusterError::NotFound => true,
        ClusterError::Refused(_) | ClusterError::PortTaken(_) | ClusterError::Unavailable(_) => {
            false
        }
    }
}

/// What it means that a probe pod did not start.
fn problem(error: &ClusterError, pod: Option<&Pod>) -> ProbeProblem {
    match error {
        ClusterError::Refused(refusal) => match refusal.code {
            ErrorType::ResourceUnavailable => ProbeProblem::Full,
            ErrorType::PolicyUnavailable => ProbeProblem::Policies,
            _ => ProbeProblem::Refused,
        },
        ClusterError::PortTaken(_) => ProbeProblem::Full,
        ClusterError::NotScheduled(_) if !pod.is_some_and(is_scheduled) => ProbeProblem::Full,
        ClusterError::Unavailable(_) => ProbeProblem::Unavailable,
        ClusterError::NotScheduled(_)
        | ClusterError::NotReady(_)
        | ClusterError::ImageFailed(_)
        | ClusterError::NotFound => pod.and_then(start_problem).unwrap_or(ProbeProblem::NotStarted),
    }
}

/// What keeps the containers from starting, if they tell.
fn start_problem(pod: &Pod) -> Option<ProbeProblem> {
    if needs_only_proof(pod) {
        return Some(ProbeProblem::NotStarted);
    }
    let mut containers = pod.status.iter().flat_map(containers);
    let is_mounted = has_mounted_server(pod);
    containers.find_map(|container| {
        let state = container.state.as_ref()?;
        let is_init = is_hosts(&container.name);
        let waiting = state.waiting.as_ref();
        match waiting.and_then(|waiting| waiting.reason.as_deref()) {
            Some(reason) if IMAGE_FAILED.contains(&reason) => {
                let of_server = waiting.is_some_and(|it| waits_for_server(pod, container, it));
                Some(match is_init || of_server {
                    true => ProbeProblem::ServerImage,
                    false => ProbeProblem::Image,
                })
            }
            // It is the host's server that has ended, and not that of the image.
            Some("CrashLoopBackOff") if !is_init && !is_mounted => Some(ProbeProblem::Exited),
            _ if is_init || (is_mounted && state.terminated.is_some()) => {
                let code = state.terminated.as_ref()?.exit_code;
                (code != 0 || is_mounted).then_some(ProbeProblem::NotStarted)
            }
            _ if state.terminated.is_some() => Some(ProbeProblem::Exited),
            _ => state.running.as_ref().map(|_| ProbeProblem::Port),
        }
    })
}

/// What the runtime says of the first container that does not run.
fn failing_message(status: &PodStatus) -> Option<&str> {
    containers(status).find_map(|container| {
        let state = container.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.message.as_deref());
        let failed = state.terminated.as_ref().filter(|terminated| terminated.exit_code != 0);
        waiting.or_else(|| failed.and_then(|terminated| terminated.message.as_deref()))
    })
}

#[cfg(test)]
mod tests;
