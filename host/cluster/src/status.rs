//! What the status of a Job or a pod says about a lease.

use crate::ssh_server::INIT_CONTAINER;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod, PodStatus};
use paygress_core::backend::cluster::{ClusterError, EndReason, StartupPhase};
use paygress_core::limits;
use paygress_core::model::host_key::HostKey;
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
/// Why a container has ended whose image does not run: its program is missing, or of another
/// architecture.
const NOT_STARTED: [&str; 2] = ["StartError", "ContainerCannotRun"];

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

/// Why a finished Job's pod has ended, by the Job's reason and the pods that it still has, if they
/// are known. A pod that exited by itself still exists, with the reason of its containers; one that
/// was deleted does not. A pod that may have caused its own eviction was not disrupted by the
/// cluster.
pub(crate) fn cause(reason: EndReason, pods: Option<&[Pod]>) -> EndReason {
    match (reason, pods) {
        (EndReason::Exited, Some([])) => EndReason::Removed,
        (EndReason::Exited, Some(pods)) => {
            let is_killed = |pod: &Pod| is_any_terminated(pod, &["OOMKilled"]);
            if pods.iter().any(is_killed) { EndReason::OutOfMemory } else { reason }
        }
        (EndReason::Disrupted, Some(pods)) => {
            pods.iter().find_map(end_by_own_use).unwrap_or(reason)
        }
        _ => reason,
    }
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
        let message = "it ended during startup";
        return Some(Err(match is_any_terminated(pod, &NOT_STARTED) {
            true => ClusterError::image_failed(message),
            false => ClusterError::not_ready(message),
        }));
    }
    if is_met(status, "Ready") {
        return Some(Ok(()));
    }
    let unschedulable = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(message) = unschedulable.and_then(|condition| condition.message.as_deref()) {
        if message.contains("free ports") {
            return Some(Err(ClusterError::port_taken(message)));
        }
        if waited >= unschedulable_within {
            tracing::warn!(message, "no node has room for a pod");
            return Some(Err(ClusterError::not_scheduled("no node has room for it")));
        }
    }
    let waiting = waiting(status).find(is_stuck)?;
    let reason = waiting.reason.clone().unwrap_or_default();
    tracing::warn!(reason, message = waiting.message, "a pod cannot start");
    Some(Err(of_waiting(&reason, reason.clone())))
}

/// The error of a pod with a container that waits for this reason.
fn of_waiting(reason: &str, message: String) -> ClusterError {
    match IMAGE_FAILED.contains(&reason) {
        true => ClusterError::image_failed(message),
        false => ClusterError::not_ready(message),
    }
}

/// Whether a container of the pod has ended for one of these reasons.
fn is_any_terminated(pod: &Pod, reasons: &[&str]) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().any(|container| {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        let reason = ended.and_then(|ended| ended.reason.as_deref());
        reason.is_some_and(|reason| reasons.contains(&reason))
    })
}

fn is_met(status: &PodStatus, condition_type: &str) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == condition_type && condition.status == "True")
}

/// Why a pod that has not become ready in time has not.
pub(crate) fn unready(pod: Option<&Pod>) -> ClusterError {
    let status = pod.and_then(|pod| pod.status.as_ref());
    match status.and_then(|status| waiting(status).find_map(|it| it.reason.clone())) {
        Some(reason) => of_waiting(&reason, format!("it took too long ({reason})")),
        None if status.is_some_and(|status| is_met(status, "PodScheduled")) => {
            ClusterError::not_ready("it took too long")
        }
        None => ClusterError::not_scheduled("it took too long"),
    }
}

/// The containers that do not run yet, those first for which the others wait.
fn waiting(status: &PodStatus) -> impl Iterator<Item = &ContainerStateWaiting> {
    containers(status).filter_map(|container| container.state.as_ref()?.waiting.as_ref())
}

/// The init container, and the customer's.
pub(crate) fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

/// What the init container has left as its termination message. No program of the customer ran
/// before it ended.
fn init_message(pod: &Pod) -> impl Iterator<Item = &str> {
    let ended = pod
        .status
        .iter()
        .flat_map(|status| status.init_container_statuses.iter().flatten())
        .filter(|container| container.name == INIT_CONTAINER)
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    ended
        .filter_map(|terminated| terminated.message.as_deref())
        .flat_map(str::lines)
        .take(MESSAGE_LINES)
}

/// The public keys of the pod's SSH server, a line each of that message.
pub(crate) fn host_keys(pod: &Pod) -> Vec<HostKey> {
    init_message(pod).filter_map(|line| HostKey::parse(line).ok()).take(limits::HOST_KEYS).collect()
}

/// Whether root of this pod is another user on the node: the message of a probe pod has the lines
/// of `/proc/self/uid_map`, the first user inside, the same outside, and how many follow.
pub(crate) fn is_root_mapped(pod: &Pod) -> bool {
    init_message(pod).any(|line| {
        let numbers: Vec<u64> =
            line.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect();
        matches!(numbers.as_slice(), [0, outside, _] if *outside != 0)
    })
}

/// Whether a container will not run, however long one waits. An image whose pull has failed is
/// pulled again: registries fail now and then.
fn is_stuck(waiting: &&ContainerStateWaiting) -> bool {
    matches!(
        waiting.reason.as_deref(),
        Some(
            "ErrImageNeverPull"
                | "InvalidImageName"
                | "CreateContainerConfigError"
                | "CrashLoopBackOff"
        )
    )
}

/// How far the startup of a pod that is not ready yet has come.
pub(crate) fn startup_phase(pod: &Pod) -> StartupPhase {
    let Some(status) = &pod.status else { return StartupPhase::Waiting };
    let started =
        status.container_statuses.iter().flatten().any(|container| container.started == Some(true));
    // Once the sandbox is there and no container runs, the image is being pulled.
    match (started, is_met(status, "PodReadyToStartContainers"), is_met(status, "PodScheduled")) {
        (true, _, _) => StartupPhase::Starting,
        (_, true, _) => StartupPhase::Pulling,
        (_, _, true) => StartupPhase::Scheduled,
        _ => StartupPhase::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::testing::HOST_KEY;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"status": status})).unwrap()
    }

    /// As the kubelet of Kubernetes 1.34 writes them.
    #[test]
    fn who_used_more_disk_than_they_requested_caused_their_eviction_and_who_used_inodes_may_have() {
        let low = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 0. ";
        let own = format!(
            "{low}Container ssh was using 3Gi, request is 2Gi, has larger consumption of ephemeral-storage. "
        );
        let overcommitted = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. Container ssh was using 900Mi, request is 512Mi, has larger consumption of memory. ";
        let inodes =
            "The node was low on resource: inodes. Threshold quantity: 65536, available: 12. ";
        let pids = "The node was low on resource: pids. Threshold quantity: 3276, available: 3k. ";
        for (reason, message, end) in [
            ("Evicted", own.as_str(), Some(EndReason::OutOfDisk)),
            ("Evicted", low, None),
            ("Evicted", overcommitted, None),
            ("Evicted", inodes, Some(EndReason::Evicted)),
            ("Evicted", "The node was low on resource: inodes. ", Some(EndReason::Evicted)),
            ("Evicted", pids, Some(EndReason::Evicted)),
            ("Evicted", "The node had condition: [DiskPressure]. ", None),
            ("Evicted", "The node had condition: [PIDPressure]. ", None),
            ("Terminated", "Pod was terminated in response to imminent node shutdown.", None),
            ("Terminated", own.as_str(), None),
            ("Terminated", inodes, None),
        ] {
            let evicted = pod(json!({"phase": "Failed", "reason": reason, "message": message}));
            assert_eq!(end_by_own_use(&evicted), end, "{reason}: {message}");
        }
        assert_eq!(end_by_own_use(&Pod::default()), None);
    }

    fn job_with(conditions: Value) -> Job {
        serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap()
    }

    fn job(reason: &str) -> Job {
        let condition = json!({"type": "Failed", "status": "True", "reason": reason});
        job_with(json!([condition]))
    }

    fn terminated(reason: &str, exit_code: i32) -> Pod {
        let state = json!({"terminated": {"reason": reason, "exitCode": exit_code}});
        let container = json!({"name": "ssh", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        pod(json!({"phase": "Failed", "containerStatuses": [container]}))
    }

    /// Whether it reached its own limit or its node had no memory left: the kubelet reports the
    /// same, and no DisruptionTarget. So neither is paid back; an eviction is.
    #[test]
    fn who_is_killed_for_lack_of_memory_is_not_paid_back_and_who_is_evicted_is() {
        let killed = terminated("OOMKilled", 137);
        assert_eq!(end_by_own_use(&killed), None);
        assert_eq!(cause(EndReason::Exited, Some(&[killed])), EndReason::OutOfMemory);
        assert!(!EndReason::OutOfMemory.is_provider_fault());
        let exited = terminated("Error", 1);
        assert_eq!(cause(EndReason::Exited, Some(&[exited])), EndReason::Exited);
        for (reason, end, is_paid_back) in [
            ("BackoffLimitExceeded", EndReason::Exited, false),
            ("PodFailurePolicy", EndReason::Disrupted, true),
            ("DeadlineExceeded", EndReason::Expired, false),
        ] {
            assert_eq!(finished(&job(reason)), Some(end), "{reason}");
            assert_eq!(end.is_provider_fault(), is_paid_back, "{reason}");
        }
    }

    /// A service that was down finds no more than the Job and its pods.
    #[test]
    fn a_finished_job_tells_who_ended_its_pod() {
        let message = format!("Container ssh was using 3Gi, request is 2Gi, {EXCEEDED}. ");
        let exited = pod(json!({"phase": "Failed"}));
        let evicted_by = |message: &str| {
            pod(json!({"phase": "Failed", "reason": "Evicted", "message": message}))
        };
        let (evicted, low) = (evicted_by(&message), evicted_by(LOW_ON_UNLIMITED[0]));
        for (condition, reason, pods, end) in [
            ("Complete", "CompletionsReached", Some(&exited), EndReason::Exited),
            ("Failed", "BackoffLimitExceeded", Some(&exited), EndReason::Exited),
            // Somebody has deleted it.
            ("Failed", "BackoffLimitExceeded", None, EndReason::Removed),
            ("Failed", "PodFailurePolicy", Some(&exited), EndReason::Disrupted),
            ("Failed", "PodFailurePolicy", None, EndReason::Disrupted),
            ("Failed", "PodFailurePolicy", Some(&evicted), EndReason::OutOfDisk),
            ("Failed", "PodFailurePolicy", Some(&low), EndReason::Evicted),
            ("Failed", "DeadlineExceeded", None, EndReason::Expired),
        ] {
            let conditions =
                |kind: &str| json!([{"type": kind, "status": "True", "reason": reason}]);
            let found = finished(&job_with(conditions(condition))).unwrap();
            let pods: Vec<Pod> = pods.into_iter().cloned().collect();
            assert_eq!(cause(found, Some(&pods)), end, "{condition}, {reason}: {pods:?}");
            // Its pods are still being stopped.
            let stopping = job_with(conditions("FailureTarget"));
            assert_eq!((finished(&stopping), ended(&stopping)), (None, Some(found)));
        }
        assert_eq!(cause(EndReason::Exited, None), EndReason::Exited, "its pods are not known");
        let suspended = json!([{"type": "Suspended", "status": "False", "reason": "JobResumed"}]);
        assert_eq!(ended(&job_with(suspended)), None);
    }

    fn init(message: &Value) -> Pod {
        let state = json!({"terminated": {"exitCode": 0, "message": message}});
        let container = json!({"name": INIT_CONTAINER, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state});
        pod(json!({"initContainerStatuses": [container]}))
    }

    #[test]
    fn a_pod_tells_its_host_keys_by_the_message_of_its_init_container() {
        let key = HostKey::parse(HOST_KEY).unwrap();
        let lines = format!("{HOST_KEY}\n{HOST_KEY} root@pod\nno key\n");
        assert_eq!(host_keys(&init(&json!(lines))), [key.clone(), key]);
        for nothing in [json!(""), json!("ssh-ed25519 AAAA"), json!("\u{1b}[2J"), Value::Null] {
            assert!(host_keys(&init(&nothing)).is_empty(), "{nothing}");
        }
        // Whatever the image writes.
        let many = format!("{HOST_KEY}\n").repeat(10_000);
        assert_eq!(host_keys(&init(&json!(many))).len(), limits::HOST_KEYS);
        let noise = format!("{}{HOST_KEY}", "x\n".repeat(10_000));
        assert!(host_keys(&init(&json!(noise))).is_empty());
        assert!(host_keys(&Pod::default()).is_empty());
        let mut other = init(&json!(HOST_KEY));
        let statuses = other.status.as_mut().unwrap().init_container_statuses.as_mut().unwrap();
        statuses[0].name = "other".to_owned();
        assert!(host_keys(&other).is_empty(), "of another container");
    }

    #[test]
    fn root_is_mapped_where_its_user_has_another_number_outside() {
        let with_keys = format!("{HOST_KEY}\n         0 2985230336      65536\n");
        for (message, is_mapped) in [
            (with_keys.as_str(), true),
            ("         0     100000      65536", true),
            // Of the node itself.
            ("         0          0 4294967295", false),
            ("      1000     100000          1", false),
            ("0 100000", false),
            ("0 100000 65536 1", false),
            ("0 -1 65536", false),
            ("", false),
        ] {
            assert_eq!(is_root_mapped(&init(&json!(message))), is_mapped, "{message}");
        }
    }

    #[test]
    fn an_init_container_that_cannot_start_is_seen_before_the_one_that_waits_for_it() {
        let status = |name: &str, reason: &str| {
            let state = json!({"waiting": {"reason": reason}});
            json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
        };
        let both = |reason: &str| {
            let (init, main) = (status(INIT_CONTAINER, reason), status("ssh", "PodInitializing"));
            pod(json!({"initContainerStatuses": [init], "containerStatuses": [main]}))
        };
        let overdue = unready(Some(&both("ImagePullBackOff"))).to_string();
        assert!(overdue.ends_with("it took too long (ImagePullBackOff)"), "{overdue}");
        let stuck = readiness(&both("InvalidImageName"), Duration::ZERO, UNSCHEDULABLE);
        assert!(matches!(stuck, Some(Err(ClusterError::NotReady(_)))), "{stuck:?}");
    }

    fn waiting_for(reason: &str) -> Pod {
        let state = json!({"waiting": {"reason": reason}});
        let container = json!({"name": "ssh", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        pod(json!({"containerStatuses": [container]}))
    }

    /// Whether the image is at fault, or else the pod.
    fn is_of_image(error: &ClusterError) -> bool {
        match error {
            ClusterError::ImageFailed(_) => true,
            ClusterError::NotReady(_) => false,
            error => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_failed_pull_is_waited_for_and_a_wrong_name_is_not() {
        for reason in ["ErrImagePull", "ImagePullBackOff", "ContainerCreating"] {
            let pod = waiting_for(reason);
            assert!(readiness(&pod, Duration::from_secs(100), UNSCHEDULABLE).is_none(), "{reason}");
            let overdue = unready(Some(&pod));
            assert_eq!(is_of_image(&overdue), reason != "ContainerCreating", "{overdue:?}");
            assert!(overdue.to_string().ends_with(&format!(": it took too long ({reason})")));
        }
        for (reason, of_image) in
            [("InvalidImageName", true), ("ErrImageNeverPull", true), ("CrashLoopBackOff", false)]
        {
            let result = readiness(&waiting_for(reason), Duration::ZERO, UNSCHEDULABLE);
            let Some(Err(error)) = result else { panic!("{result:?}") };
            assert_eq!(is_of_image(&error), of_image, "{error:?}");
            assert!(error.to_string().ends_with(&format!(": {reason}")), "{error}");
        }
        for (reason, of_image) in
            [("StartError", true), ("ContainerCannotRun", true), ("Error", false)]
        {
            let result = readiness(&terminated(reason, 128), Duration::ZERO, UNSCHEDULABLE);
            let Some(Err(error)) = result else { panic!("{result:?}") };
            assert_eq!(is_of_image(&error), of_image, "{error:?}");
        }
        let scheduled =
            |status: &str| pod(json!({"conditions": [{"type": "PodScheduled", "status": status}]}));
        let overdue = unready(Some(&scheduled("True")));
        assert!(matches!(overdue, ClusterError::NotReady(_)), "{overdue:?}");
        for pod in [None, Some(&scheduled("False"))] {
            let overdue = unready(pod);
            assert!(matches!(overdue, ClusterError::NotScheduled(_)), "{overdue:?}");
        }
    }

    #[test]
    fn an_unschedulable_pod_waits_as_long_as_a_node_may_be_added() {
        let unschedulable = |message: &str| {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
            pod(json!({"phase": "Pending", "conditions": [condition]}))
        };
        let full = unschedulable("0/1 nodes are available: 1 Insufficient cpu.");
        let seconds = Duration::from_secs;
        assert!(readiness(&full, seconds(29), UNSCHEDULABLE).is_none());
        let refused = readiness(&full, seconds(30), UNSCHEDULABLE);
        assert!(matches!(refused, Some(Err(ClusterError::NotScheduled(_)))), "{refused:?}");
        assert!(readiness(&full, seconds(119), seconds(120)).is_none(), "a node is being added");
        let port = unschedulable("0/1 nodes are available: 1 node(s) didn't have free ports.");
        let taken = readiness(&port, Duration::ZERO, seconds(120));
        assert!(matches!(taken, Some(Err(ClusterError::PortTaken(_)))), "{taken:?}");
    }
}
