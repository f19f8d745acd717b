//! Leases and pods of the tests.

use async_trait::async_trait;
use paygress_core::model::ids::PodName;
use paygress_core::model::secret::Secret;
use paygress_gateway::{
    ByteStream, Counts, Gateway, LeaseAccess, LeaseLogin, LookupError, OpenError, PodPort,
    PodStreams, PublicKey,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The lease's port, as customers know it.
pub(crate) const PORT: u16 = 20_427;
pub(crate) const SECRET: &str = "correct horse";
/// Much longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn pod(name: &str) -> PodName {
    PodName::parse(name).unwrap()
}

pub(crate) fn alice() -> PodName {
    pod("ssh-pod-aaaaaaaaaa")
}

pub(crate) fn bob() -> PodName {
    pod("ssh-pod-bbbbbbbbbb")
}

/// A pod of which the lease is live, and which does not answer.
pub(crate) fn silent() -> PodName {
    pod("ssh-pod-cccccccccc")
}

/// Live leases.
#[derive(Default)]
pub(crate) struct Leases(watch::Sender<HashMap<PodName, LeaseLogin>>);

impl Leases {
    pub(crate) fn add(&self, pod: PodName, keys: Vec<PublicKey>, secret: Option<&str>) {
        let login = LeaseLogin::new(PORT, keys, secret.map(Secret::new));
        self.0.send_modify(|live| drop(live.insert(pod, login)));
    }

    pub(crate) fn end(&self, pod: &PodName) {
        self.0.send_modify(|live| drop(live.remove(pod)));
    }
}

#[async_trait]
impl LeaseAccess for Leases {
    async fn login(&self, pod: &PodName) -> Result<Option<LeaseLogin>, LookupError> {
        Ok(self.0.borrow().get(pod).cloned())
    }

    async fn ended(&self, pod: &PodName) {
        let mut live = self.0.subscribe();
        let _ = live.wait_for(|live| !live.contains_key(pod)).await.is_ok();
    }
}

/// Pods with their servers; any other one sends back what it gets, but for the silent one.
#[derive(Default)]
pub(crate) struct Pods(HashMap<PodName, SocketAddr>);

impl Pods {
    pub(crate) fn of(servers: impl IntoIterator<Item = (PodName, SocketAddr)>) -> Self {
        Self(servers.into_iter().collect())
    }
}

#[async_trait]
impl PodStreams for Pods {
    async fn open(&self, pod: &PodName, port: PodPort) -> Result<Box<dyn ByteStream>, OpenError> {
        assert_eq!(port, PodPort::Ssh, "nothing else is reached");
        if *pod == silent() {
            return Err(OpenError::new("no route"));
        }
        if let Some(address) = self.0.get(pod) {
            let stream = TcpStream::connect(address).await.map_err(OpenError::new)?;
            stream.set_nodelay(true).map_err(OpenError::new)?;
            return Ok(Box::new(stream));
        }
        let (ours, theirs) = tokio::io::duplex(65_536);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        Ok(Box::new(ours))
    }
}

/// A gateway that runs.
pub(crate) struct Running {
    pub(crate) leases: Arc<Leases>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) served: JoinHandle<()>,
}

impl Running {
    /// With leases of Alice, Bob and the silent pod, whose secret is [`SECRET`].
    pub(crate) fn start(complete: impl FnOnce(Gateway) -> Gateway) -> Self {
        Self::start_before(Pods::default(), complete)
    }

    /// The same before these pods.
    pub(crate) fn start_before(pods: Pods, complete: impl FnOnce(Gateway) -> Gateway) -> Self {
        let leases = Arc::new(Leases::default());
        for pod in [alice(), bob(), silent()] {
            leases.add(pod, Vec::new(), Some(SECRET));
        }
        let access = Arc::clone(&leases);
        let gateway = complete(Gateway::new(access, Arc::new(pods)));
        let (stop, stopped) = watch::channel(false);
        let counts = gateway.counts();
        Self { leases, counts, stop, served: tokio::spawn(gateway.serve(stopped)) }
    }

    /// Stops it, and waits until it has ended.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(LONG, self.served).await.expect("it ends").unwrap();
    }
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
