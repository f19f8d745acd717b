//! A reader that passes on the first bytes at once, and the rest only when a future (the gate) has
//! completed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// The length of "SSH-", with which every client begins. These bytes start nothing that is
/// expensive.
const BEGIN_BYTES: u64 = 4;

type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Input {
    /// Nothing has been read yet.
    Silent(Gate),
    /// The first bytes were read; the rest is read when this future has completed.
    Begun(Gate),
    Open,
}

/// The gate is not polled before the first bytes have come: a client that sends nothing uses up
/// nothing of its rate.
pub(super) struct GatedReader<R> {
    reader: R,
    input: Input,
}

impl<R> GatedReader<R> {
    pub(super) fn new(reader: R, gate: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { reader, input: Input::Silent(Box::pin(gate)) }
    }
}

impl<R: AsyncRead + Unpin> GatedReader<R> {
    /// Reads the first bytes; `false` at the end of the stream.
    fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let room = buffer.remaining();
        let mut begin = (&mut self.reader).take(BEGIN_BYTES);
        ready!(Pin::new(&mut begin).poll_read(context, buffer))?;
        Poll::Ready(Ok(buffer.remaining() < room))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for GatedReader<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.input, Input::Silent(_)) {
            if ready!(this.poll_begin(context, buffer))?
                && let Input::Silent(gate) = std::mem::replace(&mut this.input, Input::Open)
            {
                this.input = Input::Begun(gate);
            }
            return Poll::Ready(Ok(()));
        }
        if let Input::Begun(gate) = &mut this.input {
            ready!(gate.as_mut().poll(context));
            this.input = Input::Open;
        }
        Pin::new(&mut this.reader).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    #[tokio::test]
    async fn the_begin_is_read_at_once_and_the_rest_when_the_gate_is_open() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (ours, mut answers) = tokio::io::split(ours);
        let (open, opened) = oneshot::channel::<()>();
        let mut reader = GatedReader::new(ours, async move {
            let _ = opened.await;
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
        let (pass, mut passed) = oneshot::channel();
        let mut reader = GatedReader::new(ours, async move {
            let _ = pass.send(());
        });
        drop(theirs);
        assert_eq!(reader.read(&mut [0; 64]).await.unwrap(), 0);
        assert_eq!(passed.try_recv(), Err(TryRecvError::Empty));
    }
}
