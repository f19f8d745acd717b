//! A reader of what a client sends, which is not much before it has logged in.

use crate::counted_read::poll_read_count;
use crate::progress::{Progress, Stage};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Much more than a login needs: 3 KiB for the exchange of keys, and up to 6 KiB for each attempt by a
/// key with a certificate. russh takes an exchange again at any time, and has no hook by which it could
/// be refused: so many bytes are at most some 150 of them.
const LOGIN_BYTES: usize = 64 << 10;

/// Fails when the client has sent [`LOGIN_BYTES`] and has not logged in.
pub(crate) struct LoginReader<R> {
    reader: R,
    progress: Progress,
    left: usize,
}

impl<R> LoginReader<R> {
    pub(crate) fn new(reader: R, progress: Progress) -> Self {
        Self { reader, progress, left: LOGIN_BYTES }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for LoginReader<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.progress.stage() >= Stage::Authenticated {
            return Pin::new(&mut this.reader).poll_read(context, buffer);
        }
        if this.left == 0 {
            return Poll::Ready(Err(io::Error::other(
                "the client sends too much before its login",
            )));
        }
        let count = ready!(poll_read_count(&mut this.reader, context, buffer))?;
        this.left = this.left.saturating_sub(count);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_login_is_short_and_what_follows_is_not() {
        for is_logged_in in [false, true] {
            let (ours, mut theirs) = duplex(4 * LOGIN_BYTES);
            theirs.write_all(&vec![b'x'; 2 * LOGIN_BYTES]).await.unwrap();
            let progress = Progress::default();
            let mut reader = LoginReader::new(ours, progress.clone());
            let mut login = vec![0; LOGIN_BYTES];
            reader.read_exact(&mut login).await.unwrap();
            if is_logged_in {
                progress.reach(Stage::Authenticated);
            }
            let rest = reader.read_exact(&mut login).await;
            assert_eq!(rest.is_ok(), is_logged_in, "{rest:?}");
        }
    }
}
