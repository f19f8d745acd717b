//! What takes the place of a login for a session over iroh, of which the gateway sees none: both sides
//! have sent more than a greeting, and the pod's server has left the session open for longer than it
//! gives a client to log in. Bytes alone prove nothing: whoever exchanges keys sends as many.

use crate::limits;
use paygress_sshd::poll_read_count;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Notified by the readers of both sides.
pub(crate) struct Sides {
    pub(crate) client: oneshot::Sender<()>,
    pub(crate) pod: oneshot::Sender<()>,
}

/// What the session waits for.
pub(crate) struct Proof {
    client: oneshot::Receiver<()>,
    pod: oneshot::Receiver<()>,
}

impl Proof {
    pub(crate) fn of_session() -> (Sides, Self) {
        let (client, from_client) = oneshot::channel();
        let (pod, from_pod) = oneshot::channel();
        (Sides { client, pod }, Self { client: from_client, pod: from_pod })
    }

    /// Returns when the session has proved itself: that long after both sides have sent.
    pub(crate) async fn given(self, grace: Duration) {
        let Self { client, pod } = self;
        if client.await.is_err() || pod.await.is_err() {
            return pending().await;
        }
        sleep(grace).await;
    }
}

/// Notifies when a side has sent more than a greeting.
pub(crate) struct ProofReader<R> {
    reader: R,
    left: usize,
    notify: Option<oneshot::Sender<()>>,
}

impl<R> ProofReader<R> {
    pub(crate) fn new(reader: R, notify: oneshot::Sender<()>) -> Self {
        Self { reader, left: limits::PROOF_BYTES, notify: Some(notify) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ProofReader<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let count = ready!(poll_read_count(&mut this.reader, context, buffer))?;
        this.left = this.left.saturating_sub(count);
        if this.left == 0
            && let Some(notify) = this.notify.take()
        {
            let _ = notify.send(());
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::io::AsyncReadExt;

    async fn reads(bytes: usize, notify: oneshot::Sender<()>) {
        let bytes = vec![7; bytes];
        let mut reader = ProofReader::new(&bytes[..], notify);
        let mut read = Vec::new();
        assert_eq!(reader.read_to_end(&mut read).await.unwrap(), bytes.len());
        assert_eq!(read, bytes);
    }

    #[tokio::test]
    async fn a_greeting_is_no_proof_and_an_exchange_of_keys_is_noticed() {
        for (bytes, is_noticed) in [(20, false), (limits::PROOF_BYTES, true), (100_000, true)] {
            let (Sides { client, pod }, mut proof) = Proof::of_session();
            reads(100_000, client).await;
            reads(bytes, pod).await;
            assert!(proof.client.try_recv().is_ok());
            assert_eq!(proof.pod.try_recv().is_ok(), is_noticed, "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_session_proves_itself_after_the_time_for_a_login() {
        let grace = Duration::from_millis(50);
        let (Sides { client, pod }, proof) = Proof::of_session();
        let begun = Instant::now();
        reads(limits::PROOF_BYTES, client).await;
        reads(limits::PROOF_BYTES, pod).await;
        proof.given(grace).await;
        assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_session_of_which_one_side_is_silent_proves_nothing() {
        let (Sides { client, pod }, proof) = Proof::of_session();
        reads(limits::PROOF_BYTES, client).await;
        drop(pod);
        tokio::select! {
            biased;
            () = proof.given(Duration::ZERO) => panic!("that was no proof"),
            () = std::future::ready(()) => {}
        }
    }
}
