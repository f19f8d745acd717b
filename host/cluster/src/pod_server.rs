//! The SSH server that the host has put into a pod, seen from here: whether it answers.
//!
//! The kubelet finds that out as well, some time later. It lists containers once a second, so that
//! one that has started is seen up to a second later; then its readiness probe waits for the next
//! of its own seconds. The service knows the host keys before the server listens, and connects by
//! itself: whoever proves one of them is this pod's server, whatever else may have its address
//! where the service is. Where pods cannot be reached, the kubelet alone decides.

use crate::image_program::server_sidecar;
use crate::pod_reply;
use crate::ssh_server::INIT_CONTAINER;
use crate::status::host_keys;
use k8s_openapi::api::core::v1::Pod;
use paygress_core::model::host_key::HostKey;
use paygress_sshd::client::{HostKeyCheck, LoginError, verify_host_key};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A connection and a key exchange.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Each pause before an attempt is longer by this than the one before.
const PAUSE_STEP: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct PodServer {
    address: SocketAddr,
    check: HostKeyCheck,
}

impl PodServer {
    /// None if the pod's server is not the host's, or if its host keys, its address or how its reply
    /// went are not known yet.
    /// Nor where more must be so than that it answers: the template has a probe of another kind,
    /// or customers come through a Service, which knows only pods that the kubelet reports as ready.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let inits = spec.init_containers.as_deref()?;
        inits.iter().find(|init| init.name == INIT_CONTAINER)?;
        let [container] = spec.containers.as_slice() else { return None };
        // Beside a program the server is a sidecar; its port is the container's in any case.
        let server = server_sidecar(inits, |init| init.name.as_str()).unwrap_or(container);
        let has_own_probe = server.startup_probe.is_some()
            || server.readiness_probe.as_ref().is_some_and(|probe| probe.tcp_socket.is_none());
        if has_own_probe {
            return None;
        }
        let is_on_node = |host_port: Option<i32>| host_port.is_some_and(|port| port != 0);
        let port = container.ports.iter().flatten().find(|port| is_on_node(port.host_port))?;
        let port = u16::try_from(port.container_port).ok()?;
        let ip: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
        let host_keys = host_keys(pod);
        if host_keys.is_empty() || pod_reply::is_pending(pod) {
            return None;
        }
        let check = HostKeyCheck::one_of(host_keys.iter().map(HostKey::as_str)).ok()?;
        Some(Self { address: SocketAddr::new(ip, port), check })
    }

    /// One attempt; none: it took too long.
    async fn verify(&self) -> Option<Result<(), LoginError>> {
        let verifying = verify_host_key(self.address, self.check.clone());
        tokio::time::timeout(TIMEOUT, verifying).await.ok()
    }
}

/// Waits until this server answers with one of its host keys. Never ends without a server, or if
/// another one has its address.
pub(crate) async fn answering(server: Option<PodServer>) {
    let Some(server) = server else { return std::future::pending().await };
    let mut pause = Duration::ZERO;
    loop {
        pause = pause.saturating_add(PAUSE_STEP).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
        match server.verify().await {
            Some(Ok(())) => return,
            Some(Err(LoginError::WrongHostKey)) => {
                tracing::warn!(address = %server.address, "another SSH server has a pod's address here");
                return std::future::pending().await;
            }
            Some(Err(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_server::REPLY_CONTAINER;
    use futures::FutureExt;
    use paygress_core::testing::HOST_KEY;
    use paygress_sshd::{Account, Password, new_host_key, serve};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

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
        let address = |container: &Value, init, message| {
            Some(PodServer::of(&pod(container, init, message))?.address)
        };
        let ports = json!([{"containerPort": 2222, "hostPort": 20_427}]);
        let tcp = json!({"tcpSocket": {"port": 2222}});
        let usual = json!({"name": "ssh", "ports": ports, "readinessProbe": tcp});
        let expected = Some(SocketAddr::from(([10, 88, 0, 7], 2_222)));
        assert_eq!(address(&usual, INIT_CONTAINER, HOST_KEY), expected);
        assert_eq!(
            address(&json!({"name": "ssh", "ports": ports}), INIT_CONTAINER, HOST_KEY),
            expected
        );
        assert_eq!(address(&usual, INIT_CONTAINER, "no keys"), None, "it could be any server");
        assert_eq!(address(&usual, "other", HOST_KEY), None, "a server of its own");
        for (field, value) in [
            ("readinessProbe", json!({"exec": {"command": ["true"]}})),
            ("startupProbe", tcp.clone()),
            // That of a Service.
            ("ports", json!([{"containerPort": 2222}])),
        ] {
            let mut other = usual.clone();
            other[field] = value;
            assert_eq!(address(&other, INIT_CONTAINER, HOST_KEY), None, "{field}");
        }
        assert!(PodServer::of(&Pod::default()).is_none());
        // It does not listen before that, and the answer needs what it reports.
        let mut replying = pod(&usual, INIT_CONTAINER, HOST_KEY);
        let inits = replying.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
        inits.push(serde_json::from_value(json!({"name": REPLY_CONTAINER})).unwrap());
        assert!(PodServer::of(&replying).is_none(), "its reply is under way");
    }

    #[test]
    fn beside_an_images_program_it_is_the_sidecar_before_it() {
        let address = |server: &Value| {
            let ports = json!([{"containerPort": 2222, "hostPort": 20_427}]);
            let holder = json!({"name": "paygress-pod", "ports": ports});
            let mut pod = pod(&holder, INIT_CONTAINER, HOST_KEY);
            let inits = pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
            for sidecar in [server, &json!({"name": "paygress-image"})] {
                inits.push(serde_json::from_value(sidecar.clone()).unwrap());
            }
            Some(PodServer::of(&pod)?.address)
        };
        let tcp = json!({"name": "ssh", "readinessProbe": {"tcpSocket": {"port": 2222}}});
        assert_eq!(address(&tcp), Some(SocketAddr::from(([10, 88, 0, 7], 2_222))));
        let own = json!({"name": "ssh", "readinessProbe": {"exec": {"command": ["true"]}}});
        assert_eq!(address(&own), None, "a probe of another kind");
    }

    /// A server with these keys at this address.
    fn server(address: SocketAddr, key: &str) -> PodServer {
        let key = HostKey::parse(key).unwrap();
        let check = HostKeyCheck::one_of(std::iter::once(key.as_str())).unwrap();
        PodServer { address, check }
    }

    #[tokio::test]
    async fn it_answers_once_the_server_with_its_key_does_and_no_other() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let key = new_host_key().unwrap();
        let own = key.public_key().to_openssh().unwrap();
        let answer = tokio::spawn(answering(Some(server(address, &own))));
        assert!(matches!(
            server(address, &own).verify().await,
            Some(Err(LoginError::Unreachable(_)))
        ));

        let listener = TcpListener::bind(address).await.unwrap();
        let account = Account {
            username: "alice".to_owned(),
            aliases: Vec::new(),
            password: Password::none(),
            keys: Vec::new(),
            shell: "/bin/sh".into(),
            home: "/".into(),
            environment: Vec::new(),
        };
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, account, key, stopped));
        let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
        answer.unwrap().unwrap();

        let other = server(address, HOST_KEY);
        assert!(matches!(other.verify().await, Some(Err(LoginError::WrongHostKey))));
        assert!(answering(None).now_or_never().is_none());
    }
}
