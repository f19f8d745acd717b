//! The channel of an `sftp` subsystem as a stream, from its start to its exit status.

use super::listing::Names;
use super::packets;
use super::state::Sftp;
use crate::account::Account;
use crate::input::InputReceiver;
use crate::process::{Wires, end};
use crate::terminal::Terminal;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// OpenSSH's text for a client that asks for something else.
const ONLY_SFTP: &str = "This service allows sftp connections only.";

/// Ends the channel of a client that may have `sftp` only and asks for something else. No shell
/// shows it the text: a shell would read files that the client can write by `sftp`.
pub(crate) fn refuse(terminal: Option<&Terminal>, wires: Wires) {
    let Wires { output, mut open, channels, .. } = wires;
    let text = format!("{ONLY_SFTP}{}", if terminal.is_some() { "\r\n" } else { "\n" });
    tokio::spawn(async move {
        tokio::select! {
            _ = output.data_bytes(text) => {}
            _ = open.changed() => {}
        }
        end(&output, &channels, 1).await;
    });
}

/// Serves one client, and closes its channel.
pub(crate) fn serve(account: Arc<Account>, wires: Wires) {
    let Wires { output, input, mut open, channels, .. } = wires;
    let mut closed = open.clone();
    let stream = Stream {
        input,
        output: Box::pin(output.make_writer()),
        closed: Box::pin(async move { drop(closed.changed().await) }),
    };
    tokio::spawn(async move {
        let names = tokio::task::spawn_blocking(Names::read).await.unwrap_or_default();
        let sftp = Sftp::new(account, names);
        // A client that has gone gets no answer, and what it has sent is done.
        let answered = tokio::spawn(answer_all(stream, sftp));
        tokio::select! {
            _ = answered => {}
            _ = open.changed() => {}
        }
        end(&output, &channels, 0).await;
    });
}

/// Until the client sends no more.
async fn answer_all(mut stream: Stream, mut sftp: Sftp) {
    let mut is_read = true;
    while let Ok(packet) = packets::read(&mut stream).await {
        let answer = sftp.answer(packet).await;
        if is_read && let Ok(answer) = answer {
            is_read = stream.write_all(&answer).await.is_ok() && stream.flush().await.is_ok();
        }
    }
}

struct Stream {
    input: InputReceiver,
    output: Pin<Box<dyn AsyncWrite + Send>>,
    /// Nobody reads the output any more.
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.output.as_mut().poll_write(context, bytes);
        if written.is_pending() && self.closed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.as_mut().poll_shutdown(context)
    }
}
