//! Forwarding: connections from the pod for a client (`-L`, `-D`, `-W`, `ProxyJump`), listeners in
//! the pod (`-R`), both also by Unix sockets, and the client's authentication agent.
//!
//! None of it can do what the user's own programs could not. Listeners take local connections only,
//! as with OpenSSH's `GatewayPorts no`.

use crate::channels::Channels;
use crate::image::temporary_directory;
use crate::input::DRAIN;
use crate::process::copy;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Error};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// After a failed `accept`, most likely because the process is out of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Forwarded connections of one client that are open at the same time.
const MAX_FORWARDED: usize = 256;
/// Listeners of one client.
const MAX_LISTENERS: usize = 64;

/// A listener's task, which ends with it.
struct Listening(Vec<JoinHandle<()>>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// The socket of the client's agent in a directory of its own.
struct Agent {
    directory: TempDir,
    _listening: Listening,
}

/// The name of the socket in its directory.
const AGENT: &str = "agent";

impl Agent {
    fn socket(&self) -> PathBuf {
        self.directory.path().join(AGENT)
    }
}

/// What one client has forwarded.
pub(crate) struct Forwards {
    channels: Arc<Channels>,
    places: Arc<Semaphore>,
    home: PathBuf,
    listeners: HashMap<String, Listening>,
    agent: Option<Agent>,
}

impl Forwards {
    pub(crate) fn new(channels: Arc<Channels>, home: PathBuf) -> Self {
        let places = Arc::new(Semaphore::new(MAX_FORWARDED));
        Self { channels, places, home, listeners: HashMap::new(), agent: None }
    }

    /// Connects a channel of the client with a port.
    pub(crate) fn connect_tcp(
        &self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        reply: ChannelOpenHandle,
    ) {
        let (host, port) = (host.to_owned(), u16::try_from(port).unwrap_or(0));
        let stream = async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        self.connect(channel, stream, reply);
    }

    /// Connects a channel of the client with a Unix socket.
    pub(crate) fn connect_unix(&self, channel: Channel<Msg>, path: &str, reply: ChannelOpenHandle) {
        self.connect(channel, UnixStream::connect(self.home.join(path)), reply);
    }

    fn connect<S: AsyncRead + AsyncWrite + Send>(
        &self,
        channel: Channel<Msg>,
        stream: impl Future<Output = io::Result<S>> + Send + 'static,
        reply: ChannelOpenHandle,
    ) {
        let channels = Arc::clone(&self.channels);
        let place = Arc::clone(&self.places).try_acquire_owned();
        tokio::spawn(async move {
            let Ok(place) = place else {
                return reply.reject(ChannelOpenFailure::ResourceShortage).await;
            };
            let stream = match stream.await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "cannot connect for a client");
                    return reply.reject(ChannelOpenFailure::ConnectFailed).await;
                }
            };
            let id = channel.id();
            // Input arrives through the handler; see there.
            let (_, output) = channel.split();
            channels.expect(id);
            reply.accept().await;
            relay(stream, id, output, &channels).await;
            drop(place);
        });
    }

    /// Listens on a port of the pod's loopback addresses; the port, which the system chooses if it
    /// is 0.
    pub(crate) async fn listen_tcp(
        &mut self,
        address: &str,
        port: u32,
        handle: Handle,
    ) -> Option<u32> {
        let port = u16::try_from(port).ok()?;
        if self.listeners.len() >= MAX_LISTENERS {
            return None;
        }
        // One of the two is enough, as for OpenSSH.
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.ok();
        let chosen = first.as_ref().and_then(|listener| listener.local_addr().ok());
        let port = chosen.map_or(port, |address| address.port());
        let second = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok();
        let bound = first.as_ref().or(second.as_ref())?;
        let port = bound.local_addr().ok()?.port();
        let target = Target::Tcp { address: address.to_owned(), port: port.into() };
        let acceptor = self.acceptor(target, handle);
        let listeners = [first, second].into_iter().flatten();
        let accept = |listener| tokio::spawn(Arc::clone(&acceptor).accept_tcp(listener));
        let listening = Listening(listeners.map(accept).collect());
        self.listeners.insert(tcp_key(address, port.into()), listening);
        Some(port.into())
    }

    pub(crate) fn cancel_tcp(&mut self, address: &str, port: u32) -> bool {
        self.listeners.remove(&tcp_key(address, port)).is_some()
    }

    /// Listens on a Unix socket that only the user may use; one that exists is not replaced.
    pub(crate) fn listen_unix(&mut self, path: &str, handle: Handle) -> bool {
        if self.listeners.len() >= MAX_LISTENERS {
            return false;
        }
        let target = Target::Unix { path: path.to_owned() };
        let Ok(listening) = self.bind_unix(&self.home.join(path), target, handle) else {
            return false;
        };
        self.listeners.insert(unix_key(path), listening);
        true
    }

    pub(crate) fn cancel_unix(&mut self, path: &str) -> bool {
        self.listeners.remove(&unix_key(path)).is_some()
    }

    fn bind_unix(&self, path: &Path, target: Target, handle: Handle) -> io::Result<Listening> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let task = tokio::spawn(self.acceptor(target, handle).accept_unix(listener));
        Ok(Listening(vec![task]))
    }

    fn acceptor(&self, target: Target, handle: Handle) -> Arc<Acceptor> {
        let (channels, places) = (Arc::clone(&self.channels), Arc::clone(&self.places));
        Arc::new(Acceptor { target, handle, channels, places })
    }

    /// The socket of the client's agent, one for all its sessions.
    pub(crate) fn listen_agent(&mut self, handle: Handle) -> io::Result<PathBuf> {
        if let Some(agent) = &self.agent {
            return Ok(agent.socket());
        }
        let place = temporary_directory(&self.home);
        let directory = tempfile::Builder::new().prefix("ssh-").tempdir_in(place)?;
        let listening = self.bind_unix(&directory.path().join(AGENT), Target::Agent, handle)?;
        let agent = Agent { directory, _listening: listening };
        let socket = agent.socket();
        self.agent = Some(agent);
        Ok(socket)
    }
}

fn tcp_key(address: &str, port: u32) -> String {
    format!("tcp:{port}:{address}")
}

fn unix_key(path: &str) -> String {
    format!("unix:{path}")
}

/// What the client gets to know of a connection to a listener, in the terms of its request.
enum Target {
    Tcp { address: String, port: u32 },
    Unix { path: String },
    Agent,
}

impl Target {
    /// Opens a channel to the client.
    async fn open(&self, handle: &Handle, peer: Option<SocketAddr>) -> Result<Channel<Msg>, Error> {
        match self {
            Self::Tcp { address, port } => {
                let ip = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
                let peer_port = peer.map_or(0, |peer| peer.port().into());
                handle.channel_open_forwarded_tcpip(address, *port, ip, peer_port).await
            }
            Self::Unix { path } => handle.channel_open_forwarded_streamlocal(path).await,
            Self::Agent => handle.channel_open_agent().await,
        }
    }
}

/// What serves the connections of a listener.
struct Acceptor {
    target: Target,
    handle: Handle,
    channels: Arc<Channels>,
    places: Arc<Semaphore>,
}

impl Acceptor {
    async fn accept_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let _ = stream.set_nodelay(true);
                    self.serve(stream, Some(peer));
                }
                // Out of file descriptors, most likely.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn accept_unix(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.serve(stream, None),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn serve(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        peer: Option<SocketAddr>,
    ) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(channel) = this.target.open(&this.handle, peer).await else { return };
            let id = channel.id();
            let (_, output) = channel.split();
            relay(stream, id, output, &this.channels).await;
            drop(place);
        });
    }
}

/// Copies in both directions until both have ended or the channel is closed. What the client has
/// sent before that arrives.
async fn relay(
    stream: impl AsyncRead + AsyncWrite,
    id: ChannelId,
    output: ChannelWriteHalf<Msg>,
    channels: &Channels,
) {
    if let Some((mut input, mut open)) = channels.adopt(id) {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut closed = open.clone();
        let passed_on = async {
            while let Some(bytes) = input.next().await {
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            // As with OpenSSH, what cannot be written is discarded: nothing must wait for it.
            drop(input);
            let _ = write.shutdown().await;
        };
        let given_up = async {
            let _ = closed.changed().await;
            tokio::time::sleep(DRAIN).await;
        };
        let to_stream = async {
            tokio::select! {
                () = passed_on => {}
                () = given_up => {}
            }
        };
        let copied = async {
            copy(&mut read, &output, None).await;
            let _ = output.eof().await;
        };
        let to_client = async {
            tokio::select! {
                () = copied => {}
                _ = open.changed() => {}
            }
        };
        tokio::join!(to_stream, to_client);
    }
    channels.close(id);
    let _ = output.close().await;
}
