//! The way to a pod's SSH server that greets. While many of its connections have not logged in, it hangs
//! up on new ones by chance (OpenSSH's `MaxStartups`). Whoever knows the name of a pod may hold some
//! over iroh, and customers who have logged in at the jump host would be refused for that.

use crate::limits;
use paygress_core::backend::pod_streams::{ByteStream, OpenError, PodPort, PodStreams};
use paygress_core::model::ids::PodName;
use std::io::Cursor;
use tokio::io::{AsyncReadExt, join, split};
use tokio::time::timeout;

/// Opens a connection on which the server does not hang up at once, or the last of some. A server that
/// does not greet is not waited for.
pub(crate) async fn open_greeted(
    streams: &dyn PodStreams,
    pod: &PodName,
) -> Result<Box<dyn ByteStream>, OpenError> {
    let mut stream = streams.open(pod, PodPort::Ssh).await?;
    for _ in 1..limits::GREETING_TRIES {
        let mut greeting = vec![0; limits::GREETING_BYTES];
        match timeout(limits::GREETING, stream.read(&mut greeting)).await {
            Ok(Ok(0) | Err(_)) => stream = streams.open(pod, PodPort::Ssh).await?,
            Ok(Ok(count)) => {
                greeting.truncate(count);
                return Ok(with_greeting(greeting, stream));
            }
            Err(_) => return Ok(stream),
        }
    }
    Ok(stream)
}

/// The stream as it was before this was read from it.
fn with_greeting(greeting: Vec<u8>, stream: Box<dyn ByteStream>) -> Box<dyn ByteStream> {
    let (reader, writer) = split(stream);
    Box::new(join(Cursor::new(greeting).chain(reader), writer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncWriteExt, duplex};

    const GREETING: &[u8] = b"SSH-2.0-test\r\n";

    /// A server that hangs up so many times, and then greets and sends back what it gets.
    struct Server {
        hangs_up: usize,
        opened: AtomicUsize,
    }

    #[async_trait]
    impl PodStreams for Server {
        async fn open(&self, _: &PodName, _: PodPort) -> Result<Box<dyn ByteStream>, OpenError> {
            let (ours, theirs) = duplex(64);
            if self.opened.fetch_add(1, Ordering::Relaxed) >= self.hangs_up {
                tokio::spawn(async move {
                    let (mut read, mut write) = split(theirs);
                    write.write_all(GREETING).await.unwrap();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
            Ok(Box::new(ours))
        }
    }

    async fn exchange(hangs_up: usize) -> (Vec<u8>, usize) {
        let server = Server { hangs_up, opened: AtomicUsize::new(0) };
        let pod = PodName::parse("ssh-pod-aaaaaaaaaa").unwrap();
        let mut stream = open_greeted(&server, &pod).await.unwrap();
        // The other side may be gone.
        let _ = stream.write_all(b"hello").await;
        let _ = stream.shutdown().await;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        (received, server.opened.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_by_chance_is_tried_again() {
        let whole = [GREETING, b"hello"].concat();
        for hangs_up in 0..limits::GREETING_TRIES {
            assert_eq!(exchange(hangs_up).await, (whole.clone(), hangs_up + 1));
        }
        let tries = limits::GREETING_TRIES;
        assert_eq!(exchange(usize::MAX).await, (Vec::new(), tries), "there is an end to it");
    }

    /// A server that waits for its client.
    struct Silent(tokio::sync::Mutex<Vec<tokio::io::DuplexStream>>);

    #[async_trait]
    impl PodStreams for Silent {
        async fn open(&self, _: &PodName, _: PodPort) -> Result<Box<dyn ByteStream>, OpenError> {
            let (ours, theirs) = duplex(64);
            self.0.lock().await.push(theirs);
            Ok(Box::new(ours))
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_greet_is_not_waited_for() {
        let server = Silent(tokio::sync::Mutex::default());
        let pod = PodName::parse("ssh-pod-aaaaaaaaaa").unwrap();
        let mut stream = open_greeted(&server, &pod).await.unwrap();
        let mut servers = server.0.lock().await;
        assert_eq!(servers.len(), 1);
        servers[0].write_all(GREETING).await.unwrap();
        let mut received = vec![0; GREETING.len()];
        stream.read_exact(&mut received).await.unwrap();
        assert_eq!(received, GREETING);
    }
}
