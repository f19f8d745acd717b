//! A connection's socket, by which its [place](crate::places::Places) knows what the client reads.

use crate::pace::Pace;
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
    /// Of the client, as it reads.
    pace: Pace,
    /// Nothing could be written the last time.
    is_unread: bool,
}

impl<S> PlacedStream<S> {
    pub(crate) fn new(stream: S, place: Arc<Place>) -> Self {
        Self { stream, place, pace: Pace::default(), is_unread: false }
    }

    fn check(&self, context: &mut Context<'_>) -> io::Result<()> {
        match self.place.poll_lost(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Passes on what has been written, or not.
    fn written(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let unread = match &polled {
            Poll::Pending => Some(self.pace.wait()),
            Poll::Ready(written) => {
                self.pace.advance(written.as_ref().copied().unwrap_or(0));
                None
            }
        };
        if unread.is_some() != self.is_unread {
            self.is_unread = unread.is_some();
            self.place.set_unread(unread);
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
    use crate::places::{PeerKind, Places, UnderWay};
    use std::net::IpAddr;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// All connections of an address, for each of which the service works.
    fn all_busy(places: &Places, address: IpAddr) -> Vec<(Arc<Place>, UnderWay)> {
        let connect = |_| {
            let place = places.admit(address, PeerKind::Direct).unwrap();
            let request = place.begin().unwrap();
            (place, request)
        };
        (0..limits::CONNECTIONS_OF_ONE[0]).map(connect).collect()
    }

    /// Also where the task that writes is no longer the connection's, but a WebSocket's.
    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_for_the_client_fails_once_the_place_is_lost() {
        let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
        let connections = all_busy(&places, own);
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut stream = PlacedStream::new(ours, Arc::clone(&connections[7].0));
        let writing = tokio::spawn(async move { stream.write_all(&[0; 65]).await });
        tokio::time::sleep(limits::STALLED).await;
        let _newcomer = places.admit(own, PeerKind::Direct).unwrap();
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    /// Of several that read a little every second, those that read less than they must.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_trickle_loses_its_place() {
        for (a_second, is_lost) in [(1, true), (512, true), (1_024, false), (4_096, false)] {
            let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
            let connections = all_busy(&places, own);
            let (ours, mut theirs) = tokio::io::duplex(a_second);
            let mut stream = PlacedStream::new(ours, Arc::clone(&connections[7].0));
            let answer = vec![0; 64 << 10];
            let writing = tokio::spawn(async move { stream.write_all(&answer).await });
            let mut read = vec![0; a_second];
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                theirs.read_exact(&mut read).await.unwrap();
            }
            let newcomer = places.admit(own, PeerKind::Direct);
            assert_eq!(newcomer.is_some(), is_lost, "{a_second} B a second");
            writing.abort();
        }
    }
}
