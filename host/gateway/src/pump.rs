//! Bytes both ways between a client and a pod, whatever carries them.

use crate::limits;
use crate::piece::Piece;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Copies until the reader ends, then ends the writer. Pieces are flushed: nobody types on while
/// their echo waits in a buffer.
pub(crate) async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut piece = Piece::new(limits::PIECE_BYTES);
    loop {
        let bytes = piece.read(&mut reader).await?;
        if bytes.is_empty() {
            return writer.shutdown().await;
        }
        writer.write_all(bytes).await?;
        writer.flush().await?;
    }
}

/// Runs both directions. When one of them has ended, the other one has this long: SSH does not live
/// on half a connection.
pub(crate) async fn both<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
    linger: Duration,
) {
    let mut first = pin!(first);
    let mut second = pin!(second);
    tokio::select! {
        _ = &mut first => {
            let _ = tokio::time::timeout(linger, second).await;
        }
        _ = &mut second => {
            let _ = tokio::time::timeout(linger, first).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, duplex, split};

    #[tokio::test]
    async fn what_is_sent_before_the_end_arrives() {
        let (mut client, ours) = duplex(64);
        let (theirs, mut pod) = duplex(64);
        let pumped = tokio::spawn(async move {
            let (ours_read, ours_write) = split(ours);
            let (theirs_read, theirs_write) = split(theirs);
            both(copy(ours_read, theirs_write), copy(theirs_read, ours_write), limits::LINGER)
                .await;
        });
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        pod.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"hello");
        pod.write_all(b"bye").await.unwrap();
        drop(pod);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"bye");
        pumped.await.unwrap();
    }

    #[tokio::test]
    async fn half_a_connection_ends() {
        let linger = Duration::from_millis(20);
        both(std::future::ready(()), std::future::pending::<()>(), linger).await;
        both(std::future::pending::<()>(), std::future::ready(()), linger).await;
    }
}
