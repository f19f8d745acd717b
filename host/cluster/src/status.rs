//! What the status of a Job or a pod says about a lease.

use crate::image_program::server_sidecar;
use crate::ssh_server::{
    HOLDER_CONTAINER, INIT_CONTAINER, PROGRAM_CONTAINER, is_hosts, mounted_image,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod, PodStatus};
use paygress_core::backend::cluster::{ClusterError, EndReason, StartupPhase};
use paygress_core::model::host_key::HostKey;
use paygress_core::model::run::ProgramState;
use paygress_sshd::NO_USER_NAMESPACE;
use std::time::Duration;

/// How long a pod may be unschedulable where no autoscaler adds nodes: another pod may be about to
/// end.
pub(crate) const UNSCHEDULABLE: Duration = Duration::from_secs(30);
/// "Container ssh was using 3Gi, request is 2Gi, has larger consumption of ephemeral-storage."
const EXCEEDED: &str = "has larger consumption of ephemeral-storage";
/// What a pod has without limit. The kubelet evicts first the pod that has most of it, and does not
/// report how much that was.
const LOW_ON_UNLIMITED: [&str; 2] =
    ["The node was low on resource: inodes.", "The node was low on resource: pids."];

/// Lines of a termination message that are read; the kubelet cuts it at 4 KiB.
const MESSAGE_LINES: usize = 32;

/// Why a container waits whose image cannot be had.
pub(crate) const IMAGE_FAILED: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];
/// Why a container waits that its runtime does not make of its image: the image's own user may be
/// root, for instance.
const NOT_CREATED: [&str; 2] = ["CreateContainerConfigError", "CreateContainerError"];
/// What a registry answers that has no such image, none for this machine, or none for everybody, and
/// what is reported of a name that is none, as containerd and CRI-O pass it on. A registry that cannot be
/// reached answers nothing. No image's name has blanks, so none can have such a text.
const PULL_REFUSED: [&str; 10] = [
    ": not found",
    "manifest unknown",
    "does not exist",
    "no match for platform",
    "authorization failed",
    "access to the resource is denied",
    ": 401 Unauthorized",
    ": 403 Forbidden",
    "unauthorized: ",
    "invalid reference format",
];
/// Why no image at all would have been pulled or started there and then: the node's disk is full, or
/// the registry is not there. Its statuses are found by their numbers.
const NOT_OF_IMAGE: [&str; 9] = [
    "no space left on device",
    "toomanyrequests: ",
    "i/o timeout",
    "handshake timeout",
    "timed out",
    "deadline exceeded",
    "Timeout exceeded",
    "connection refused",
    "connection reset by peer",
];
/// Why a container waits whose registry the kubelet found away by itself.
const REGISTRY_AWAY: &str = "RegistryUnavailable";
/// What the kubelet and containerd call an image that cannot be mounted, where a container is not
/// created for that.
const NOT_MOUNTED: [&str; 2] = ["ImageVolumeMountFailed", "image volume"];
/// Why a container has ended whose image does not run: its program is missing, or of another
/// architecture.
const NOT_STARTED: [&str; 2] = ["StartError", "ContainerCannotRun"];
/// Why an image's own program waits that was tried in vain: the image names none, for instance.
const PROGRAM_FAILED: [&str; 3] =
    ["CreateContainerError", "CreateContainerConfigError", "RunContainerError"];

/// Why a Job has ended, if it has. `FailureTarget` and `SuccessCriteriaMet` come first, while its
/// pods are being stopped.
pub(crate) fn ended(job: &Job) -> Option<EndReason> {
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

/// As [`ended`], once its pods are gone too, so that the port is free.
pub(crate) fn finished(job: &Job) -> Option<EndReason> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .any(|condition| {
            condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed")
        })
        .then(|| ended(job))
        .flatten()
}

/// Whether a Job that goes on has a pod that takes logins in place of one that is gone.
pub(crate) fn is_replaced(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| {
        status.failed.is_some_and(|failed| failed > 0)
            && status.ready.is_some_and(|ready| ready > 0)
            && ended(job).is_none()
    })
}

/// Why a finished Job's pod has ended, by the Job's reason and the pods that it still has, if they
/// are known. A pod that exited by itself still exists, with the reason of its containers; one that
/// was deleted does not. A pod that may have caused its own eviction was not disrupted by the
/// cluster.
fn cause(reason: EndReason, pods: Option<&[Pod]>) -> EndReason {
    match (reason, pods) {
        (EndReason::Exited, Some([])) => EndReason::Removed,
        (EndReason::Exited, Some(pods)) => {
            if pods.iter().any(is_out_of_memory) {
                EndReason::OutOfMemory
            } else {
                reason
            }
        }
        (EndReason::Disrupted, Some(pods)) => {
            pods.iter().find_map(end_by_own_use).unwrap_or(reason)
        }
        _ => reason,
    }
}

/// As [`cause`], of the pods of this Job. One whose containers are restarted makes another pod for one
/// that was deleted, and by itself deletes one whose containers have failed too often: its customer can
/// do that.
pub(crate) fn cause_in(job: &Job, reason: EndReason, pods: Option<&[Pod]>) -> EndReason {
    cause(reason, pods.filter(|pods| !(pods.is_empty() && restarts(job))))
}

fn restarts(job: &Job) -> bool {
    let spec = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    spec.and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure")
}

/// How the lease of a pod ended that its node evicted, if the customer may have caused that; only the
/// kubelet's message has this. Whoever used more of the node's disk than they had requested caused
/// it; who may have used up the inodes or the process ids may have. A pod that kept within its
/// requests was in the way of others. So was one that used more memory than it had requested: where
/// the operator overcommits, its limit is what was sold, and the kernel enforces that.
fn end_by_own_use(pod: &Pod) -> Option<EndReason> {
    let status = pod.status.as_ref().filter(|it| it.reason.as_deref() == Some("Evicted"))?;
    let message = status.message.as_deref()?;
    if message.contains(EXCEEDED) {
        return Some(EndReason::OutOfDisk);
    }
    LOW_ON_UNLIMITED.iter().any(|low| message.contains(low)).then_some(EndReason::Evicted)
}

/// Whether a pod is ready; an error when it will not become so, none while it may. `waited` is how
/// long it has been watched, `unschedulable_within` how long no node may have a place for it.
pub(crate) fn readiness(
    pod: &Pod,
    waited: Duration,
    unschedulable_within: Duration,
) -> Option<Result<(), ClusterError>> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some()
        || matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
    {
        let cause = cause_of_end(status);
        return Some(Err(not_started(pod, cause, "it ended during startup")));
    }
    // Beside a program the pod is ready only while that runs.
    if is_met(status, "Ready") || server_beside_program(status).is_some_and(|server| server.ready) {
        return Some(Ok(()));
    }
    if let Some(message) = unschedulable(status) {
        if message.contains("free ports") {
            return Some(Err(ClusterError::port_taken(message)));
        }
        if waited >= unschedulable_within {
            tracing::warn!(reason = message, "no node has room for a pod");
            return Some(Err(ClusterError::not_scheduled("no node has room for it")));
        }
    }
    let (container, waiting) = waiting(status).find(|(_, waiting)| is_stuck(waiting))?;
    let reason = waiting.reason.clone().unwrap_or_default();
    tracing::warn!(reason, details = waiting.message, container.name, "a pod cannot start");
    Some(Err(not_started(pod, start_cause(pod, container, waiting), &reason)))
}

/// Why no node has a place for a pod, once the scheduler has looked for one.
pub(crate) fn unschedulable(status: &PodStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter().flatten();
    let unmet = conditions.find(|it| it.type_ == "PodScheduled" && it.status == "False")?;
    unmet.message.as_deref()
}

/// Whose image keeps a pod from starting.
#[derive(Clone, Copy)]
enum StartCause {
    /// That of the pod.
    Image,
    /// The operator's, with the SSH server.
    Host,
    /// It need not be an image.
    Unknown,
}

/// The error of a pod that does not start. As long as the host's SSH server is not in it, nothing
/// that its customer has named was tried.
fn not_started(pod: &Pod, cause: StartCause, message: &str) -> ClusterError {
    match (is_server_missing(pod), cause) {
        (true, _) => {
            ClusterError::not_scheduled(format!("its SSH server is not installed: {message}"))
        }
        (false, StartCause::Host) => {
            ClusterError::not_scheduled(format!("the SSH server's image does not start: {message}"))
        }
        (false, StartCause::Image) => ClusterError::image_failed(message),
        (false, StartCause::Unknown) => ClusterError::not_ready(message),
    }
}

/// Whether an init container has not done its work, or the server has ended which would have to be
/// nobody on its node.
fn is_server_missing(pod: &Pod) -> bool {
    let status = pod.status.iter();
    let mut inits = status.flat_map(|it| it.init_container_statuses.iter().flatten());
    inits.any(|container| {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        is_hosts(&container.name) && ended.is_none_or(|ended| ended.exit_code != 0)
    }) || is_without_user_namespace(pod)
}

fn is_without_user_namespace(pod: &Pod) -> bool {
    let status = pod.status.as_ref().filter(|_| has_mounted_server(pod));
    let mut containers = status.into_iter().flat_map(|it| it.container_statuses.iter().flatten());
    containers.any(|container| {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        ended.is_some_and(|ended| ended.exit_code == i32::from(NO_USER_NAMESPACE))
    })
}

pub(crate) fn has_mounted_server(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| mounted_image(spec).is_some())
}

/// Whether it is the mounted image with the SSH server for which a container of this pod waits in
/// vain, rather than its own.
pub(crate) fn waits_for_server(
    pod: &Pod,
    container: &ContainerStatus,
    waiting: &ContainerStateWaiting,
) -> bool {
    let Some(server) = pod.spec.as_ref().and_then(mounted_image) else { return false };
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or_default();
    if IMAGE_FAILED.contains(&reason) {
        // As the pod has it, or with the registry before it that a runtime has added.
        let names = |image: &str| {
            ["\"", "/"].iter().any(|before| message.contains(&format!("{before}{image}\"")))
        };
        return names(server) && (container.image == server || !names(&container.image));
    }
    NOT_CREATED.contains(&reason) && NOT_MOUNTED.iter().any(|text| message.contains(text))
}

/// Whether the kubelet says that the pod takes logins, and it is not being removed.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().is_some_and(|status| is_met(status, "Ready"))
}

/// Whether a pod takes logins but for the proof of its host keys, which its server owes the service.
pub(crate) fn needs_only_proof(pod: &Pod) -> bool {
    has_mounted_server(pod) && is_ready(pod)
}

/// Whether a node has the pod.
pub(crate) fn is_scheduled(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| is_met(status, "PodScheduled"))
}

/// Whether the kernel has killed a container of the pod for its memory: one on which the pod depends.
fn is_out_of_memory(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(server_beside_program(status))
    });
    containers
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref())
        .any(|ended| ended.reason.as_deref() == Some("OOMKilled"))
}

/// Whose image a pod has ended by before it took logins.
fn cause_of_end(status: &PodStatus) -> StartCause {
    let is_any_unstartable = status.container_statuses.iter().flatten().any(is_unstartable);
    match (server_beside_program(status), is_any_unstartable) {
        (Some(server), _) if is_unstartable(server) => StartCause::Image,
        // It is the container that holds the pod.
        (Some(_), true) => StartCause::Host,
        (None, true) => StartCause::Image,
        (_, false) => StartCause::Unknown,
    }
}

/// Whether the image of a container does not run, as its latest start has shown. A sidecar is started
/// again after each.
fn is_unstartable(container: &ContainerStatus) -> bool {
    let states = [container.state.as_ref(), container.last_state.as_ref()];
    let ended = states.into_iter().flatten().find_map(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| {
        let reason = ended.reason.as_deref().unwrap_or_default();
        NOT_STARTED.contains(&reason) && !is_not_of_image(ended.message.as_deref())
    })
}

fn is_met(status: &PodStatus, condition_type: &str) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == condition_type && condition.status == "True")
}

/// Why a pod fails that the kubelet reports as ready.
const UNPROVED: &str =
    "it runs, and its SSH server could not be reached from the service to prove its host keys";

/// Why a pod that has not become ready in time has not.
pub(crate) fn unready(pod: Option<&Pod>) -> ClusterError {
    const MESSAGE: &str = "it took too long";
    let Some(pod) = pod else { return ClusterError::not_scheduled(MESSAGE) };
    if needs_only_proof(pod) {
        tracing::warn!(
            pod = pod.metadata.name,
            "a pod runs, and its SSH server has not proved its host keys: let the service connect to nodes and pods, or set SSH_SERVER_VOLUME=copy"
        );
        return ClusterError::not_ready(UNPROVED);
    }
    let found = pod.status.as_ref().and_then(|status| {
        waiting(status)
            .find_map(|(container, waiting)| Some((container, waiting, waiting.reason.as_ref()?)))
    });
    match found {
        Some((container, waiting, reason)) => {
            let cause = start_cause(pod, container, waiting);
            not_started(pod, cause, &format!("{MESSAGE} ({reason})"))
        }
        None if is_scheduled(pod) => not_started(pod, StartCause::Unknown, MESSAGE),
        None => ClusterError::not_scheduled(MESSAGE),
    }
}

/// The SSH server's container where an image's own program runs beside it.
fn server_beside_program(status: &PodStatus) -> Option<&ContainerStatus> {
    let inits = status.init_container_statuses.as_deref()?;
    server_sidecar(inits, |container| container.name.as_str())
}

/// How the image's own program is, in a pod that has it.
pub(crate) fn program_state(pod: &Pod) -> Option<ProgramState> {
    let mut inits = pod.spec.as_ref()?.init_containers.iter().flatten();
    inits.find(|container| container.name == PROGRAM_CONTAINER)?;
    let status = pod.status.as_ref().and_then(|status| {
        status
            .init_container_statuses
            .iter()
            .flatten()
            .find(|status| status.name == PROGRAM_CONTAINER)
    });
    let Some(status) = status else { return Some(ProgramState::Waiting) };
    let state = status.state.as_ref();
    let has_ended = [state, status.last_state.as_ref()]
        .into_iter()
        .flatten()
        .any(|state| state.terminated.is_some());
    let reason = state.and_then(|state| state.waiting.as_ref()?.reason.as_deref());
    Some(match (state.is_some_and(|state| state.running.is_some()), reason) {
        (true, _) => ProgramState::Running,
        (false, Some(reason)) if PROGRAM_FAILED.contains(&reason) => ProgramState::Failed,
        (false, _) if has_ended => ProgramState::Failed,
        (false, _) => ProgramState::Waiting,
    })
}

/// The containers that do not run yet, those first for which the others wait. None waits for the
/// image's own program.
fn waiting(status: &PodStatus) -> impl Iterator<Item = (&ContainerStatus, &ContainerStateWaiting)> {
    containers(status)
        .filter(|container| container.name != PROGRAM_CONTAINER)
        .filter_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?)))
}

/// The init containers, and the others.
pub(crate) fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

/// What the init container that installs the SSH server has left as its termination message. No
/// program of the customer ran before it ended.
pub(crate) fn init_message(pod: &Pod) -> Option<&str> {
    let mut inits = pod.status.as_ref()?.init_container_statuses.iter().flatten();
    let init = inits.find(|container| container.name == INIT_CONTAINER)?;
    init.state.as_ref()?.terminated.as_ref()?.message.as_deref()
}

/// The public keys of the pod's SSH server: a line each of the init container's message.
pub(crate) fn host_keys(pod: &Pod) -> Vec<HostKey> {
    let message = init_message(pod).unwrap_or_default();
    HostKey::parse_all(message.lines().take(MESSAGE_LINES))
}

/// Whose image it is that has a container of this pod wait so.
fn start_cause(
    pod: &Pod,
    container: &ContainerStatus,
    waiting: &ContainerStateWaiting,
) -> StartCause {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let is_of_image = IMAGE_FAILED.contains(&reason) || NOT_CREATED.contains(&reason);
    if !is_of_image && !is_unstartable(container) {
        return StartCause::Unknown;
    }
    if container.name == HOLDER_CONTAINER || waits_for_server(pod, container, waiting) {
        return StartCause::Host;
    }
    let message = waiting.message.as_deref();
    let is_away = reason == REGISTRY_AWAY || is_not_of_image(message);
    if is_away && !is_refused(message) { StartCause::Unknown } else { StartCause::Image }
}

/// Whether a registry has no such image for us.
fn is_refused(message: Option<&str>) -> bool {
    message.is_some_and(|message| PULL_REFUSED.iter().any(|refusal| message.contains(refusal)))
}

/// Whether this keeps every image from a node, good ones too: then none of them is blamed. "unexpected
/// status from HEAD request to …: 503 Service Unavailable"
fn is_not_of_image(message: Option<&str>) -> bool {
    let is_status = |part: &str| {
        let code = part.split_whitespace().next().and_then(|code| code.parse::<u16>().ok());
        code.is_some_and(|code| code == 429 || (500..600).contains(&code))
    };
    message.is_some_and(|message| {
        NOT_OF_IMAGE.iter().any(|text| message.contains(text))
            || message.split(": ").skip(1).any(is_status)
    })
}

/// Whether a container will not run, however long one waits. An image whose pull has failed is
/// pulled again, unless its registry refuses it: registries fail now and then.
fn is_stuck(waiting: &ContainerStateWaiting) -> bool {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let is_pull = matches!(reason, "ErrImagePull" | "ImagePullBackOff");
    if is_pull && is_refused(waiting.message.as_deref()) {
        return true;
    }
    matches!(
        reason,
        "ErrImageNeverPull"
            | "InvalidImageName"
            | "CreateContainerConfigError"
            | "CrashLoopBackOff"
    )
}

/// How far the startup of a pod that is not ready yet has come.
pub(crate) fn startup_phase(pod: &Pod) -> StartupPhase {
    let Some(status) = &pod.status else { return StartupPhase::Waiting };
    let containers = status.container_statuses.iter().flatten();
    let mut servers = containers.chain(server_beside_program(status));
    let started = servers.any(|container| container.started == Some(true));
    // Once the sandbox is there and no container runs, the image is being pulled.
    match (started, is_met(status, "PodReadyToStartContainers"), is_met(status, "PodScheduled")) {
        (true, _, _) => StartupPhase::Starting,
        (_, true, _) => StartupPhase::Pulling,
        (_, _, true) => StartupPhase::Scheduled,
        _ => StartupPhase::Waiting,
    }
}

#[cfg(test)]
mod tests;
