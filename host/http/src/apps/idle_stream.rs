//! A stream that fails when nothing comes or goes for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// For one task: whoever polls it last is woken.
pub(super) struct IdleStream<S> {
    stream: S,
    limit: Duration,
    last_active: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> IdleStream<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, last_active: Instant::now(), timer: Box::pin(sleep(limit)) }
    }

    /// Passes on what the stream has done, or has not for too long.
    fn watch<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.last_active = Instant::now();
            return polled;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let until = self.last_active.checked_add(self.limit);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => self.timer.as_mut().reset(until),
                None => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(polled, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(polled, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_used_either_way_stays() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = IdleStream::new(ours, LIMIT);
        let begun = Instant::now();
        // It reads nothing for longer than that, and writes now and then.
        while begun.elapsed() < LIMIT + LIMIT / 4 {
            let read = tokio::time::timeout(LIMIT / 20, stream.read_u8()).await;
            assert!(read.is_err(), "{read:?}");
            stream.write_u8(7).await.unwrap();
        }
        assert_eq!(theirs.read_u8().await.unwrap(), 7);
        let idle = stream.read_u8().await.unwrap_err();
        assert_eq!(idle.kind(), io::ErrorKind::TimedOut);
    }
}
