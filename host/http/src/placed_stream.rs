//! A connection's socket, by which its [place](crate::places::Places) knows what the client reads.

use crate::places::Place;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// It knows when an answer has been sent, since hyper flushes when nothing is left to write, and when
/// nothing can be written. It fails once the place is lost, also under another protocol.
pub(crate) struct PlacedStream<S> {
    stream: S,
    place: Arc<Place>,
    /// Nothing could be written the last time.
    is_unread: bool,
}

impl<S> PlacedStream<S> {
    pub(crate) fn new(stream: S, place: Arc<Place>) -> Self {
        Self { stream, place, is_unread: false }
    }

    fn check(&self, context: &mut Context<'_>) -> io::Result<()> {
        match self.place.poll_lost(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Passes on what has been written, or not.
    fn written(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let is_unread = polled.is_pending();
        if is_unread != self.is_unread {
            self.is_unread = is_unread;
            self.place.set_unread(is_unread);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.place.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::places::{Client, Places, UnderWay};
    use tokio::io::AsyncWriteExt;

    /// Also where the task that writes is no longer the connection's, but a WebSocket's.
    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_for_the_client_fails_once_the_place_is_lost() {
        let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
        let connections: Vec<(Arc<Place>, UnderWay)> = (0..limits::CONNECTIONS_OF_ONE[0])
            .map(|_| {
                let place = places.admit(own, Client::Direct).unwrap();
                let request = place.begin().unwrap();
                (place, request)
            })
            .collect();
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut stream = PlacedStream::new(ours, Arc::clone(&connections[7].0));
        let writing = tokio::spawn(async move { stream.write_all(&[0; 65]).await });
        tokio::time::sleep(limits::STALLED).await;
        let _newcomer = places.admit(own, Client::Direct).unwrap();
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
