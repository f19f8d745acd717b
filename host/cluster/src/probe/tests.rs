use super::*;
use crate::guard::Allowed;
use crate::objects::JobSettings;
use crate::ssh_server::{INIT_CONTAINER, SshServer};
use paygress_core::backend::cluster::LOGIN_MOUNT_PATH;
use paygress_core::backend::policy::{Placement, Rendered, Resources};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{ImageRef, LeaseId, TierId};
use paygress_core::model::login::{Login, LoginFields};
use paygress_core::model::refusal::Refusal;
use paygress_sshd::{HOST_KEY_SECRET, HostKeySecret};
use serde_json::{Value, json};

const KEPT: Seconds = Seconds(60);

/// That of a template with a Service, whose container starts so, with a copy of the server.
fn objects(user: PodUser, command: &Value) -> Objects {
    let form = PodForm { user, volume: ServerVolume::Copy };
    objects_in(form, ReplyStep::Present, command)
}

fn objects_in(form: PodForm, reply: ReplyStep, command: &Value) -> Objects {
    objects_of(form, reply, command, Run::Ssh)
}

fn objects_of(form: PodForm, reply: ReplyStep, command: &Value, run: Run) -> Objects {
    let lease = LeaseId::of_probe();
    let pod = lease.pod_name().to_string();
    let template = json!({"spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000},
        "containers": [{
            "name": "ssh",
            "image": "example.com/ssh:1",
            "command": command,
            "ports": [{"containerPort": 2222, "hostPort": 20000}],
            "readinessProbe": {"exec": {"command": ["true"]}},
        }],
    }});
    let service = json!({"spec": {"ports": [{"port": 80}]}});
    let plan = LeasePlan {
        lease,
        tier: TierId::parse("basic").unwrap(),
        placement: Placement {
            pod_name: pod.clone(),
            image: ImageRef::parse("example.com/ssh:1").unwrap(),
            resources: Resources { cpu_millicores: 100, memory_mib: 128 },
            host_port: Some(20_000),
            access: AccessModes::default(),
            container_port: 2_222,
            secret_name: pod,
            secret_mount_path: LOGIN_MOUNT_PATH.to_owned(),
        },
        rendered: Rendered {
            pod_template_json: template.to_string(),
            services_json: vec![service.to_string()],
            egress: None,
        },
        login: Login::check(LoginFields::default()).unwrap(),
        sold: Seconds(60),
        pod_reply: None,
        run,
    };
    let settings = JobSettings {
        instance: "test",
        ready_within: Seconds(120),
        ttl: KEPT,
        allowed: &Allowed::default(),
        ssh_server: Some(SshServer { image: "example.com/server:1", form }),
        host_key_secret: &HostKeySecret::derive(b"a test", "a pod"),
        contact: None,
        reply,
    };
    Objects::of(&plan, &settings).unwrap()
}

#[test]
fn a_probe_takes_no_port_of_the_nodes_and_is_ready_when_its_server_is() {
    let mut made = objects(PodUser::Template, &Value::Null);
    assert_eq!(made.services.len(), 1);
    let server = as_probe(&mut made, 2_222, KEPT);
    assert_eq!((server, made.services.len()), (Server::Copied, 0));
    let job = serde_json::to_value(&made.job).unwrap();
    let spec = &job["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["ports"], Value::Null);
    let probe = json!({"tcpSocket": {"port": 2222}, "periodSeconds": 1});
    assert_eq!(container["readinessProbe"], probe);
    // It has no end that must be recorded, and ends by itself if we die.
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 60);
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 180);
    assert_eq!(spec["terminationGracePeriodSeconds"], 1, "it gives way at once");
    let secret = serde_json::to_value(&made.secret).unwrap();
    for metadata in [&job["metadata"], &secret["metadata"], &job["spec"]["template"]["metadata"]] {
        assert_eq!(metadata["labels"]["paygress.dev/probe"], "true");
    }
    assert_eq!(spec["hostUsers"], Value::Null);
    assert_eq!(spec["initContainers"][1]["name"], "paygress-reply");
    assert!(made.reply.is_none(), "it has nothing to write");
}

#[test]
fn as_root_it_is_what_customers_get() {
    let mut made = objects(PodUser::Root, &Value::Null);
    assert_eq!(as_probe(&mut made, 2_222, KEPT), Server::Copied);
    let (probe, sold) = (made.pod().spec, objects(PodUser::Root, &Value::Null).pod().spec);
    let (probe, sold) = (probe.unwrap(), sold.unwrap());
    assert_eq!(probe.host_users, Some(false));
    assert_eq!(probe.init_containers, sold.init_containers);
    let mut own = objects(PodUser::Root, &json!(["/usr/sbin/sshd", "-D"]));
    assert_eq!(as_probe(&mut own, 2_222, KEPT), Server::Own);
}

#[test]
fn with_the_server_mounted_it_has_no_init_container_and_the_secret_to_prove_it() {
    for user in [PodUser::Root, PodUser::Template] {
        let form = PodForm { user, volume: ServerVolume::Image };
        let mut made = objects_in(form, ReplyStep::Absent, &Value::Null);
        assert_eq!(as_probe(&mut made, 2_222, KEPT), Server::Mounted);
        let spec = made.pod().spec.unwrap();
        assert_eq!(spec.init_containers, None);
        assert_eq!(mounted_image(&spec), Some("example.com/server:1"));
        let secret = made.secret.data.unwrap();
        assert_eq!(secret[HOST_KEY_SECRET].0.len(), 32);
    }
    let form = PodForm { user: PodUser::Root, volume: ServerVolume::Image };
    let own = json!(["/usr/sbin/sshd", "-D"]);
    let mut own = objects_in(form, ReplyStep::Absent, &own);
    assert_eq!(as_probe(&mut own, 2_222, KEPT), Server::Own);
}

#[test]
fn with_its_images_program_it_is_ready_when_the_server_beside_it_is() {
    let form = PodForm { user: PodUser::Root, volume: ServerVolume::Copy };
    let mut made = objects_of(form, ReplyStep::Absent, &Value::Null, Run::Image);
    assert_eq!(as_probe(&mut made, 2_222, KEPT), Server::Copied);
    let job = serde_json::to_value(&made.job).unwrap();
    let spec = &job["spec"]["template"]["spec"];
    let names = |field: &str| {
        let containers = spec[field].as_array().unwrap().iter();
        containers.map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("initContainers"), ["paygress-ssh", "ssh", "paygress-image"]);
    assert_eq!(names("containers"), ["paygress-pod"]);
    let probe = json!({"tcpSocket": {"port": 2222}, "periodSeconds": 1});
    for (container, expected) in [
        (&spec["initContainers"][1], &probe),
        (&spec["initContainers"][2], &Value::Null),
        (&spec["containers"][0], &Value::Null),
    ] {
        assert_eq!(container["readinessProbe"], *expected, "{container}");
    }
    assert_eq!(spec["containers"][0]["ports"], Value::Null, "it takes no port of the node");
}

/// A pod with the image with the server mounted, whose container is so.
fn mounted(state: &Value) -> Pod {
    let container = json!({"name": "ssh", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    let volume = json!({"name": "paygress", "image": {"reference": "example.com/server:1"}});
    let spec = json!({"containers": [], "volumes": [volume]});
    let status = json!({"containerStatuses": [container]});
    serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
}

#[test]
fn a_mounted_server_that_does_not_start_may_do_so_as_a_copy() {
    let waits =
        |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let ended = |code: i32| json!({"terminated": {"exitCode": code}});
    let pull = |image: &str| format!("failed to pull and unpack image \"{image}\"");
    for (state, expected, may_copy) in [
        (waits("ErrImagePull", &pull("example.com/server:1")), ProbeProblem::ServerImage, false),
        (waits("ErrImagePull", &pull("docker.io/library/i:1")), ProbeProblem::Image, false),
        (waits("CreateContainerError", "stat : no such file"), ProbeProblem::NotStarted, true),
        (ended(77), ProbeProblem::NotStarted, true),
        (ended(0), ProbeProblem::NotStarted, true),
        (waits("CrashLoopBackOff", ""), ProbeProblem::NotStarted, true),
        (json!({"running": {}}), ProbeProblem::Port, true),
    ] {
        let found = problem(&ClusterError::not_ready("a test"), Some(&mounted(&state)));
        assert_eq!(found, expected, "{state}");
        assert_eq!(may_start_with_copy(found), may_copy, "{state}");
    }
    assert!(may_start_with_copy(ProbeProblem::Refused), "an older admission policy");
}

/// It is given up much sooner than the pod of an order, which waits for the proof as well.
#[test]
fn a_mounted_server_that_proves_nothing_may_do_so_as_a_copy() {
    let running = json!({"running": {}});
    let conditions = || serde_json::from_value(json!([{"type": "Ready", "status": "True"}])).ok();
    let mut unproved = mounted(&running);
    unproved.status.as_mut().unwrap().conditions = conditions();
    let found = problem(&ClusterError::not_ready("a test"), Some(&unproved));
    assert_eq!(found, ProbeProblem::NotStarted);
    assert!(may_start_with_copy(found) && found.stops_sales());
    let mut copied = started(&json!({"terminated": {"exitCode": 0}}), &running);
    copied.status.as_mut().unwrap().conditions = conditions();
    let is_stuck = |pod: &Pod| STUCK.iter().any(|stuck| (stuck.is_so)(pod));
    assert!(is_stuck(&unproved));
    assert!(!is_stuck(&mounted(&running)), "the kubelet does not report it as ready");
    assert!(!is_stuck(&copied), "it has reported its host keys");
}

#[test]
fn a_runtime_without_such_volumes_is_not_waited_for() {
    let waits = |reason: &str| json!({"waiting": {"reason": reason}});
    assert!(is_mount_refused(&mounted(&waits("CreateContainerError"))));
    assert!(!is_mount_refused(&mounted(&waits("ContainerCreating"))));
    assert!(!is_mount_refused(&mounted(&json!({"running": {}}))));
    let copied = started(&json!({"terminated": {"exitCode": 0}}), &waits("CreateContainerError"));
    assert!(!is_mount_refused(&copied), "its image may be the reason");
}

fn started(init: &Value, main: &Value) -> Pod {
    let status = |name: &str, state: &Value| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    let (init, main) = (status(INIT_CONTAINER, init), status("ssh", main));
    let status = json!({"initContainerStatuses": [init], "containerStatuses": [main]});
    serde_json::from_value(json!({"status": status})).unwrap()
}

#[test]
fn the_containers_tell_what_is_wrong() {
    let waits = |reason: &str| json!({"waiting": {"reason": reason, "message": "why"}});
    let ended = |code: i32| json!({"terminated": {"exitCode": code, "message": "why"}});
    let (initializing, running) = (waits("PodInitializing"), json!({"running": {}}));
    let never = ClusterError::not_ready("a test");
    for (init, main, expected) in [
        (waits("ErrImagePull"), &initializing, ProbeProblem::ServerImage),
        (waits("ImagePullBackOff"), &initializing, ProbeProblem::ServerImage),
        (ended(0), &waits("ImagePullBackOff"), ProbeProblem::Image),
        (ended(0), &waits("InvalidImageName"), ProbeProblem::Image),
        (ended(0), &waits("CrashLoopBackOff"), ProbeProblem::Exited),
        (ended(0), &ended(0), ProbeProblem::Exited),
        (ended(0), &ended(127), ProbeProblem::Exited),
        (ended(0), &running, ProbeProblem::Port),
        (ended(1), &initializing, ProbeProblem::NotStarted),
        (ended(0), &waits("ContainerCreating"), ProbeProblem::NotStarted),
        (running.clone(), &initializing, ProbeProblem::NotStarted),
    ] {
        let pod = started(&init, main);
        for error in [&never, &ClusterError::NotFound] {
            assert_eq!(problem(error, Some(&pod)), expected, "{init}, {main}");
        }
    }
    // A node has it, and the server did not come.
    let unserved = ClusterError::not_scheduled("a test");
    for (init, expected) in
        [(waits("ErrImagePull"), ProbeProblem::ServerImage), (ended(1), ProbeProblem::NotStarted)]
    {
        let mut pod = started(&init, &initializing);
        assert_eq!(problem(&unserved, Some(&pod)), ProbeProblem::Full, "no node has it");
        let scheduled = json!([{"type": "PodScheduled", "status": "True"}]);
        let conditions = serde_json::from_value(scheduled).unwrap();
        pod.status.as_mut().unwrap().conditions = Some(conditions);
        assert_eq!(problem(&unserved, Some(&pod)), expected, "{init}");
    }
    let failed = started(&ended(1), &initializing);
    assert_eq!(failing_message(failed.status.as_ref().unwrap()), Some("why"));
    assert_eq!(problem(&never, None), ProbeProblem::NotStarted);
}

#[test]
fn a_probe_gives_way_once_it_was_launched() {
    // The dry run may meet these, or the launch.
    let refused = Refusal::new(ErrorType::ResourceUnavailable, "a test");
    for error in [ClusterError::Refused(refused), ClusterError::unavailable("a test")] {
        assert!(!is_of_pod(&error), "{error}");
    }
    for error in [
        ClusterError::NotFound,
        ClusterError::not_ready("it ended during startup"),
        ClusterError::not_scheduled("its SSH server is not installed"),
        ClusterError::image_failed("a test"),
    ] {
        assert!(is_of_pod(&error), "{error}");
    }
    // A Job that has ended is still there when it is looked for.
    let mut made = objects(PodUser::Template, &Value::Null);
    as_probe(&mut made, 2_222, Seconds(0));
    assert_eq!(made.job.spec.unwrap().ttl_seconds_after_finished, Some(60));
}

#[test]
fn a_full_cluster_or_one_that_is_away_closes_nothing_and_a_missing_right_does() {
    let refused = |code| ClusterError::Refused(Refusal::new(code, "a test"));
    for (error, expected, is_closed) in [
        (refused(ErrorType::ResourceUnavailable), ProbeProblem::Full, false),
        (ClusterError::not_scheduled("a test"), ProbeProblem::Full, false),
        (ClusterError::unavailable("a test"), ProbeProblem::Unavailable, false),
        (refused(ErrorType::PolicyUnavailable), ProbeProblem::Policies, false),
        (refused(ErrorType::BackendError), ProbeProblem::Refused, true),
    ] {
        assert_eq!(problem(&error, None), expected, "{error}");
        assert_eq!(expected.stops_sales(), is_closed, "{error}");
    }
    // None of these has to do with root.
    for problem in [
        ProbeProblem::Image,
        ProbeProblem::ServerImage,
        ProbeProblem::Login,
        ProbeProblem::Full,
        ProbeProblem::GaveWay,
    ] {
        assert!(!may_start_without_root(problem), "{problem:?}");
    }
    assert!(may_start_without_root(ProbeProblem::Refused), "an older admission policy");
}
