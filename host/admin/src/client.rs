//! Who asks.

use crate::protocol::{REPLY_BYTES, Reply, Request};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long an answer may take: four large components are compiled on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no service answers at {path}: {why}; is it running, and is ADMIN_SOCKET the same?")]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// It was asked, and what came of it is not known.
    #[error(
        "the service gave no answer ({0}); what came of it is not known: see `paygress policy history`"
    )]
    Unknown(String),
}

/// Asks the service at this socket; the bodies are the components that the request names.
///
/// # Errors
/// [`AskError`].
pub async fn ask(socket: &Path, request: &Request, bodies: &[Vec<u8>]) -> Result<Reply, AskError> {
    let nobody = |why| AskError::Nobody { path: socket.to_owned(), why };
    let mut stream = BufReader::new(UnixStream::connect(socket).await.map_err(nobody)?);
    let exchange = async {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // Who refuses early does not read to the end; the answer says why.
        let sent = async {
            stream.write_all(&line).await?;
            for body in bodies {
                stream.write_all(body).await?;
            }
            stream.flush().await
        }
        .await;
        let mut reply = Vec::new();
        (&mut stream).take(REPLY_BYTES).read_until(b'\n', &mut reply).await?;
        match (reply.last(), sent) {
            (Some(b'\n'), _) => Ok(serde_json::from_slice(&reply)?),
            (_, Err(error)) => Err(error),
            (_, Ok(())) => Err(std::io::Error::other("it hung up")),
        }
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(answer) => answer.map_err(|error: std::io::Error| AskError::Unknown(error.to_string())),
        Err(_) => Err(AskError::Unknown(format!("not within {} s", TIMEOUT.as_secs()))),
    }
}
