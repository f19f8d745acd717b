mod pulls;

use super::*;
use crate::ssh_server::REPLY_CONTAINER;
use paygress_core::limits;
use paygress_core::testing::HOST_KEY;
use serde_json::{Value, json};

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({"status": status})).unwrap()
}

/// As the kubelet of Kubernetes 1.34 writes them.
#[test]
fn who_used_more_disk_than_they_requested_caused_their_eviction_and_who_used_inodes_may_have() {
    let low =
        "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 0. ";
    let own = format!(
        "{low}Container ssh was using 3Gi, request is 2Gi, has larger consumption of ephemeral-storage. "
    );
    let overcommitted = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. Container ssh was using 900Mi, request is 512Mi, has larger consumption of memory. ";
    let inodes = "The node was low on resource: inodes. Threshold quantity: 65536, available: 12. ";
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

#[test]
fn a_pod_is_replaced_once_another_one_of_its_job_takes_logins() {
    let job = |status: Value| serde_json::from_value(json!({"status": status})).unwrap();
    for (status, expected) in [
        (json!({"active": 1, "ready": 1, "failed": 1}), true),
        (json!({"active": 1, "ready": 0, "failed": 1}), false),
        (json!({"active": 1, "ready": 1}), false),
        (
            json!({"failed": 1, "ready": 1, "conditions": [{"type": "Failed", "status": "True"}]}),
            false,
        ),
        (json!({}), false),
    ] {
        assert_eq!(is_replaced(&job(status.clone())), expected, "{status}");
    }
    let ready = |more: Value| {
        let conditions = json!([{"type": "Ready", "status": "True"}]);
        let pod = json!({"metadata": more, "status": {"conditions": conditions}});
        is_ready(&serde_json::from_value(pod).unwrap())
    };
    assert!(ready(json!({})));
    assert!(!ready(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})));
    assert!(!is_ready(&Pod::default()));
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
    let evicted_by =
        |message: &str| pod(json!({"phase": "Failed", "reason": "Evicted", "message": message}));
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
        let conditions = |kind: &str| json!([{"type": kind, "status": "True", "reason": reason}]);
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

/// The Job deletes the pod whose containers its customer has ended too often.
#[test]
fn who_ends_a_pod_whose_containers_are_restarted_is_not_paid_back() {
    let exited = pod(json!({"phase": "Failed"}));
    for (policy, pods, end) in [
        ("OnFailure", vec![], EndReason::Exited),
        ("OnFailure", vec![exited.clone()], EndReason::Exited),
        ("OnFailure", vec![terminated("OOMKilled", 137)], EndReason::OutOfMemory),
        ("Never", vec![], EndReason::Removed),
        ("Never", vec![exited], EndReason::Exited),
    ] {
        let template = json!({"spec": {"containers": [], "restartPolicy": policy}});
        let job: Job = serde_json::from_value(json!({"spec": {"template": template}})).unwrap();
        let found = cause_in(&job, EndReason::Exited, Some(&pods));
        assert_eq!(found, end, "{policy}: {pods:?}");
    }
    assert_eq!(cause_in(&Job::default(), EndReason::Exited, Some(&[])), EndReason::Removed);
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
    assert!(matches!(stuck, Some(Err(ClusterError::NotScheduled(_)))), "{stuck:?}");
}

/// Else the customer of an image of their own would bear a fee for it.
#[test]
fn a_pod_whose_server_is_not_installed_has_not_failed_by_its_image() {
    let of = |init: Value, main: Value, phase: &str| {
        let status = |name: &str, state: Value| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let (init, main) = (status(INIT_CONTAINER, init), status("ssh", main));
        pod(json!({"phase": phase, "initContainerStatuses": [init], "containerStatuses": [main]}))
    };
    let ended = |code: i32| json!({"terminated": {"exitCode": code}});
    let waits = |reason: &str| json!({"waiting": {"reason": reason}});
    let initializing = waits("PodInitializing");
    for init in
        [waits("ImagePullBackOff"), waits("PodInitializing"), json!({"running": {}}), ended(1)]
    {
        let overdue = unready(Some(&of(init.clone(), initializing.clone(), "Pending")));
        assert!(matches!(overdue, ClusterError::NotScheduled(_)), "{init}: {overdue:?}");
        assert!(overdue.to_string().contains("its SSH server is not installed"), "{overdue}");
    }
    let failed = of(ended(1), initializing, "Failed");
    let failed = readiness(&failed, Duration::ZERO, UNSCHEDULABLE);
    assert!(matches!(failed, Some(Err(ClusterError::NotScheduled(_)))), "{failed:?}");
    // Nor one whose container that writes to the customer does not start or fails.
    for reply in [waits("ImagePullBackOff"), json!({"running": {}}), ended(127)] {
        let mut replying = of(ended(0), waits("PodInitializing"), "Pending");
        let statuses = replying.status.as_mut().unwrap().init_container_statuses.as_mut().unwrap();
        let mut status = serde_json::to_value(&statuses[0]).unwrap();
        (status["name"], status["state"]) = (json!(REPLY_CONTAINER), reply.clone());
        statuses.push(serde_json::from_value(status).unwrap());
        let overdue = unready(Some(&replying));
        assert!(matches!(overdue, ClusterError::NotScheduled(_)), "{reply}: {overdue:?}");
    }
    // What comes after them is the customer's.
    let own = unready(Some(&of(ended(0), waits("ErrImagePull"), "Pending")));
    assert!(matches!(own, ClusterError::ImageFailed(_)), "{own:?}");
    let own = readiness(&of(ended(0), ended(1), "Failed"), Duration::ZERO, UNSCHEDULABLE);
    assert!(matches!(own, Some(Err(ClusterError::NotReady(_)))), "{own:?}");
}

/// Of a pod into which the image with the server is mounted.
#[test]
fn a_mounted_server_that_does_not_come_is_not_the_fault_of_the_customers_image() {
    let of = |image: &str, phase: &str, state: &Value| -> Pod {
        let volume = json!({"name": "paygress", "image": {"reference": "r.example/server:1"}});
        let container = json!({"name": "ssh", "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let status = json!({"phase": phase, "containerStatuses": [container]});
        let spec = json!({"containers": [], "volumes": [volume]});
        serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
    };
    let waits =
        |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let pull = |image: &str| format!("failed to pull and unpack image \"{image}\": not found");
    let server = pull("r.example/server:1");
    let mount = "failed to mount image volume: ImageVolumeMountFailed: no such file".to_owned();
    for (image, reason, message, of_image) in [
        ("debian:13", "ErrImagePull", server.clone(), false),
        ("debian:13", "ImagePullBackOff", format!("Back-off pulling image: {server}"), false),
        ("r.example/server:1", "ErrImagePull", server, false),
        ("debian:13", "CreateContainerError", mount, false),
        ("debian:13", "ErrImagePull", pull("docker.io/library/debian:13"), true),
        // Whatever the customer's is called.
        ("x/r.example/server:1", "ErrImagePull", pull("docker.io/x/r.example/server:1"), true),
        ("r.example/server:1x", "ErrImagePull", pull("r.example/server:1x"), true),
        ("debian:13", "CreateContainerError", "no command specified".to_owned(), true),
    ] {
        let overdue = unready(Some(&of(image, "Pending", &waits(reason, &message))));
        assert_eq!(matches!(overdue, ClusterError::ImageFailed(_)), of_image, "{overdue:?}");
        assert_eq!(matches!(overdue, ClusterError::NotScheduled(_)), !of_image, "{overdue:?}");
    }
    // Its root would be that of the node.
    let ended = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error"}});
    for (code, of_server) in [(77, true), (1, false)] {
        let failed = of("debian:13", "Failed", &ended(code));
        let failed = readiness(&failed, Duration::ZERO, UNSCHEDULABLE);
        let is_of_server = matches!(failed, Some(Err(ClusterError::NotScheduled(_))));
        assert_eq!(is_of_server, of_server, "{failed:?}");
    }
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
    for (reason, of_image) in [
        ("InvalidImageName", true),
        ("ErrImageNeverPull", true),
        ("CreateContainerConfigError", true),
        ("CrashLoopBackOff", false),
    ] {
        let result = readiness(&waiting_for(reason), Duration::ZERO, UNSCHEDULABLE);
        let Some(Err(error)) = result else { panic!("{result:?}") };
        assert_eq!(is_of_image(&error), of_image, "{error:?}");
        assert!(error.to_string().ends_with(&format!(": {reason}")), "{error}");
    }
    for (reason, of_image) in [("StartError", true), ("ContainerCannotRun", true), ("Error", false)]
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

/// A pod with the image's own program beside its SSH server, with these of both.
fn beside_program(server: &Value, program: &Value) -> Pod {
    let status = |name: &str, more: &Value| {
        let mut status =
            json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0});
        for (field, value) in more.as_object().unwrap() {
            status[field.as_str()] = value.clone();
        }
        status
    };
    let installed = json!({"state": {"terminated": {"exitCode": 0}}});
    let initializing = json!({"state": {"waiting": {"reason": "PodInitializing"}}});
    let inits = [
        status(INIT_CONTAINER, &installed),
        status("ssh", server),
        status(PROGRAM_CONTAINER, program),
    ];
    let names = inits.iter().map(|init| json!({"name": init["name"]})).collect::<Vec<_>>();
    let containers = [status("paygress-pod", &initializing)];
    let status = json!({"phase": "Pending", "initContainerStatuses": inits, "containerStatuses": containers});
    let spec = json!({"initContainers": names, "containers": [{"name": "paygress-pod"}]});
    serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
}

#[test]
fn whatever_the_images_program_does_its_pod_is_ready_when_the_server_is() {
    let waits = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
    let serves = json!({"ready": true, "started": true, "state": {"running": {}}});
    let starts = json!({"started": true, "state": {"running": {}}});
    for program in [
        waits("PodInitializing"),
        waits("CrashLoopBackOff"),
        waits("CreateContainerError"),
        waits("ErrImageNeverPull"),
        json!({"state": {"terminated": {"exitCode": 1}}}),
        json!({"state": {"running": {}}}),
    ] {
        let ready = |server: &Value| {
            readiness(&beside_program(server, &program), Duration::ZERO, UNSCHEDULABLE)
        };
        assert!(matches!(ready(&serves), Some(Ok(()))), "{program}");
        assert!(ready(&starts).is_none(), "{program}");
        let failed = ready(&waits("CrashLoopBackOff"));
        assert!(matches!(failed, Some(Err(ClusterError::NotReady(_)))), "{program}: {failed:?}");
        let phase = startup_phase(&beside_program(&starts, &program));
        assert_eq!(phase, StartupPhase::Starting, "{program}");
        let overdue = unready(Some(&beside_program(&waits("ErrImagePull"), &program)));
        assert!(matches!(overdue, ClusterError::ImageFailed(_)), "{program}: {overdue:?}");
    }
}

/// Nor does its customer bear a fee for it, and nobody else has the image refused.
#[test]
fn what_holds_a_pod_beside_a_program_is_not_the_customers_image() {
    let server = json!({"started": true, "state": {"running": {}}});
    let pod = |phase: &str, holder: Value| {
        let mut pod = beside_program(&server, &json!({}));
        let status = pod.status.as_mut().unwrap();
        status.phase = Some(phase.to_owned());
        let holders = status.container_statuses.as_mut().unwrap();
        holders[0].state = Some(serde_json::from_value(holder).unwrap());
        pod
    };
    let waits = |reason: &str| pod("Pending", json!({"waiting": {"reason": reason}}));
    for reason in ["ErrImageNeverPull", "CreateContainerConfigError"] {
        let failed = readiness(&waits(reason), Duration::ZERO, UNSCHEDULABLE);
        assert!(matches!(failed, Some(Err(ClusterError::NotScheduled(_)))), "{reason}: {failed:?}");
    }
    for reason in ["ErrImagePull", "CreateContainerError"] {
        let overdue = unready(Some(&waits(reason)));
        assert!(matches!(overdue, ClusterError::NotScheduled(_)), "{reason}: {overdue:?}");
    }
    let ended = pod("Failed", json!({"terminated": {"reason": "StartError", "exitCode": 128}}));
    let failed = readiness(&ended, Duration::ZERO, UNSCHEDULABLE);
    assert!(matches!(failed, Some(Err(ClusterError::NotScheduled(_)))), "{failed:?}");
    let initializing = unready(Some(&waits("PodInitializing")));
    assert!(matches!(initializing, ClusterError::NotReady(_)), "{initializing:?}");
}

#[test]
fn how_an_images_program_is_is_known_of_pods_that_have_one() {
    let server = json!({"ready": true});
    let ended = json!({"terminated": {"exitCode": 0}});
    for (program, expected) in [
        (json!({"state": {"running": {}}}), ProgramState::Running),
        (json!({"state": {"running": {}}, "lastState": ended}), ProgramState::Running),
        (json!({"state": ended}), ProgramState::Failed),
        (
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}),
            ProgramState::Failed,
        ),
        (json!({"state": {"waiting": {"reason": "CreateContainerError"}}}), ProgramState::Failed),
        (json!({"state": {"waiting": {"reason": "PodInitializing"}}}), ProgramState::Waiting),
        (json!({}), ProgramState::Waiting),
    ] {
        let found = program_state(&beside_program(&server, &program));
        assert_eq!(found, Some(expected), "{program}");
    }
    assert_eq!(program_state(&Pod::default()), None);
    assert_eq!(program_state(&init(&json!(HOST_KEY))), None);
}

/// A sidecar is started again, and its pod does not end by it: only the kubelet's last state shows it.
#[test]
fn a_server_that_is_a_sidecar_is_classified_as_one_that_is_not() {
    let waits = |reason: &str, last: &str| {
        let last = json!({"terminated": {"reason": last, "exitCode": 128}});
        json!({"state": {"waiting": {"reason": reason}}, "lastState": last})
    };
    for (last, of_image) in
        [("StartError", true), ("ContainerCannotRun", true), ("Error", false), ("OOMKilled", false)]
    {
        let pod = beside_program(&waits("CrashLoopBackOff", last), &json!({}));
        let failed = readiness(&pod, Duration::ZERO, UNSCHEDULABLE);
        let Some(Err(error)) = failed else { panic!("{last}: {failed:?}") };
        assert_eq!(is_of_image(&error), of_image, "{last}: {error:?}");
        let overdue = unready(Some(&beside_program(&waits("RunContainerError", last), &json!({}))));
        assert_eq!(is_of_image(&overdue), of_image, "{last}: {overdue:?}");
        // Its pod is ended by somebody else meanwhile.
        let mut pod = beside_program(&waits("CrashLoopBackOff", last), &json!({}));
        pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        let ended = readiness(&pod, Duration::ZERO, UNSCHEDULABLE).unwrap().unwrap_err();
        assert_eq!(is_of_image(&ended), of_image, "{last}: {ended:?}");
    }
    let ended =
        |reason: &str| json!({"state": {"terminated": {"reason": reason, "exitCode": 137}}});
    for (server, program, end) in [
        (ended("OOMKilled"), ended("Error"), EndReason::OutOfMemory),
        (ended("Error"), ended("OOMKilled"), EndReason::Exited),
        (json!({"ready": true}), json!({}), EndReason::Exited),
    ] {
        let pod = beside_program(&server, &program);
        assert_eq!(cause(EndReason::Exited, Some(&[pod])), end, "{server}, {program}");
    }
}
