//! The client.

use crate::protocol::{REPLY_BYTES, Reply, Request};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long a reply may take: compiling four large components on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request was not sent.
    #[error("no service answers at {}: {source}; is it running, and is ADMIN_SOCKET the same?", .path.display())]
    Unreachable { path: PathBuf, source: io::Error },
    /// The request was sent, and its outcome is unknown.
    #[error(
        "the service gave no reply ({0}); its outcome is unknown: see `paygress policy history`, `paygress sales status` or `paygress ledger list`"
    )]
    NoReply(#[source] io::Error),
    /// As [`Self::NoReply`], after the time limit.
    #[error(
        "the service gave no reply within {} s; its outcome is unknown: see `paygress policy history`, `paygress sales status` or `paygress ledger list`",
        .0.as_secs()
    )]
    TimedOut(Duration),
}

/// Sends requests to the service at a socket.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    #[must_use]
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned() }
    }

    /// Sends a request, and the components that it announces.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(
        &self,
        request: &Request,
        components: &[Vec<u8>],
    ) -> Result<Reply, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { path: self.socket.clone(), source })?;
        tokio::time::timeout(TIMEOUT, exchange(stream, request, components))
            .await
            .map_err(|_| ClientError::TimedOut(TIMEOUT))?
            .map_err(ClientError::NoReply)
    }
}

async fn exchange(
    stream: UnixStream,
    request: &Request,
    components: &[Vec<u8>],
) -> io::Result<Reply> {
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A server that refuses early does not read to the end. Its reply says why.
    let sent = async {
        stream.write_all(&line).await?;
        for component in components {
            stream.write_all(component).await?;
        }
        stream.flush().await
    }
    .await;
    let mut reply = Vec::new();
    (&mut stream).take(REPLY_BYTES).read_until(b'\n', &mut reply).await?;
    match (reply.last(), sent) {
        (Some(b'\n'), _) => Ok(serde_json::from_slice(&reply)?),
        (_, Err(error)) => Err(error),
        (_, Ok(())) => Err(io::Error::other("the connection was closed")),
    }
}
