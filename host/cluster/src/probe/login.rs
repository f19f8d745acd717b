//! The login at a probe pod, as its customer would log in with a password: a server that refuses it
//! refuses customers too, who have paid by then.
//!
//! The service connects by its own way to pods, as the gateway does. A pod that it does not reach, or
//! that does not answer by SSH, shows nothing of the image: a network between them may be the reason.

use super::Result;
use crate::kubernetes::Kubernetes;
use paygress_core::backend::cluster::{ClusterFeatures, LeasePlan, ProbeProblem};
use paygress_core::backend::pod_streams::{PodPort, PodStreams};
use paygress_core::error_chain;
use paygress_core::model::ids::PodName;
use paygress_core::model::login::Login;
use paygress_sshd::client::{HostKeyCheck, LoginError, try_login};
use std::num::NonZeroU16;
use std::time::Duration;

/// For a connection, a key exchange and a login.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An image may make its user a moment after its server listens.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What a login has shown.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    /// Nothing, for this reason.
    Unknown(String),
}

impl Kubernetes {
    /// Logs in at the pod of this plan, which is ready, and runs nothing. The log has it once, until it
    /// changes, that this service reaches no pod.
    pub(super) async fn log_in(&self, plan: &LeasePlan) -> Result<()> {
        let port = NonZeroU16::new(plan.placement.container_port).map(PodPort::Tcp);
        let (Some(streams), Some(port)) = (self.pod_streams(), port) else { return Ok(()) };
        let pod = plan.lease.pod_name();
        let (error, found) = match log_in(&*streams, &pod, port, &plan.login, PAUSE).await {
            Outcome::Accepted => (None, Ok(())),
            Outcome::Refused => (None, Err(ProbeProblem::Login)),
            Outcome::Unknown(error) => (Some(error), Ok(())),
        };
        let was_unknown = self.set_login_unknown(error.is_some());
        if let Some(error) = error.filter(|_| !was_unknown) {
            tracing::warn!(
                error,
                "a probe pod is ready, and whether it takes logins is not known: its SSH server cannot be reached from here"
            );
        }
        found
    }
}

/// Tries until one login is accepted.
async fn log_in(
    streams: &dyn PodStreams,
    pod: &PodName,
    port: PodPort,
    login: &Login,
    pause: Duration,
) -> Outcome {
    let mut outcome = log_in_once(streams, pod, port, login).await;
    for _ in 1..ATTEMPTS {
        if outcome == Outcome::Accepted {
            break;
        }
        tokio::time::sleep(pause).await;
        outcome = log_in_once(streams, pod, port, login).await;
    }
    outcome
}

async fn log_in_once(
    streams: &dyn PodStreams,
    pod: &PodName,
    port: PodPort,
    login: &Login,
) -> Outcome {
    let Some(password) = &login.password else {
        return Outcome::Unknown("its login has no password".to_owned());
    };
    let logging_in = async {
        let stream = match streams.open(pod, port).await {
            Ok(stream) => stream,
            Err(error) => return Outcome::Unknown(error_chain(&error)),
        };
        // The password is of no use elsewhere, nor after the pod.
        let check = HostKeyCheck::AcceptAny;
        match try_login(stream, login.username.as_str(), password.expose(), check).await {
            Ok(()) => Outcome::Accepted,
            Err(LoginError::Refused) => Outcome::Refused,
            Err(error @ (LoginError::Unreachable(_) | LoginError::WrongHostKey)) => {
                Outcome::Unknown(error_chain(&error))
            }
        }
    };
    let answered = tokio::time::timeout(TIMEOUT, logging_in).await;
    answered.unwrap_or_else(|_| Outcome::Unknown("its SSH server does not answer".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_server::tests::free_address;
    use async_trait::async_trait;
    use paygress_core::backend::pod_streams::{ByteStream, OpenError};
    use paygress_core::model::login::LoginFields;
    use paygress_sshd::{Account, Password, new_host_key, serve};
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    /// The server of each connection, in turn; the last one of all others too.
    struct Servers(Mutex<Vec<SocketAddr>>);

    impl Servers {
        fn address(&self) -> SocketAddr {
            let mut servers = self.0.lock().unwrap();
            match servers.len() {
                1 => servers[0],
                _ => servers.remove(0),
            }
        }
    }

    #[async_trait]
    impl PodStreams for Servers {
        async fn open(
            &self,
            _: &PodName,
            port: PodPort,
        ) -> std::result::Result<Box<dyn ByteStream>, OpenError> {
            assert_eq!(port, PORT);
            let stream = TcpStream::connect(self.address()).await.map_err(OpenError::new)?;
            Ok(Box::new(stream))
        }
    }

    const PORT: PodPort = PodPort::Tcp(NonZeroU16::MIN);

    fn login() -> Login {
        Login::check(LoginFields::default()).unwrap()
    }

    fn pod() -> PodName {
        PodName::parse("ssh-pod-aaaaaaaaaa").unwrap()
    }

    /// An SSH server for the user of this login, with this password, until the sender is dropped.
    async fn start(login: &Login, password: &str) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let account = Account::new(login.username.as_str(), Password::new(password), "/");
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
        (address, stop)
    }

    async fn outcome(servers: &[SocketAddr], login: &Login) -> Outcome {
        let servers = Servers(Mutex::new(servers.to_vec()));
        log_in(&servers, &pod(), PORT, login, Duration::ZERO).await
    }

    #[tokio::test]
    async fn a_server_that_ignores_the_login_is_found_and_one_that_needs_a_moment_is_not() {
        let login = login();
        let password = login.password.as_ref().unwrap().expose();
        let (own, _own) = start(&login, password).await;
        let (other, _other) = start(&login, "of another pod").await;
        let nobody = free_address();
        for (servers, expected) in [
            (&[own][..], Outcome::Accepted),
            (&[other][..], Outcome::Refused),
            (&[other, own][..], Outcome::Accepted),
            (&[nobody, nobody, own][..], Outcome::Accepted),
            (&[other, other, other, own][..], Outcome::Refused),
        ] {
            assert_eq!(outcome(servers, &login).await, expected, "{servers:?}");
        }
    }

    /// Nothing listens at its address, or what does hangs up.
    #[tokio::test]
    async fn a_pod_that_is_not_reached_shows_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hangs_up = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        for server in [free_address(), hangs_up] {
            let found = outcome(&[server], &login()).await;
            assert!(matches!(found, Outcome::Unknown(_)), "{server}: {found:?}");
        }
        let without = Login { password: None, ..login() };
        let found = outcome(&[hangs_up], &without).await;
        assert!(matches!(found, Outcome::Unknown(_)), "{found:?}");
    }

    /// Takes each connection, and answers nothing.
    #[derive(Default)]
    struct Silent(Mutex<Vec<DuplexStream>>);

    #[async_trait]
    impl PodStreams for Silent {
        async fn open(
            &self,
            _: &PodName,
            _: PodPort,
        ) -> std::result::Result<Box<dyn ByteStream>, OpenError> {
            let (stream, server) = duplex(64);
            self.0.lock().unwrap().push(server);
            Ok(Box::new(stream))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_is_not_waited_for_long() {
        let servers = Silent::default();
        let begun = tokio::time::Instant::now();
        let found = log_in(&servers, &pod(), PORT, &login(), PAUSE).await;
        assert!(matches!(found, Outcome::Unknown(_)), "{found:?}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        let connections = std::mem::take(&mut *servers.0.lock().unwrap());
        assert_eq!(connections.len(), ATTEMPTS);
        for mut connection in connections {
            let mut received = Vec::new();
            connection.read_to_end(&mut received).await.unwrap();
            assert!(received.starts_with(b"SSH-2.0-"), "it was closed after the greeting");
        }
    }
}
