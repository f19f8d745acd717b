//! The probe pod: what an order would launch, but without a port of the nodes, and removed as soon
//! as it is ready, or will not become so.
//!
//! Where customers may be root it is launched as root of a user namespace first. If it starts only
//! without, customers are not root. Root that is not nobody on its node does not start, here and in
//! customers' pods (`ssh_server`). What it reaches of the cluster is noted too (`isolation`).
//!
//! Where orders may have `run: image`, another one is launched after it as for such an order. If that
//! one does not start, such orders are refused, and all others go on.

use crate::isolation::try_addresses;
use crate::kubernetes::Kubernetes;
use crate::objects::{Objects, ttl};
use crate::pod_reply::ReplyStep;
use crate::settings::PodRoot;
use crate::ssh_server::{PROGRAM_CONTAINER, PodUser, is_hosts};
use crate::status::{IMAGE_FAILED, containers, is_scheduled};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{self, Container, Pod, PodSpec, PodStatus, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use paygress_core::backend::cluster::{
    Cluster, ClusterError, LeasePlan, NetworkIsolation, Probe, ProbeProblem, StartupPhase,
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
const SANDBOX_POLL: Duration = Duration::from_secs(1);

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

    fn network_isolation(&self) -> NetworkIsolation {
        self.found_isolation()
    }
}

/// Whether the same pod may start when its user is not root.
fn may_start_without_root(problem: ProbeProblem) -> bool {
    match problem {
        ProbeProblem::Image
        | ProbeProblem::ServerImage
        | ProbeProblem::Full
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

impl Kubernetes {
    /// One with the SSH server alone, as root first where customers may be root.
    async fn probe_server(&self, plan: &LeasePlan) -> Option<ProbeProblem> {
        let settings = self.settings();
        let may_be_root = settings.root == PodRoot::Auto && settings.ssh_server_image.is_some();
        if may_be_root {
            match self.probe_as(plan, PodUser::Root).await {
                Ok(()) => {
                    self.set_user_namespaces(true);
                    return None;
                }
                Err(problem) if !may_start_without_root(problem) => return Some(problem),
                Err(problem) => {
                    tracing::warn!(?problem, "as root of a user namespace a probe pod fails");
                }
            }
        }
        match self.probe_as(plan, PodUser::Template).await {
            Ok(()) => {
                self.set_user_namespaces(false);
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
        let (plan, user) = (LeasePlan { run: Run::Image, ..plan.clone() }, self.user());
        if let Err(ClusterError::Refused(refusal)) = self.objects(&plan, user, ReplyStep::Absent)
            && refusal.code == ErrorType::InvalidSpec
        {
            tracing::info!(%refusal, "no pod of the default tier has its image's own program");
            return None;
        }
        match self.probe_as(&plan, user).await {
            Ok(()) => {
                self.set_image_program_failing(false);
                None
            }
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

    /// Launches a probe pod with this user, waits for it, and removes it.
    async fn probe_as(&self, plan: &LeasePlan, user: PodUser) -> Result<()> {
        // It has nothing to write, and shows whether the container that would is there.
        let reply = ReplyStep::of_settings(self.settings());
        let objects = self.objects(plan, user, reply);
        let mut objects = objects.map_err(|error| problem(&error, None))?;
        let port = plan.placement.container_port;
        let server = as_probe(&mut objects, port, self.settings().ttl);
        if user == PodUser::Root && server == Server::Own {
            tracing::warn!("the template has a command of its own, so that customers are not root");
            return Err(ProbeProblem::NoUserNamespaces);
        }
        try_addresses(&mut objects, self.kubelets().await, self.settings().ready_within);
        let started = self.start_probe(plan, objects).await;
        let pod = plan.lease.pod_name();
        if started.is_ok() {
            self.note_isolation(&pod).await;
        }
        if let Err(error) = self.remove(&pod).await {
            tracing::warn!(%error, %pod, "a probe pod could not be removed; it ends by its deadline");
        }
        started
    }

    async fn start_probe(&self, plan: &LeasePlan, objects: Objects) -> Result<()> {
        let pod = plan.lease.pod_name();
        let started = async {
            self.dry_run_all(&objects).await?;
            self.create_all(&plan.lease, objects).await?;
            tokio::select! {
                ready = self.ready(&pod) => ready,
                () = self.sandbox_overdue(&pod) => {
                    Err(ClusterError::not_ready("its node makes no sandbox for it"))
                }
            }
        };
        let Err(error) = started.await else { return Ok(()) };
        let pods = self.pods_of(&pod).await.unwrap_or_default();
        let status = pods.first().and_then(|pod| pod.status.as_ref());
        let container = status.and_then(failing_message);
        let error_text = error_chain(&error);
        tracing::warn!(error = error_text, container, "a probe pod does not start");
        Err(problem(&error, pods.first()))
    }

    /// Ends when a node has had the pod for long and made no sandbox for it.
    async fn sandbox_overdue(&self, pod: &PodName) {
        let mut waited = Duration::ZERO;
        while waited < SANDBOX {
            tokio::time::sleep(SANDBOX_POLL).await;
            waited = match self.startup_phase(pod).await {
                Ok(StartupPhase::Scheduled) => waited.saturating_add(SANDBOX_POLL),
                // It has one, or has no node: `ready` notices that.
                _ => Duration::ZERO,
            };
        }
    }
}

/// Where a pod has its SSH server from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Its image.
    Own,
    /// The host.
    Installed,
}

/// Makes a probe of these objects: without ports of the nodes, kept no longer than necessary, and
/// ready when its SSH server is.
fn as_probe(objects: &mut Objects, port: u16, kept: Seconds) -> Server {
    objects.services.clear();
    let Some(job) = &mut objects.job.spec else { return Server::Own };
    job.ttl_seconds_after_finished = Some(ttl(kept));
    let Some(spec) = &mut job.template.spec else { return Server::Own };
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
    match spec.init_containers.as_deref() {
        None | Some([]) => Server::Own,
        Some(_) => Server::Installed,
    }
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
        | ClusterError::NotFound => pod
            .and_then(|pod| pod.status.as_ref())
            .and_then(start_problem)
            .unwrap_or(ProbeProblem::NotStarted),
    }
}

/// What keeps the containers from starting, if they tell.
fn start_problem(status: &PodStatus) -> Option<ProbeProblem> {
    containers(status).find_map(|container| {
        let state = container.state.as_ref()?;
        let is_init = is_hosts(&container.name);
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
        match waiting {
            Some(reason) if IMAGE_FAILED.contains(&reason) => {
                Some(if is_init { ProbeProblem::ServerImage } else { ProbeProblem::Image })
            }
            Some("CrashLoopBackOff") if !is_init => Some(ProbeProblem::Exited),
            _ if is_init => {
                let code = state.terminated.as_ref()?.exit_code;
                (code != 0).then_some(ProbeProblem::NotStarted)
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
mod tests {
    use super::*;
    use crate::guard::Allowed;
    use crate::objects::JobSettings;
    use crate::ssh_server::{INIT_CONTAINER, SshServer};
    use paygress_core::backend::cluster::LOGIN_MOUNT_PATH;
    use paygress_core::backend::policy::{Placement, Rendered, Resources};
    use paygress_core::model::ids::LeaseId;
    use paygress_core::model::login::Login;
    use paygress_core::model::refusal::Refusal;
    use serde_json::{Value, json};

    const KEPT: Seconds = Seconds(60);

    /// That of a template with a Service, whose container starts so.
    fn objects(user: PodUser, command: &Value) -> Objects {
        objects_of(user, command, Run::Ssh)
    }

    fn objects_of(user: PodUser, command: &Value, run: Run) -> Objects {
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
            tier: "basic".to_owned(),
            placement: Placement {
                pod_name: pod.clone(),
                image: "example.com/ssh:1".to_owned(),
                resources: Resources { cpu_millicores: 100, memory_mib: 128 },
                host_port: 20_000,
                container_port: 2_222,
                secret_name: pod,
                secret_mount_path: LOGIN_MOUNT_PATH.to_owned(),
            },
            rendered: Rendered {
                pod_template_json: template.to_string(),
                services_json: vec![service.to_string()],
            },
            login: Login::check(None, None, None).unwrap(),
            sold: Seconds(60),
            pod_reply: None,
            run,
        };
        let settings = JobSettings {
            instance: "test",
            ready_within: Seconds(120),
            ttl: KEPT,
            allowed: &Allowed::default(),
            ssh_server: Some(SshServer { image: "example.com/server:1", user }),
            contact: None,
            reply: ReplyStep::Present,
        };
        Objects::of(&plan, &settings).unwrap()
    }

    #[test]
    fn a_probe_takes_no_port_of_the_nodes_and_is_ready_when_its_server_is() {
        let mut made = objects(PodUser::Template, &Value::Null);
        assert_eq!(made.services.len(), 1);
        let server = as_probe(&mut made, 2_222, KEPT);
        assert_eq!((server, made.services.len()), (Server::Installed, 0));
        let job = serde_json::to_value(&made.job).unwrap();
        let spec = &job["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        assert_eq!(container["ports"], Value::Null);
        let probe = json!({"tcpSocket": {"port": 2222}, "periodSeconds": 1});
        assert_eq!(container["readinessProbe"], probe);
        // It has no end that must be recorded, and ends by itself if we die.
        assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 60);
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 180);
        assert_eq!(spec["hostUsers"], Value::Null);
        assert_eq!(spec["initContainers"][1]["name"], "paygress-reply");
        assert!(made.reply.is_none(), "it has nothing to write");
    }

    #[test]
    fn as_root_it_is_what_customers_get() {
        let mut made = objects(PodUser::Root, &Value::Null);
        assert_eq!(as_probe(&mut made, 2_222, KEPT), Server::Installed);
        let (probe, sold) = (made.pod().spec, objects(PodUser::Root, &Value::Null).pod().spec);
        let (probe, sold) = (probe.unwrap(), sold.unwrap());
        assert_eq!(probe.host_users, Some(false));
        assert_eq!(probe.init_containers, sold.init_containers);
        let mut own = objects(PodUser::Root, &json!(["/usr/sbin/sshd", "-D"]));
        assert_eq!(as_probe(&mut own, 2_222, KEPT), Server::Own);
    }

    #[test]
    fn with_its_images_program_it_is_ready_when_the_server_beside_it_is() {
        let mut made = objects_of(PodUser::Root, &Value::Null, Run::Image);
        assert_eq!(as_probe(&mut made, 2_222, KEPT), Server::Installed);
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
        for (init, expected) in [
            (waits("ErrImagePull"), ProbeProblem::ServerImage),
            (ended(1), ProbeProblem::NotStarted),
        ] {
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
        for problem in [ProbeProblem::Image, ProbeProblem::ServerImage, ProbeProblem::Full] {
            assert!(!may_start_without_root(problem), "{problem:?}");
        }
        assert!(may_start_without_root(ProbeProblem::Refused), "an older admission policy");
    }
}
