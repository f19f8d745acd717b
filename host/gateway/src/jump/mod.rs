//! The SSH jump host: `ssh -J POD@GATEWAY USER@POD`.
//!
//! ```text
//! listener ─▶ startups ─▶ rate ─▶ handshake ─▶ authentication ─▶ direct-tcpip ─▶ PodStreams
//!              (random    of each (russh)       LeaseAccess        one host,
//!               early drop) network                                one port
//! ```
//!
//! A handshake keeps a core busy. A client that sends more than the first bytes of its greeting
//! therefore waits until the rate limits of its networks allow one more handshake, and again if it
//! sends much before it has authenticated. Connections that send nothing cost no core, and do not count
//! towards these limits.
//!
//! A client logs in as its pod, by a key or the secret of the lease, and gets connections to the SSH
//! port of that pod. Nothing else is served: no shell, no command, no listener.

mod channel_tasks;
mod connection;
mod gated_reader;
mod queue;

use crate::host_key::GatewayHostKey;
use crate::limits;
use crate::metrics::Rejection;
use crate::rates::NetworkRates;
use crate::shared::Shared;
use crate::startups::{Startup, Startups};
use channel_tasks::ChannelTasks;
use connection::Connection;
use gated_reader::{Gate, GatedReader};
use paygress_core::model::ids::PodName;
use paygress_core::networks::customer_network;
use paygress_sshd::{EarlyDrop, ShutdownOnDrop, Stage, is_set};
use russh::Disconnect;
use russh::server::{Config, RunningSession};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::Join;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const ENDED: &str = "the lease of the pod has ended: order a new pod";
const STOPPED: &str = "the gateway is being stopped: connect again";

/// The jump host's socket and key.
#[derive(Debug)]
pub struct JumpHost {
    listener: TcpListener,
    host_key: GatewayHostKey,
}

impl JumpHost {
    #[must_use]
    pub fn new(listener: TcpListener, host_key: GatewayHostKey) -> Self {
        Self { listener, host_key }
    }

    /// Serves until `stop` is set.
    pub(crate) async fn serve(self, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
        let Self { listener, host_key } = self;
        let config = Arc::new(connection::config(host_key.into_private_key()));
        let startups = Startups::new(
            EarlyDrop::new(limits::STARTUPS),
            EarlyDrop::new(limits::STARTUPS_OF_ONE),
            |address: &IpAddr| Some(*address),
        );
        let rates = Arc::new(NetworkRates::new(limits::SSH_HANDSHAKES, limits::RATED));
        let mut connections = JoinSet::new();
        loop {
            let (socket, peer) = tokio::select! {
                () = is_set(&mut stop) => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            if connections.len() >= limits::CONNECTIONS {
                shared.counts.reject(Rejection::TooMany);
                continue;
            }
            let client = Client {
                shared: Arc::clone(&shared),
                address: peer.ip(),
                startup: startups.admit(customer_network(peer.ip())),
                rates: Arc::clone(&rates),
                stop: stop.clone(),
            };
            connections.spawn(client.serve(socket, Arc::clone(&config)));
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        // What is left ends with the set.
        let _ = tokio::time::timeout(limits::STOP_GRACE, ended).await;
    }
}

/// One connection, from the outside.
struct Client {
    shared: Arc<Shared>,
    address: IpAddr,
    startup: Startup<IpAddr>,
    rates: Arc<NetworkRates>,
    stop: watch::Receiver<bool>,
}

impl Client {
    async fn serve(self, socket: TcpStream, config: Arc<Config>) {
        if let Err(error) = self.run(socket, config).await {
            tracing::debug!(%error, "a connection to the jump host failed");
        }
    }

    async fn run(mut self, socket: TcpStream, config: Arc<Config>) -> Result<(), russh::Error> {
        rustix::net::sockopt::set_socket_keepalive(&socket, true).map_err(std::io::Error::from)?;
        let (socket, _shutdown) = ShutdownOnDrop::split(socket)?;
        let socket = self.gated(socket);
        let (authenticated, mut login) = watch::channel(None);
        let channels = ChannelTasks::default();
        let progress = self.startup.progress.clone();
        let shared = Arc::clone(&self.shared);
        let handler = Connection::new(shared, progress.clone(), authenticated, channels.clone());
        let grace = tokio::time::sleep(limits::LOGIN_GRACE);
        let mut grace = std::pin::pin!(grace);
        let session = tokio::select! {
            session = russh::server::run_stream(config, socket, handler) => Some(session?),
            () = progress.dropped() => None,
            () = &mut grace => None,
            () = is_set(&mut self.stop) => return Ok(()),
        };
        let Some(mut session) = session else {
            self.not_authenticated();
            return Ok(());
        };
        progress.reach(Stage::Greeted);
        let pod = tokio::select! {
            // A client that has logged in may have ended already.
            biased;
            pod = authenticated_as(&mut login) => Some(pod),
            ended = &mut session => return ended,
            () = progress.dropped() => None,
            () = &mut grace => None,
            () = is_set(&mut self.stop) => return Ok(()),
        };
        let Some(pod) = pod else {
            self.not_authenticated();
            return Ok(());
        };
        self.serve_lease(&pod, session, &channels).await
    }

    /// Until the client or its lease ends, or the gateway stops.
    async fn serve_lease(
        self,
        pod: &PodName,
        mut session: RunningSession<Connection>,
        channels: &ChannelTasks,
    ) -> Result<(), russh::Error> {
        let Self { shared, startup, mut stop, .. } = self;
        drop(startup);
        let end = async {
            tokio::select! {
                () = shared.access.ended(pod) => ENDED,
                () = is_set(&mut stop) => STOPPED,
            }
        };
        let mut end = std::pin::pin!(end);
        let reason = tokio::select! {
            ended = &mut session => {
                // What the client has sent before goes to the pod, as long as that is its own.
                tokio::select! {
                    () = channels.drain() => {}
                    _ = &mut end => {}
                }
                return ended;
            }
            reason = &mut end => reason,
        };
        disconnect(session, reason).await;
        Ok(())
    }

    /// Reads on when the rate limits of the client's networks allow one more handshake; all, once it has
    /// authenticated.
    fn gated(&self, socket: TcpStream) -> Join<GatedReader<OwnedReadHalf>, OwnedWriteHalf> {
        let (rates, address) = (Arc::clone(&self.rates), self.address);
        let gate = move || -> Gate {
            let rates = Arc::clone(&rates);
            Box::pin(async move { rates.wait(address).await })
        };
        let (reader, writer) = socket.into_split();
        tokio::io::join(GatedReader::new(reader, self.startup.progress.clone(), gate), writer)
    }

    fn not_authenticated(&self) {
        self.shared.counts.reject(Rejection::NotAuthenticated);
    }
}

/// The pod as which the client has authenticated; for ever if it does not.
async fn authenticated_as(login: &mut watch::Receiver<Option<PodName>>) -> PodName {
    let pod = login.wait_for(Option::is_some).await.ok().and_then(|pod| pod.clone());
    match pod {
        Some(pod) => pod,
        None => std::future::pending().await,
    }
}

/// Tells the client why, if it listens.
async fn disconnect(session: RunningSession<Connection>, reason: &str) {
    let handle = session.handle();
    let end = async {
        let language = "en".to_owned();
        let _ = handle.disconnect(Disconnect::ByApplication, reason.to_owned(), language).await;
        let _ = session.await;
    };
    let _ = tokio::time::timeout(limits::DISCONNECT, end).await;
}
