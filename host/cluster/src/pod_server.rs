//! The SSH server that the host has put into a pod, seen from here: whether it answers.
//!
//! The kubelet finds that out as well, some time later. It lists containers once a second, so that
//! one that has started, or an address, is seen up to a second later; then its readiness probe waits
//! for the next of its own seconds. The service connects by itself, and whoever proves to be this
//! pod's server is it, whatever else may have its address where the service is. Where pods cannot be
//! reached, the kubelet alone decides, but for a server that has to prove its host keys: its pod is
//! not ready before it has, since nobody would know it by them.
//!
//! Where an init container has copied the server, that has reported its host keys before. A server
//! whose image is mounted proves them by a secret of the lease: at the port of its node, whose address
//! is known as soon as the node has the pod, or at its own address.

use crate::image_program::server_sidecar;
use crate::pod_reply;
use crate::ssh_server::{INIT_CONTAINER, mounted_image, server_port};
use crate::status::host_keys;
use futures::future::select_all;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec, PodStatus};
use paygress_core::model::access::{AccessMode, AccessModes};
use paygress_core::model::host_key::HostKey;
use paygress_sshd::HostKeySecret;
use paygress_sshd::client::{HostKeyCheck, LoginError, proved_host_keys, verify_host_key};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A connection, a key exchange, and a proof.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Each pause before an attempt is this part of all before it: the server is found so much later than
/// it could be.
const PAUSE_PART: u32 = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the proof of a server is waited for whose pod the kubelet reports as ready, where nobody
/// has just paid for it.
pub(crate) const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodServer {
    /// At least one.
    addresses: Vec<SocketAddr>,
    identity: Identity,
    meaning: Meaning,
}

/// How it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// Its host keys were reported.
    HostKeys { known: Vec<HostKey>, check: HostKeyCheck },
    /// It proves its host keys.
    Secret(HostKeySecret),
}

/// How customers reach pods that have no port of their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Portless {
    /// Through a Service, which knows only pods that the kubelet reports as ready.
    Service,
    /// By the gateway, which connects to the pod as this service does.
    Gateway,
}

impl From<&AccessModes> for Portless {
    fn from(access: &AccessModes) -> Self {
        match access.contains(AccessMode::NodePort) {
            true => Self::Service,
            false => Self::Gateway,
        }
    }
}

/// What its answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The pod is ready.
    Ready,
    /// Its host keys are known. More must be so before it is ready: the template has a probe of
    /// another kind, or customers come through a Service.
    Known,
}

impl PodServer {
    /// None if the pod's server is not the host's, or if its address is not known yet, or what it is
    /// known by, or how its reply went; nor where its answer would mean nothing new.
    pub(crate) fn of(pod: &Pod, secret: &HostKeySecret, portless: Portless) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        match mounted_image(spec) {
            Some(_) => Self::mounted(spec, status, secret, portless),
            None => Self::copied(pod, spec, status, portless),
        }
    }

    fn mounted(
        spec: &PodSpec,
        status: &PodStatus,
        secret: &HostKeySecret,
        portless: Portless,
    ) -> Option<Self> {
        let [container] = spec.containers.as_slice() else { return None };
        let port = port_on_node(container);
        let is_reached = port.is_some() || portless == Portless::Gateway;
        let meaning = match is_reached && !has_own_probe(container) {
            true => Meaning::Ready,
            false => Meaning::Known,
        };
        let on_node = port.and_then(|port| address(status.host_ip.as_ref(), port.host_port?));
        let own = server_port(container).map(i32::from);
        let own = own.and_then(|port| address(status.pod_ip.as_ref(), port));
        let addresses: Vec<SocketAddr> = on_node.into_iter().chain(own).collect();
        let identity = Identity::Secret(secret.clone());
        (!addresses.is_empty()).then_some(Self { addresses, identity, meaning })
    }

    fn copied(pod: &Pod, spec: &PodSpec, status: &PodStatus, portless: Portless) -> Option<Self> {
        let inits = spec.init_containers.as_deref()?;
        inits.iter().find(|init| init.name == INIT_CONTAINER)?;
        let [container] = spec.containers.as_slice() else { return None };
        // Beside a program the server is a sidecar; its port is the container's in any case.
        let server = server_sidecar(inits, |init| init.name.as_str()).unwrap_or(container);
        if has_own_probe(server) {
            return None;
        }
        let port = match (port_on_node(container), portless) {
            (Some(port), _) => port.container_port,
            (None, Portless::Gateway) => server_port(server)?.into(),
            (None, Portless::Service) => return None,
        };
        let addresses = vec![address(status.pod_ip.as_ref(), port)?];
        let known = host_keys(pod);
        if known.is_empty() || pod_reply::is_pending(pod) {
            return None;
        }
        let check = HostKeyCheck::one_of(known.iter().map(HostKey::as_str)).ok()?;
        let identity = Identity::HostKeys { known, check };
        Some(Self { addresses, identity, meaning: Meaning::Ready })
    }

    pub(crate) fn makes_ready(&self) -> bool {
        self.meaning == Meaning::Ready
    }
}

fn has_own_probe(server: &Container) -> bool {
    server.startup_probe.is_some()
        || server.readiness_probe.as_ref().is_some_and(|probe| probe.tcp_socket.is_none())
}

fn port_on_node(container: &Container) -> Option<&ContainerPort> {
    let is_on_node = |host_port: Option<i32>| host_port.is_some_and(|port| port != 0);
    container.ports.iter().flatten().find(|port| is_on_node(port.host_port))
}

fn address(ip: Option<&String>, port: i32) -> Option<SocketAddr> {
    let ip: IpAddr = ip?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// What is at an address.
enum Attempt {
    /// The server, with these host keys.
    Proved(Vec<HostKey>),
    /// Another one.
    Other,
    /// None, or it took too long.
    Silent,
}

impl Identity {
    async fn verify(&self, address: SocketAddr) -> Attempt {
        let verifying = async {
            match self {
                Self::HostKeys { known, check } => {
                    match verify_host_key(address, check.clone()).await {
                        Ok(()) => Attempt::Proved(known.clone()),
                        Err(LoginError::WrongHostKey) => Attempt::Other,
                        Err(_) => Attempt::Silent,
                    }
                }
                Self::Secret(secret) => match proved_host_keys(address, secret).await {
                    Ok(lines) => {
                        Attempt::Proved(HostKey::parse_all(lines.iter().map(String::as_str)))
                    }
                    // Whoever had the address before: this server is still to come.
                    Err(_) => Attempt::Silent,
                },
            }
        };
        tokio::time::timeout(TIMEOUT, verifying).await.unwrap_or(Attempt::Silent)
    }

    /// Waits until the server answers at this address. Never ends if another one has it for good.
    async fn answer_at(&self, address: SocketAddr) -> Vec<HostKey> {
        let mut waited = Duration::ZERO;
        loop {
            let pause = pause_after(waited);
            tokio::time::sleep(pause).await;
            waited = waited.saturating_add(pause);
            match self.verify(address).await {
                Attempt::Proved(host_keys) => return host_keys,
                Attempt::Other => {
                    tracing::warn!(%address, "another SSH server has a pod's address here");
                    return std::future::pending().await;
                }
                Attempt::Silent => {}
            }
        }
    }
}

/// The pause before the next attempt, after pauses of this length together.
fn pause_after(waited: Duration) -> Duration {
    let part = waited.checked_div(PAUSE_PART).unwrap_or(LONGEST_PAUSE);
    part.clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

/// Waits until this server has proved one of its host keys; all of these. Never ends without a
/// server, or if another one has its address.
pub(crate) async fn answering(server: Option<PodServer>) -> Vec<HostKey> {
    let Some(PodServer { addresses, identity, .. }) = server else {
        return std::future::pending().await;
    };
    // An address that swallows what is sent to it does not delay the other one.
    let answers: Vec<_> =
        addresses.iter().map(|address| Box::pin(identity.answer_at(*address))).collect();
    if answers.is_empty() {
        return std::future::pending().await;
    }
    select_all(answers).await.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ssh_server::REPLY_CONTAINER;
    use futures::FutureExt;
    use paygress_core::testing::HOST_KEY;
    use paygress_sshd::{Account, HostKeys, Password, new_host_key, serve};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    const SOON: Duration = Duration::from_secs(30);

    fn secret() -> HostKeySecret {
        HostKeySecret::derive(b"a test", "ssh-pod-a")
    }

    fn of(pod: &Pod) -> Option<PodServer> {
        PodServer::of(pod, &secret(), Portless::Service)
    }

    /// Whose init container has left this message.
    fn pod(container: &Value, init: &str, message: &str) -> Pod {
        let state = json!({"terminated": {"exitCode": 0, "message": message}});
        let ended = json!({"name": init, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state});
        let spec = json!({"containers": [container], "initContainers": [{"name": init}]});
        let status = json!({"podIP": "10.88.0.7", "initContainerStatuses": [ended]});
        serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn it_is_known_for_a_server_of_the_host_on_a_port_of_the_node() {
        let addresses =
            |container: &Value, init, message| Some(of(&pod(container, init, message))?.addresses);
        let ports = json!([{"containerPort": 2222, "hostPort": 20_427}]);
        let tcp = json!({"tcpSocket": {"port": 2222}});
        let usual = json!({"name": "ssh", "ports": ports, "readinessProbe": tcp});
        let expected = Some(vec![SocketAddr::from(([10, 88, 0, 7], 2_222))]);
        assert_eq!(addresses(&usual, INIT_CONTAINER, HOST_KEY), expected);
        assert_eq!(
            addresses(&json!({"name": "ssh", "ports": ports}), INIT_CONTAINER, HOST_KEY),
            expected
        );
        assert_eq!(addresses(&usual, INIT_CONTAINER, "no keys"), None, "it could be any server");
        assert_eq!(addresses(&usual, "other", HOST_KEY), None, "a server of its own");
        for (field, value) in [
            ("readinessProbe", json!({"exec": {"command": ["true"]}})),
            ("startupProbe", tcp.clone()),
            // That of a Service.
            ("ports", json!([{"containerPort": 2222}])),
        ] {
            let mut other = usual.clone();
            other[field] = value;
            assert_eq!(addresses(&other, INIT_CONTAINER, HOST_KEY), None, "{field}");
        }
        assert!(of(&Pod::default()).is_none());
        // It does not listen before that, and the answer needs what it reports.
        let mut replying = pod(&usual, INIT_CONTAINER, HOST_KEY);
        let inits = replying.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
        inits.push(serde_json::from_value(json!({"name": REPLY_CONTAINER})).unwrap());
        assert!(of(&replying).is_none(), "its reply is under way");
    }

    #[test]
    fn the_gateway_needs_no_port_of_the_node() {
        for (modes, expected) in [
            (vec![AccessMode::Gateway], Portless::Gateway),
            (vec![AccessMode::HostPort, AccessMode::Gateway], Portless::Gateway),
            (vec![AccessMode::NodePort, AccessMode::Gateway], Portless::Service),
        ] {
            assert_eq!(Portless::from(&AccessModes::new(modes).unwrap()), expected);
        }
        assert_eq!(Portless::from(&AccessModes::default()), Portless::Service);
        let command = ["/.paygress/paygress-sshd", "--listen", "[::]:2022"];
        for (port, command) in [(2_022, &command[..]), (2_222, &command[..1])] {
            let container = json!({"name": "ssh", "command": command});
            let pod = pod(&container, INIT_CONTAINER, HOST_KEY);
            let server = PodServer::of(&pod, &secret(), Portless::Gateway).unwrap();
            assert!(server.makes_ready() && matches!(server.identity, Identity::HostKeys { .. }));
            assert_eq!(server.addresses, [SocketAddr::from(([10, 88, 0, 7], port))]);
            assert!(of(&pod).is_none(), "it may be a Service's");
        }
    }

    #[test]
    fn beside_an_images_program_it_is_the_sidecar_before_it() {
        let addresses = |server: &Value| {
            let ports = json!([{"containerPort": 2222, "hostPort": 20_427}]);
            let holder = json!({"name": "paygress-pod", "ports": ports});
            let mut pod = pod(&holder, INIT_CONTAINER, HOST_KEY);
            let inits = pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
            for sidecar in [server, &json!({"name": "paygress-image"})] {
                inits.push(serde_json::from_value(sidecar.clone()).unwrap());
            }
            Some(of(&pod)?.addresses)
        };
        let tcp = json!({"name": "ssh", "readinessProbe": {"tcpSocket": {"port": 2222}}});
        assert_eq!(addresses(&tcp), Some(vec![SocketAddr::from(([10, 88, 0, 7], 2_222))]));
        let own = json!({"name": "ssh", "readinessProbe": {"exec": {"command": ["true"]}}});
        assert_eq!(addresses(&own), None, "a probe of another kind");
    }

    /// As soon as a node has the pod.
    #[test]
    fn a_mounted_server_is_searched_for_at_its_node_and_at_its_own_address() {
        let pod = |container: &Value, status: &Value| -> Pod {
            let volume = json!({"name": "paygress", "image": {"reference": "server:1"}});
            let spec = json!({"containers": [container], "volumes": [volume]});
            serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
        };
        let command = ["/.paygress/paygress-sshd", "--listen", "[::]:22"];
        let ports = json!([{"containerPort": 22, "hostPort": 20_427}]);
        let usual = json!({"name": "ssh", "command": command, "ports": ports});
        let node = json!({"hostIP": "192.0.2.1"});
        let both = json!({"hostIP": "192.0.2.1", "podIP": "fd00::7"});
        let [on_node, own]: [SocketAddr; 2] =
            ["192.0.2.1:20427", "[fd00::7]:22"].map(|it| it.parse().unwrap());
        for (status, expected) in
            [(&json!({}), None), (&node, Some(vec![on_node])), (&both, Some(vec![on_node, own]))]
        {
            let server = of(&pod(&usual, status));
            let is_proving = |it: &PodServer| matches!(it.identity, Identity::Secret(_));
            assert!(server.as_ref().is_none_or(|it| it.makes_ready() && is_proving(it)));
            assert_eq!(server.map(|server| server.addresses), expected, "{status}");
        }
        // That of a Service, and one with a probe of its own: their keys are known by it.
        let mut of_service = usual.clone();
        of_service["ports"] = Value::Null;
        assert!(of(&pod(&of_service, &node)).is_none());
        let mut probed = usual.clone();
        probed["readinessProbe"] = json!({"exec": {"command": ["true"]}});
        for (container, expected) in [(&of_service, vec![own]), (&probed, vec![on_node, own])] {
            let server = of(&pod(container, &both)).unwrap();
            assert!(!server.makes_ready(), "{container}");
            assert_eq!(server.addresses, expected, "{container}");
        }
        let by_gateway =
            |container| PodServer::of(&pod(container, &both), &secret(), Portless::Gateway);
        assert!(by_gateway(&of_service).unwrap().makes_ready(), "no Service is before it");
        assert!(!by_gateway(&probed).unwrap().makes_ready());
    }

    /// A server with this key at this address.
    fn server(address: SocketAddr, key: &str) -> PodServer {
        let known = vec![HostKey::parse(key).unwrap()];
        let check = HostKeyCheck::one_of(known.iter().map(HostKey::as_str)).unwrap();
        let identity = Identity::HostKeys { known, check };
        PodServer { addresses: vec![address], identity, meaning: Meaning::Ready }
    }

    /// One that proves its keys, at one of these addresses.
    fn proving(addresses: Vec<SocketAddr>) -> PodServer {
        PodServer { addresses, identity: Identity::Secret(secret()), meaning: Meaning::Ready }
    }

    /// Of which nobody has the port.
    pub(crate) fn free_address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], paygress_sandbox::free_port().unwrap()))
    }

    /// Serves logins with these keys until the sender is dropped.
    pub(crate) async fn start(
        address: SocketAddr,
        keys: impl Into<HostKeys>,
    ) -> watch::Sender<bool> {
        let listener = TcpListener::bind(address).await.unwrap();
        let account = Account::new("alice", Password::none(), "/");
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, account, keys.into(), stopped));
        stop
    }

    /// A pod that starts at once is not found late, and one that pulls its image is not sent much.
    #[test]
    fn attempts_are_frequent_at_first_and_rare_later() {
        let pauses =
            std::iter::successors(Some((Duration::ZERO, FIRST_PAUSE)), |(waited, pause)| {
                let waited = waited.saturating_add(*pause);
                Some((waited, pause_after(waited)))
            });
        let until = |end: Duration| pauses.clone().take_while(move |(waited, _)| *waited < end);
        for (millis, longest) in
            [(300, 20), (700, 45), (1_000, 65), (10_000, 630), (120_000, 1_000)]
        {
            let found = until(Duration::from_millis(millis)).map(|(_, pause)| pause).max();
            assert!(found.unwrap() <= Duration::from_millis(longest), "{millis}: {found:?}");
        }
        assert!(until(Duration::from_secs(120)).count() < 200);
    }

    #[tokio::test]
    async fn it_answers_once_the_server_with_its_key_does_and_no_other() {
        let address = free_address();
        let key = new_host_key().unwrap();
        let own = key.public_key().to_openssh().unwrap();
        let answer = tokio::spawn(answering(Some(server(address, &own))));
        let silent = server(address, &own).identity.verify(address).await;
        assert!(matches!(silent, Attempt::Silent));

        let _stop = start(address, key).await;
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer, [HostKey::parse(&own).unwrap()]);

        let other = server(address, HOST_KEY).identity.verify(address).await;
        assert!(matches!(other, Attempt::Other));
        assert!(answering(None).now_or_never().is_none());
        assert!(answering(Some(proving(Vec::new()))).now_or_never().is_none());
    }

    /// Another pod's server may have had the port of the node until then.
    #[tokio::test]
    async fn a_mounted_server_is_waited_for_behind_whoever_has_its_address_before() {
        let (first, second) = (free_address(), free_address());
        let directory = tempfile::tempdir().unwrap();
        let of_other = HostKeySecret::derive(b"a test", "ssh-pod-b");
        let foreign = HostKeys::proved(directory.path(), of_other).unwrap();
        let _foreign = start(first, foreign).await;
        for address in [first, second] {
            let attempt = proving(vec![address]).identity.verify(address).await;
            assert!(matches!(attempt, Attempt::Silent), "{address}");
        }
        let answer = tokio::spawn(answering(Some(proving(vec![first, second]))));
        let own = tempfile::tempdir().unwrap();
        let _own = start(second, HostKeys::proved(own.path(), secret()).unwrap()).await;
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        let kinds: Vec<&str> = answer.iter().map(HostKey::kind).collect();
        assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256"]);
    }
}
