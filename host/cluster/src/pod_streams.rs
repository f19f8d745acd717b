//! Connections to pods' SSH servers and other ports: by the network of the pods, or by the API server.

use crate::port_forward::PortForward;
use crate::recent_pods::RecentPods;
use crate::requests::request;
use crate::settings::PodRoute;
use crate::ssh_server::server_port;
use crate::status::is_ready;
use crate::stream_permits::StreamPermits;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::api::{Api, ListParams};
use kube::core::Request;
use paygress_core::backend::cluster::ClusterError;
use paygress_core::backend::pod_streams::{ByteStream, OpenError, PodPort, PodStreams};
use paygress_core::model::ids::PodName;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Pods of the same cluster answer within milliseconds; a policy that drops what is sent to them
/// never does.
const DIRECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How often an address is waited for, and how long.
const ADDRESS_READS: usize = 12;
const ADDRESS_PAUSE: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error("no pod of the lease runs")]
    NoPod,
    #[error("the pod has no port for SSH that its template names")]
    NoPort,
    #[error("the pod has no address yet")]
    NoAddress,
    #[error("the pod's address does not answer; does a NetworkPolicy let this service in?")]
    Silent,
}

/// The pods of one namespace.
pub(crate) struct KubernetesPods {
    pub(crate) pods: Api<Pod>,
    /// The route of the settings, after [`PodRoute::decided`].
    pub(crate) route: PodRoute,
    /// What selects the pods of a lease.
    pub(crate) selector: fn(&PodName) -> Result<String, ClusterError>,
    pub(crate) recent: RecentPods,
    pub(crate) visits: StreamPermits,
}

impl PodRoute {
    /// Decides the route if it is `Auto`. Outside of the cluster, a pod's address may belong to any
    /// other machine.
    pub(crate) fn decided(self) -> Self {
        match self {
            Self::Auto if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => {
                Self::PortForward
            }
            decided => decided,
        }
    }
}

/// The pod's name in the cluster, and the port to connect to.
struct Target {
    name: String,
    /// One of each family that the pod has.
    ips: Vec<IpAddr>,
    port: u16,
}

impl KubernetesPods {
    async fn target(&self, pod: &PodName, port: PodPort) -> Result<Target, OpenError> {
        if let Some(recent) = self.recent.get(pod) {
            return target(&recent, port);
        }
        let selector = (self.selector)(pod).map_err(OpenError::new)?;
        // From the API server's cache: whoever visits a pod does not make it ask its database.
        let params = ListParams::default().labels(&selector).match_any();
        let listed = request(self.pods.list(&params)).await.map_err(OpenError::new)?;
        let found = chosen(listed.items).ok_or_else(|| OpenError::new(NoConnection::NoPod))?;
        let target = target(&found, port)?;
        if !target.ips.is_empty() {
            self.recent.insert(pod.clone(), Arc::new(found));
        }
        Ok(target)
    }

    /// The kubelet reports an address up to a second after the pod's server has answered.
    async fn addressed_target(&self, pod: &PodName, port: PodPort) -> Result<Target, OpenError> {
        let mut target = self.target(pod, port).await?;
        for _ in 0..ADDRESS_READS {
            if !target.ips.is_empty() {
                break;
            }
            tokio::time::sleep(ADDRESS_PAUSE).await;
            target = self.target(pod, port).await?;
        }
        Ok(target)
    }

    /// Connects through the API server. Streams of SSH are not counted here: the gateway limits its
    /// sessions.
    async fn forward(
        &self,
        pod: &PodName,
        port: PodPort,
        target: &Target,
    ) -> Result<Box<dyn ByteStream>, OpenError> {
        let visit = match port {
            PodPort::Ssh => None,
            PodPort::Tcp(_) => Some(self.visits.try_acquire(pod).ok_or(OpenError::Busy)?),
        };
        let forward = Request::new(self.pods.resource_url())
            .portforward(&target.name, &[target.port])
            .map_err(OpenError::new)?;
        let client = self.pods.clone().into_client();
        let opened = request(client.connect(forward)).await.map_err(OpenError::new)?;
        // Its websocket has long buffers, and has read nothing yet.
        let connection = opened.into_stream().into_inner();
        Ok(Box::new(PortForward::new(connection, target.port, visit).await))
    }
}

#[async_trait]
impl PodStreams for KubernetesPods {
    async fn open(&self, pod: &PodName, port: PodPort) -> Result<Box<dyn ByteStream>, OpenError> {
        if self.route == PodRoute::PortForward {
            return self.forward(pod, port, &self.target(pod, port).await?).await;
        }
        let target = self.addressed_target(pod, port).await?;
        let connected = direct(&target).await;
        if connected.is_err() {
            self.recent.forget(pod);
        }
        match (connected, self.route) {
            (Ok(stream), _) => Ok(Box::new(stream)),
            (Err(error), PodRoute::PodNetwork) => Err(error),
            // All of it was reached, and nothing listens: nothing would by the API server either.
            (Err(error), _) if port != PodPort::Ssh && is_refused(&error) => Err(error),
            (Err(_), _) => self.forward(pod, port, &target).await,
        }
    }
}

fn is_refused(error: &OpenError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::ConnectionRefused)
}

/// By the first address that connects: a server may listen on IPv4 alone. One that refuses is the
/// reason only where all do.
async fn direct(target: &Target) -> Result<TcpStream, OpenError> {
    let mut reason: Option<OpenError> = None;
    for ip in &target.ips {
        match connect(SocketAddr::new(*ip, target.port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) if reason.as_ref().is_none_or(is_refused) => reason = Some(error),
            Err(_) => {}
        }
    }
    Err(reason.unwrap_or_else(|| OpenError::new(NoConnection::NoAddress)))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, OpenError> {
    let connecting = TcpStream::connect(address);
    let connected = tokio::time::timeout(DIRECT_TIMEOUT, connecting).await;
    let stream = connected.map_err(|_| OpenError::new(NoConnection::Silent))?;
    let stream = stream.map_err(OpenError::new)?;
    // What is typed is small, and waited for.
    stream.set_nodelay(true).map_err(OpenError::new)?;
    Ok(stream)
}

/// The pod that is ready, or else one that has not ended: the service may know before the kubelet
/// that a pod takes logins.
fn chosen(mut pods: Vec<Pod>) -> Option<Pod> {
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
    };
    let place = pods.iter().position(is_ready);
    let place = place.or_else(|| pods.iter().position(|pod| !has_ended(pod)))?;
    Some(pods.swap_remove(place))
}

fn target(pod: &Pod, port: PodPort) -> Result<Target, OpenError> {
    let port = match port {
        PodPort::Ssh => pod.spec.iter().flat_map(|spec| &spec.containers).find_map(ssh_port),
        PodPort::Tcp(port) => Some(port.get()),
    };
    Ok(Target {
        name: pod.metadata.name.clone().unwrap_or_default(),
        ips: pod.status.as_ref().map(addresses).unwrap_or_default(),
        port: port.ok_or_else(|| OpenError::new(NoConnection::NoPort))?,
    })
}

/// `podIP` is the first of `podIPs`, which a cluster may leave out.
fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|it| &it.ip).chain(&status.pod_ip);
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in all.filter_map(|ip| ip.parse::<IpAddr>().ok()) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

/// The port of a node is SSH's; else the one on which the host's server listens, or the first of the
/// template's.
fn ssh_port(container: &Container) -> Option<u16> {
    let ports = || container.ports.iter().flatten();
    let is_on_node = |port: Option<i32>| port.is_some_and(|port| port != 0);
    let on_node = ports().find(|port| is_on_node(port.host_port));
    let named = |port: i32| u16::try_from(port).ok();
    if let Some(port) = on_node {
        return named(port.container_port);
    }
    let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
    let first = || ports().find(|port| is_tcp(port.protocol.as_deref()));
    first().and_then(|port| named(port.container_port)).or_else(|| server_port(container))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_permits::StreamPermit;
    use kube::{Client, Config};
    use serde_json::{Value, json};
    use std::num::NonZeroU16;

    fn port_of(container: &Value) -> Option<u16> {
        let status = json!({"podIP": "10.88.0.7"});
        let pod = json!({"metadata": {"name": "ssh-pod-a-x"}, "spec": {"containers": [container]}, "status": status});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let other = target(&pod, PodPort::Tcp(NonZeroU16::MIN)).unwrap();
        assert_eq!(other.port, 1, "whatever the template names");
        let found = target(&pod, PodPort::Ssh).ok()?;
        let expected: IpAddr = "10.88.0.7".parse().unwrap();
        assert_eq!((found.name.as_str(), found.ips), ("ssh-pod-a-x", vec![expected]));
        Some(found.port)
    }

    #[test]
    fn the_port_is_that_of_the_ssh_server() {
        let web = json!({"containerPort": 8080});
        let listening = json!(["/.paygress/paygress-sshd", "--listen", "[::]:22"]);
        for (ports, command, expected) in [
            (json!([web, {"containerPort": 2222, "hostPort": 20_427}]), Value::Null, Some(2_222)),
            (json!([{"containerPort": 2200}]), Value::Null, Some(2_200)),
            (json!([{"containerPort": 53, "protocol": "UDP"}]), listening.clone(), Some(22)),
            (Value::Null, listening, Some(22)),
            (Value::Null, Value::Null, None),
        ] {
            let container = json!({"name": "ssh", "ports": ports, "command": command});
            assert_eq!(port_of(&container), expected, "{container}");
        }
    }

    #[test]
    fn a_pod_is_chosen_as_soon_as_it_runs_and_no_longer() {
        let pod = |name: &str, phase: &str, ready: &str| -> Pod {
            let status =
                json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
            serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
        };
        let (failed, starting) = (pod("a", "Failed", "False"), pod("b", "Pending", "False"));
        let ready = pod("c", "Running", "True");
        for (pods, expected) in [
            (vec![failed.clone(), starting.clone(), ready], Some("c")),
            (vec![failed.clone(), starting], Some("b")),
            (vec![failed], None),
        ] {
            let name = chosen(pods).and_then(|pod| pod.metadata.name);
            assert_eq!(name.as_deref(), expected);
        }
    }

    #[tokio::test]
    async fn a_pod_that_listens_is_reached_by_its_own_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = |port| Target { name: String::new(), ips: vec![address.ip()], port };
        assert!(direct(&target(address.port())).await.is_ok());
        drop(listener);
        assert!(is_refused(&direct(&target(address.port())).await.unwrap_err()));
        let unknown = Target { ips: Vec::new(), ..target(address.port()) };
        assert_eq!(direct(&unknown).await.unwrap_err().code(), "pod-unreachable");
    }

    #[tokio::test]
    async fn a_server_on_one_family_is_reached_whichever_address_is_first() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = NonZeroU16::new(listener.local_addr().unwrap().port()).unwrap();
        let status = json!({"podIP": "::1", "podIPs": [{"ip": "::1"}, {"ip": "127.0.0.1"}]});
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": []}, "status": status});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let target = target(&pod, PodPort::Tcp(port)).unwrap();
        assert_eq!(target.ips.len(), 2, "{:?}", target.ips);
        let stream = direct(&target).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        drop((stream, listener));
        // A group, to which no TCP connects: the API server may know a way.
        let [refusing, unreachable] =
            ["127.0.0.1", "224.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        for (ips, expected) in [
            (vec![unreachable, refusing], false),
            (vec![refusing, unreachable], false),
            (vec![refusing, refusing], true),
        ] {
            let target = Target { name: String::new(), ips, port: port.get() };
            let error = direct(&target).await.unwrap_err();
            assert_eq!(is_refused(&error), expected, "{:?}", target.ips);
        }
    }

    #[tokio::test]
    async fn visitors_get_no_more_streams_of_the_api_server_than_there_may_be() {
        let mut nobody = Config::new("http://127.0.0.1:9".parse().unwrap());
        nobody.default_retry = false;
        let pods = KubernetesPods {
            pods: Api::namespaced(Client::try_from(nobody).unwrap(), "user-workloads"),
            route: PodRoute::PortForward,
            selector: |pod| Ok(pod.to_string()),
            recent: RecentPods::default(),
            visits: StreamPermits::default(),
        };
        let name = PodName::parse("ssh-pod-aaaaaaaaaa").unwrap();
        let spec = json!({"containers": [{"name": "ssh", "ports": [{"containerPort": 2222}]}]});
        let status = json!({"podIP": "10.88.0.7"});
        let pod = json!({"metadata": {"name": "a"}, "spec": spec, "status": status});
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        let held: Vec<StreamPermit> =
            std::iter::from_fn(|| pods.visits.try_acquire(&name)).collect();
        for (port, held, expected) in [
            (PodPort::Tcp(NonZeroU16::MIN), held, "pod-busy"),
            (PodPort::Tcp(NonZeroU16::MIN), Vec::new(), "pod-unreachable"),
        ] {
            pods.recent.insert(name.clone(), Arc::clone(&pod));
            let error = pods.open(&name, port).await.map(drop).unwrap_err();
            assert_eq!(error.code(), expected, "with {} streams", held.len());
        }
    }

    #[test]
    fn what_is_chosen_is_used_wherever_the_service_runs() {
        for route in [PodRoute::PodNetwork, PodRoute::PortForward] {
            assert_eq!(route.decided(), route);
        }
    }
}
