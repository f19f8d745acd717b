//! The server.

use crate::dispatch::{Subjects, dispatch};
use crate::protocol::Reply;
use crate::upload::{RECEIVE_TIMEOUT, receive};
use paygress_core::orders::OrderService;
use paygress_oci::ComponentFetcher;
use paygress_policy::Publisher;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Concurrent requests: each may hold four components in memory.
const MAX_CONNECTIONS: usize = 2;
/// How long a client may take to read its reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// What is still read of a refused request: four components.
const DRAIN_BYTES: u64 = 128 << 20;
/// Pause after a failed `accept`, of which the system has to recover.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// The server cannot listen at the socket.
#[derive(Debug, thiserror::Error)]
#[error("ADMIN_SOCKET {} cannot be opened: {source}", .path.display())]
pub struct BindError {
    pub path: PathBuf,
    pub source: BindProblem,
}

#[derive(Debug, thiserror::Error)]
pub enum BindProblem {
    #[error("there is a file that is not a socket; remove it, or choose another path")]
    NotASocket,
    #[error("another service listens there; give each service its own socket")]
    InUse,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Listens at a socket that only this user can access.
pub struct AdminServer {
    listener: UnixListener,
    subjects: Subjects,
    fetcher: Arc<ComponentFetcher>,
    path: PathBuf,
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // Best effort: the next process replaces a stale socket.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AdminServer {
    /// Listens at this path.
    ///
    /// # Errors
    /// [`BindError`]: another service listens there, or it is another file.
    pub async fn bind(
        path: PathBuf,
        publisher: Arc<Publisher>,
        orders: Arc<OrderService>,
        fetcher: Arc<ComponentFetcher>,
    ) -> Result<Self, BindError> {
        let socket = path.clone();
        let bound = tokio::task::spawn_blocking(move || listen(&socket))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error).into()))
            .and_then(|listener| Ok(UnixListener::from_std(listener)?));
        match bound {
            Ok(listener) => {
                Ok(Self { listener, subjects: Subjects { publisher, orders }, fetcher, path })
            }
            Err(source) => Err(BindError { path, source }),
        }
    }

    /// Serves requests until the future is dropped.
    pub async fn run(self) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the admin socket cannot accept connections");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let (subjects, fetcher) = (self.subjects.clone(), Arc::clone(&self.fetcher));
            tokio::spawn(async move {
                if let Err(error) = serve(stream, subjects, &fetcher).await {
                    tracing::debug!(%error, "a client of the admin socket disconnected");
                }
                drop(permit);
            });
        }
    }
}

/// Binds the socket. Replaces one that a killed process has left. Blocks.
fn listen(path: &Path) -> Result<std::os::unix::net::UnixListener, BindProblem> {
    use std::os::unix::net::{UnixListener, UnixStream};
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    if let Ok(existing) = std::fs::symlink_metadata(path) {
        if !existing.file_type().is_socket() {
            return Err(BindProblem::NotASocket);
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Ok(_) => return Err(BindProblem::InUse),
            Err(error) => return Err(error.into()),
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(
    stream: UnixStream,
    subjects: Subjects,
    fetcher: &ComponentFetcher,
) -> io::Result<()> {
    // Between `bind` and `set_permissions` any user could have connected.
    let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    let mut stream = BufReader::new(stream);
    let reply = if peer == own || peer == 0 {
        match receive(&mut stream, fetcher).await {
            // Continues when the client disconnects.
            Ok(received) => tokio::task::spawn_blocking(move || dispatch(&subjects, received))
                .await
                .unwrap_or_else(|error| Reply::Refused(error.to_string())),
            Err(error) => Reply::Refused(error.to_string()),
        }
    } else {
        Reply::Refused("this socket belongs to another user".to_owned())
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    tokio::time::timeout(REPLY_TIMEOUT, stream.write_all(&line)).await??;
    stream.shutdown().await?;
    // A client that is refused early is still writing. Closing the connection now would discard the
    // reply before the client reads it.
    let mut rest = stream.take(DRAIN_BYTES);
    tokio::time::timeout(RECEIVE_TIMEOUT, tokio::io::copy(&mut rest, &mut tokio::io::sink()))
        .await?
        .map(drop)
}
