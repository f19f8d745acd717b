use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Reads as `poll_read` does; how many bytes that were, which is 0 at the end of the stream.
///
/// # Errors
/// The reader's.
pub fn poll_read_count<R: AsyncRead + Unpin>(
    mut reader: R,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<usize>> {
    let room = buffer.remaining();
    ready!(Pin::new(&mut reader).poll_read(context, buffer))?;
    Poll::Ready(Ok(room.saturating_sub(buffer.remaining())))
}
