//! A reader that passes on the first bytes at once, and what follows only when a future (the gate) has
//! completed: another one for each handshake that the client may have sent before it has authenticated.

use crate::limits::HANDSHAKE_BYTES;
use paygress_sshd::{Progress, Stage, poll_read_count};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// The length of "SSH-", with which every client begins. These bytes start nothing that is
/// expensive.
const BEGIN_BYTES: u64 = 4;

pub(super) type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Input {
    /// Nothing has been read yet.
    Silent,
    /// What follows is read when this future has completed.
    Gated(Gate),
    /// So many bytes are read before the next gate.
    Open(u64),
}

/// No gate is made before the first bytes have come: a client that sends nothing uses up nothing of its
/// rate.
pub(super) struct GatedReader<R> {
    reader: R,
    progress: Progress,
    gate: Box<dyn FnMut() -> Gate + Send>,
    input: Input,
}

impl<R> GatedReader<R> {
    pub(super) fn new(
        reader: R,
        progress: Progress,
        gate: impl FnMut() -> Gate + Send + 'static,
    ) -> Self {
        Self { reader, progress, gate: Box::new(gate), input: Input::Silent }
    }
}

impl<R: AsyncRead + Unpin> GatedReader<R> {
    /// Reads so many bytes at most; how many, which is 0 at the end of the stream.
    fn poll_some(
        &mut self,
        most: u64,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<u64>> {
        let count = ready!(poll_read_count((&mut self.reader).take(most), context, buffer))?;
        Poll::Ready(Ok(u64::try_from(count).unwrap_or(u64::MAX)))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for GatedReader<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.input {
                Input::Silent => {
                    if ready!(this.poll_some(BEGIN_BYTES, context, buffer))? > 0 {
                        this.input = Input::Gated((this.gate)());
                    }
                    return Poll::Ready(Ok(()));
                }
                Input::Gated(gate) => {
                    ready!(gate.as_mut().poll(context));
                    this.input = Input::Open(HANDSHAKE_BYTES);
                }
                Input::Open(_) if this.progress.stage() >= Stage::Authenticated => {
                    return Pin::new(&mut this.reader).poll_read(context, buffer);
                }
                Input::Open(0) => this.input = Input::Gated((this.gate)()),
                Input::Open(left) => {
                    let left = *left;
                    let read = ready!(this.poll_some(left, context, buffer))?;
                    this.input = Input::Open(left.saturating_sub(read));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::io::AsyncWriteExt;
    use tokio::sync::oneshot;

    /// Gates that are open, and how many there have been.
    fn counted() -> (impl FnMut() -> Gate + Send + 'static, Arc<AtomicU32>) {
        let count = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&count);
        let gate = move || -> Gate {
            counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        };
        (gate, count)
    }

    #[tokio::test]
    async fn the_begin_is_read_at_once_and_the_rest_when_the_gate_is_open() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (ours, mut answers) = tokio::io::split(ours);
        let (open, opened) = oneshot::channel::<()>();
        let mut opened = Some(opened);
        let mut reader = GatedReader::new(ours, Progress::default(), move || -> Gate {
            let opened = opened.take().unwrap();
            Box::pin(async move {
                let _ = opened.await;
            })
        });
        theirs.write_all(b"SSH-2.0-of a client").await.unwrap();
        let mut buffer = [0; 64];
        let read = reader.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"SSH-");
        answers.write_all(b"SSH-2.0-of us").await.unwrap();
        tokio::select! {
            biased;
            read = reader.read(&mut buffer) => panic!("{read:?}"),
            () = std::future::ready(()) => {}
        }
        open.send(()).unwrap();
        let read = reader.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"2.0-of a client");
        drop(theirs);
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_sends_nothing_passes_no_gate() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (gate, passed) = counted();
        let mut reader = GatedReader::new(ours, Progress::default(), gate);
        drop(theirs);
        assert_eq!(reader.read(&mut [0; 64]).await.unwrap(), 0);
        assert_eq!(passed.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_sends_much_passes_a_gate_for_each_handshake_until_the_login() {
        let handshake = usize::try_from(HANDSHAKE_BYTES).unwrap();
        let (ours, mut theirs) = tokio::io::duplex(handshake.saturating_mul(8));
        let (gate, passed) = counted();
        let progress = Progress::default();
        let mut reader = GatedReader::new(ours, progress.clone(), gate);
        theirs.write_all(&vec![b'x'; handshake.saturating_mul(8)]).await.unwrap();
        let mut buffer = vec![0; handshake.saturating_mul(3).saturating_add(4)];
        reader.read_exact(&mut buffer).await.unwrap();
        assert_eq!(passed.load(Ordering::Relaxed), 3);
        progress.reach(Stage::Authenticated);
        reader.read_exact(&mut buffer).await.unwrap();
        assert_eq!(passed.load(Ordering::Relaxed), 3, "the login");
    }
}
