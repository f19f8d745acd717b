//! The body of an answer, or of a request, in one buffer.

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use std::error::Error;

/// So many pieces a body may have, however small: each costs its reader more than its bytes do…
const MAX_PIECES: usize = 4_096;
/// …and of more each has so many bytes on average. A chunk of HTTP/1.1 is one piece at least.
const MIN_PIECE_BYTES: usize = 16;

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("it has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("it has more than {} pieces of less than {} bytes", MAX_PIECES, MIN_PIECE_BYTES)]
    TinyPieces,
    #[error("it is incomplete")]
    Incomplete(#[source] Box<dyn Error + Send + Sync>),
}

/// Reads a body of at most `limit` bytes. Each piece is dropped before the next one comes, since a
/// small one keeps the whole buffer that it was received in.
///
/// # Errors
/// [`BodyError`].
pub async fn read_body<B>(mut body: B, limit: usize) -> Result<Vec<u8>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // A length that is only announced reserves nothing.
    let (mut whole, mut pieces) = (Vec::<u8>::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Incomplete(error.into()))?;
        let piece = frame.into_data().unwrap_or_default();
        if piece.len() > limit.saturating_sub(whole.len()) {
            return Err(BodyError::TooLarge { limit });
        }
        whole.extend_from_slice(&piece);
        pieces = pieces.saturating_add(1);
        if pieces > MAX_PIECES && whole.len() < pieces.saturating_mul(MIN_PIECE_BYTES) {
            return Err(BodyError::TinyPieces);
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Frame;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    struct Piece(Arc<[u8]>);

    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    /// A body that counts how many of its pieces its reader keeps.
    struct Pieces {
        piece: Arc<[u8]>,
        left: usize,
        most_kept: usize,
    }

    impl Pieces {
        fn new(pieces: usize, bytes: usize) -> Self {
            Self { piece: vec![b'x'; bytes].into(), left: pieces, most_kept: 0 }
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
            self.left = left;
            // One is its own.
            let kept = Arc::strong_count(&self.piece).saturating_sub(1);
            self.most_kept = self.most_kept.max(kept);
            let piece = Bytes::from_owner(Piece(Arc::clone(&self.piece)));
            Poll::Ready(Some(Ok(Frame::data(piece))))
        }
    }

    #[tokio::test]
    async fn no_piece_is_kept() {
        let mut body = Pieces::new(1_000, 7);
        assert_eq!(read_body(&mut body, 7_000).await.unwrap(), [b'x'; 7_000]);
        assert_eq!(body.most_kept, 0);
    }

    #[tokio::test]
    async fn many_pieces_are_refused_if_they_are_tiny() {
        for (pieces, bytes, is_read) in [
            (MAX_PIECES, 1, true),
            (MAX_PIECES + 1, 1, false),
            (MAX_PIECES + 1, MIN_PIECE_BYTES - 1, false),
            (2 * MAX_PIECES, MIN_PIECE_BYTES, true),
        ] {
            match read_body(Pieces::new(pieces, bytes), 1 << 20).await {
                Ok(whole) => {
                    assert_eq!((whole.len(), is_read), (pieces.saturating_mul(bytes), true))
                }
                Err(BodyError::TinyPieces) => assert!(!is_read, "{pieces} of {bytes} bytes"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn no_byte_beyond_the_limit_is_read() {
        let mut body = Pieces::new(3, 50);
        let error = read_body(&mut body, 99).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 99 }), "{error}");
        assert_eq!(body.left, 1);
        assert_eq!(read_body(Pieces::new(2, 50), 100).await.unwrap().len(), 100);
    }
}
