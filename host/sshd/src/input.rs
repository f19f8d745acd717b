//! The input of one channel: what the client has sent and nobody has read yet.
//!
//! A program that does not read must not cost memory without bound, nor a byte, nor hold up the
//! other channels for ever. russh gives every channel the same window, and lets it be changed only
//! when it is renewed ([`Handler::adjust_window`](russh::server::Handler::adjust_window)): so while
//! too much waits anywhere, all windows are renewed by [`NARROW_WINDOW`] only. Their clients stop
//! at the end of their present window, and no clock decides when they go on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};

/// What a client may send ahead of the program, as OpenSSH's.
pub(crate) const WINDOW: u32 = 2 << 20;
/// While too much waits: renewed when it is used up, so that the client can try again.
pub(crate) const NARROW_WINDOW: u32 = 2;
/// More than this is too much. Windows that were given before still add to it.
const MAX_WAITING: usize = 1 << 20;
/// How long one packet of a client that is too far ahead is kept before the next is read: the pace
/// of its tries.
const PACE: Duration = Duration::from_millis(20);

/// How long what waits is passed on after its client has closed the channel: OpenSSH passes it on too.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

pub(crate) fn queue() -> (InputSender, InputReceiver) {
    let (bytes, receiver) = mpsc::unbounded_channel();
    let waiting = watch::Sender::new(0);
    let sender = InputSender { bytes, waiting: waiting.clone() };
    (sender, InputReceiver { bytes: receiver, waiting, rest: Vec::new() })
}

#[derive(Clone)]
pub(crate) struct InputSender {
    bytes: mpsc::UnboundedSender<Vec<u8>>,
    waiting: watch::Sender<usize>,
}

impl InputSender {
    /// Queues bytes, and paces a client that is too far ahead. What nobody will read is dropped, as
    /// OpenSSH does after the program has closed its input.
    pub(crate) async fn push(&self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        // Counted first: the receiver may take them at once.
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_add(data.len()));
        if self.bytes.send(data.to_vec()).is_err() {
            self.waiting.send_replace(0);
        }
        if self.is_full() {
            let mut waiting = self.waiting.subscribe();
            let has_room = waiting.wait_for(|waiting| *waiting <= MAX_WAITING);
            let _ = tokio::time::timeout(PACE, has_room).await;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        *self.waiting.borrow() > MAX_WAITING
    }
}

pub(crate) struct InputReceiver {
    bytes: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: watch::Sender<usize>,
    /// Of the last piece, for a reader with a smaller buffer.
    rest: Vec<u8>,
}

impl InputReceiver {
    /// The next piece; `None` when the client sends no more.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        let bytes = self.bytes.recv().await?;
        self.taken(bytes.len());
        Some(bytes)
    }

    fn taken(&self, bytes: usize) {
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(bytes));
    }
}

impl AsyncRead for InputReceiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.bytes.poll_recv(context)) {
                Some(bytes) => {
                    self.taken(bytes.len());
                    self.rest = bytes;
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        let rest = self.rest.split_off(count);
        buffer.put_slice(&self.rest);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl Drop for InputReceiver {
    fn drop(&mut self) {
        // Nobody reads any more: nobody must wait for it.
        self.bytes.close();
        self.waiting.send_replace(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_is_ahead_is_slowed_and_loses_nothing() {
        let (sender, mut receiver) = queue();
        let piece = vec![7; 32_768];
        let pieces = MAX_WAITING / piece.len() + 3;
        for _ in 0..pieces {
            sender.push(&piece).await;
        }
        assert!(sender.is_full());
        for _ in 0..pieces {
            assert_eq!(receiver.next().await.as_ref(), Some(&piece));
        }
        assert!(!sender.is_full());
        drop(sender);
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_that_is_gone() {
        let (sender, receiver) = queue();
        sender.push(&vec![7; 2 * MAX_WAITING]).await;
        assert!(sender.is_full());
        drop(receiver);
        assert!(!sender.is_full());
        sender.push(&vec![7; 2 * MAX_WAITING]).await;
        assert!(!sender.is_full());
    }
}
