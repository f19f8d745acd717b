//! The behaviour of every `Cluster`. The sandbox's local pods and Kubernetes pass the same suite.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod support;

use paygress_cluster::Kubernetes;
use paygress_cluster::connection::RequestError;
use paygress_core::backend::cluster::{
    CONTAINER_PORT, Cluster, ClusterError, ClusterEvent, ClusterHealth, EndReason,
    LOGIN_MOUNT_PATH, LeasePlan, PodExpiry, PodValidator, StartupPhase,
};
use paygress_core::backend::policy::{Placement, Rendered, Resources};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{ImageRef, LeaseId, OrderId, PodName, TierId};
use paygress_core::model::login::{Login, LoginFields};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::run::Run;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_sandbox::{Isolation, LocalCluster};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use support::{kubeconfig, settings};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc};

/// How long any one step may take.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A free one of those that the admission policy allows, and another one at each call: tests run at
/// the same time.
fn pod_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_300);
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = std::iter::from_fn(|| Some(NEXT.fetch_add(1, Ordering::Relaxed)));
    ports.take_while(|port| *port <= 20_999).find(is_free).unwrap()
}

fn plan(host_port: u16, sold: u64) -> LeasePlan {
    let lease = LeaseId::of(&OrderId::random());
    let pod = lease.pod_name().to_string();
    let placement = Placement {
        pod_name: pod.clone(),
        image: ImageRef::parse("paygress.local/ssh:1").unwrap(),
        resources: Resources { cpu_millicores: 100, memory_mib: 64 },
        host_port: Some(host_port),
        access: AccessModes::default(),
        container_port: CONTAINER_PORT,
        secret_name: pod.clone(),
        secret_mount_path: LOGIN_MOUNT_PATH.to_owned(),
    };
    let template = json!({"spec": {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "containers": [{
            "name": "ssh",
            "image": placement.image,
            "ports": [{"containerPort": CONTAINER_PORT, "hostPort": host_port}],
            "readinessProbe": {"tcpSocket": {"port": CONTAINER_PORT}, "periodSeconds": 1},
            "volumeMounts": [{"name": "login", "mountPath": LOGIN_MOUNT_PATH, "readOnly": true}],
        }],
        "volumes": [{"name": "login", "secret": {"secretName": pod, "defaultMode": 0o440}}],
    }});
    LeasePlan {
        lease,
        tier: TierId::parse("basic").unwrap(),
        placement,
        rendered: Rendered { pod_template_json: template.to_string(), ..Rendered::default() },
        login: Login::check(LoginFields { username: Some("alice"), ..LoginFields::default() })
            .unwrap(),
        sold: Seconds(sold),
        pod_reply: None,
        run: Run::Ssh,
    }
}

async fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}

/// Waits for the end of this pod.
async fn end_of(pod: &PodName, events: &mut mpsc::Receiver<ClusterEvent>) -> EndReason {
    let end = async {
        while let Some(event) = events.recv().await {
            if let ClusterEvent::Ended(ended, reason) = event
                && ended == *pod
            {
                return reason;
            }
        }
        panic!("the observer stopped")
    };
    tokio::time::timeout(TIMEOUT, end).await.expect("the end of the pod is observed")
}

/// The suite that every cluster must pass.
async fn conforms(cluster: Cluster) {
    let (sink, mut events) = mpsc::channel(64);
    let observer = Arc::clone(&cluster.observer);
    tokio::spawn(async move { observer.observe(sink).await });
    dry_run_refuses_what_the_guard_refuses(&cluster).await;
    let port = pod_port();
    let pod = launch_is_idempotent(&cluster, port).await;
    pod_ends_at_its_latest_expiry(&cluster, &pod, port, &mut events).await;
    removed_pod_is_gone(&cluster, port).await;
    port_in_use_is_refused(&cluster, port).await;
}

fn assert_not_found(result: &Result<(), ClusterError>) {
    assert!(matches!(result, Err(ClusterError::NotFound)), "{result:?}");
}

/// And leaves nothing behind.
async fn dry_run_refuses_what_the_guard_refuses(cluster: &Cluster) {
    let mut greedy = plan(pod_port(), 60);
    greedy.rendered.pod_template_json = greedy
        .rendered
        .pod_template_json
        .replace("\"restartPolicy\"", "\"hostNetwork\":true,\"restartPolicy\"");
    let Err(ClusterError::Refused(refusal)) = cluster.validator.dry_run(&greedy).await else {
        panic!("not refused")
    };
    assert_eq!(refusal.code, ErrorType::PolicyUnavailable);
    assert_not_found(&cluster.expiry.set_expiry(&greedy.lease.pod_name(), UnixTime::now()).await);
}

/// And a dry run changes nothing. Gives the pod that runs then.
async fn launch_is_idempotent(cluster: &Cluster, port: u16) -> PodName {
    let sold = plan(port, 60);
    let pod = sold.lease.pod_name();
    cluster.validator.dry_run(&sold).await.unwrap();
    assert_not_found(&cluster.expiry.check_running(&pod, UnixTime::now()).await);
    cluster.launcher.launch(&sold).await.unwrap();
    cluster.launcher.launch(&sold).await.unwrap();
    let ready = cluster.launcher.ready(&pod).await.unwrap();
    assert_eq!(cluster.launcher.ready(&pod).await.unwrap(), ready, "a pod keeps its host keys");
    assert!(listens(port).await);
    let phase = cluster.progress.startup_phase(&pod).await.unwrap();
    assert_eq!(phase, StartupPhase::Starting, "its image is pulled");
    cluster.health.check().await.unwrap();
    pod
}

/// In whatever order expiries are set.
async fn pod_ends_at_its_latest_expiry(
    cluster: &Cluster,
    pod: &PodName,
    port: u16,
    events: &mut mpsc::Receiver<ClusterEvent>,
) {
    let end = UnixTime(UnixTime::now().0 + 8);
    cluster.expiry.set_expiry(pod, UnixTime(end.0 - 4)).await.unwrap();
    cluster.expiry.check_running(pod, end).await.unwrap();
    cluster.expiry.set_expiry(pod, end).await.unwrap();
    for end in [end, end, UnixTime(end.0 - 4)] {
        cluster.expiry.show_end(pod, end, &[Seconds(600), Seconds(60)]).await.unwrap();
    }
    cluster.expiry.set_expiry(pod, UnixTime(end.0 - 4)).await.unwrap();
    assert_eq!(end_of(pod, events).await, EndReason::Expired);
    let deviation = UnixTime::now().0.abs_diff(end.0);
    assert!(deviation <= 8, "it ended {deviation} s off");
    assert!(!listens(port).await, "its port is free when its end is reported");
    // A pod that has ended is not revived.
    assert_not_found(&cluster.expiry.set_expiry(pod, UnixTime(end.0 + 60)).await);
}

/// When the call returns, and its port is free.
async fn removed_pod_is_gone(cluster: &Cluster, port: u16) {
    let again = plan(port, 60);
    cluster.launcher.launch(&again).await.unwrap();
    cluster.launcher.ready(&again.lease.pod_name()).await.unwrap();
    cluster.remover.remove(&again.lease.pod_name()).await.unwrap();
    assert!(!listens(port).await);
    cluster.remover.remove(&again.lease.pod_name()).await.unwrap();
}

async fn port_in_use_is_refused(cluster: &Cluster, port: u16) {
    let first = plan(port, 60);
    cluster.launcher.launch(&first).await.unwrap();
    cluster.launcher.ready(&first.lease.pod_name()).await.unwrap();
    let second = plan(port, 60);
    let refused = match cluster.launcher.launch(&second).await {
        Ok(()) => cluster.launcher.ready(&second.lease.pod_name()).await,
        Err(error) => Err(error),
    };
    assert!(matches!(refused, Err(ClusterError::PortTaken(_))), "{refused:?}");
    cluster.remover.remove(&second.lease.pod_name()).await.unwrap();
    cluster.remover.remove(&first.lease.pod_name()).await.unwrap();
}

/// Tests of local pods come one after the other: what one starts has the sockets of this process until
/// it is another program, and the port of a pod that has ended is not free before.
static LOCAL_PODS: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn local_pods_conform() {
    let _alone = LOCAL_PODS.lock().await;
    let homes = tempfile::tempdir().unwrap();
    conforms(Arc::new(LocalCluster::in_process(homes.path().to_owned())).into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_local_pods_conform() {
    let _alone = LOCAL_PODS.lock().await;
    conforms(Arc::new(LocalCluster::isolated(Isolation::best().unwrap())).into()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the testbed: run `cargo xtask test`"]
async fn kubernetes_conforms() {
    let testbed = std::env::var_os("TESTBED")
        .map_or_else(|| PathBuf::from("/var/tmp/testbed"), PathBuf::from);
    let cluster = connected(&testbed.join("admin.kubeconfig")).await;
    cluster.check().await.unwrap();
    conforms(Arc::new(cluster).into()).await;
}

async fn connected(kubeconfig: &std::path::Path) -> Kubernetes {
    let settings = settings("conformance", AccessModes::default());
    Kubernetes::connect(Some(kubeconfig), settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the testbed: run `cargo xtask test`"]
async fn an_unknown_certificate_is_named_as_the_cause() {
    let file = kubeconfig("server: \"https://127.0.0.1:16443\"");
    let failed = connected(file.path()).await.check().await;
    let Err(ClusterError::Unavailable(cause)) = failed else { panic!("{failed:?}") };
    let cause = cause.to_string();
    assert!(cause.contains("its certificate is not by an authority that is trusted"), "{cause}");
}

#[tokio::test]
async fn an_unreachable_cluster_is_reported_as_unavailable() {
    // It never listens: also while a child of another test has a copy of it, connections are refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let file = kubeconfig(&format!("server: \"http://{}\"", socket.local_addr().unwrap()));
    let cluster = connected(file.path()).await;
    let pod = PodName::parse("ssh-pod-a").unwrap();
    for failed in [
        cluster.dry_run(&plan(1, 1)).await.map(drop),
        cluster.set_expiry(&pod, UnixTime(1)).await,
        cluster.check().await,
    ] {
        let Err(ClusterError::Unavailable(cause)) = failed else { panic!("{failed:?}") };
        let request = cause.downcast_ref::<RequestError>();
        assert!(matches!(request, Some(RequestError::Unreachable(_))), "{cause:?}");
        assert!(cause.to_string().contains("the connection was refused"), "{cause}");
    }
}
