//! A port of a pod, through the API server: one websocket that holds little.
//!
//! `kube` has such streams too. Each of them holds 128 KiB to read into, and up to 1 MiB in each
//! direction between tasks of its own, all of which stays until the stream ends: hundreds of idle
//! sessions would have that. `kube` makes the connection, and here is a websocket with short buffers.
//!
//! Each message begins with its channel: the port's bytes are one, and what the API server reports of
//! a failure is another. The first message of each is the number of the port.

use crate::stream_permits::StreamPermit;
use bytes::{Buf, Bytes};
use futures::{SinkExt, StreamExt};
use kube_tungstenite::WebSocketStream;
use kube_tungstenite::tungstenite::Message;
use kube_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of the port's bytes.
const BYTES: u8 = 0;
/// That, and what the API server reports.
const CHANNELS: usize = 2;

/// Read at once, and ahead of the message that is read. Of longer messages the library has the whole.
const READ_BYTES: usize = 4 << 10;
/// The longest message: those of the kubelet have 32 KiB.
const MESSAGE_BYTES: usize = 1 << 20;
/// Sent in one message: a buffer that is as long stays.
const SENT_BYTES: usize = 8 << 10;
/// What the library holds at most of what is sent: a message, and answers to pings.
const UNSENT_BYTES: usize = 32 << 10;

/// It ends when the API server closes it, and fails when the API server is gone without that, reports
/// anything, or does not keep to the protocol: what was read is not all then. There is no end of one
/// direction alone: one that is shut down is closed.
pub(crate) struct PortForward<S> {
    socket: WebSocketStream<S>,
    port: u16,
    /// Which of the channels have begun.
    begun: [bool; CHANNELS],
    /// What is left of the last message. If nothing is, it is kept all the same: while its memory is
    /// in use, the library allocates short buffers, and else would read on into this one, which is as
    /// long as the longest message ever was.
    received: Bytes,
    has_ended: bool,
    /// It is shut down: however it ends now is its end.
    is_shut: bool,
    _permit: Option<StreamPermit>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PortForward<S> {
    /// On the connection of a websocket of which nothing is read but the handshake. The permit is
    /// held as long as the stream is open.
    pub(crate) async fn new(connection: S, port: u16, permit: Option<StreamPermit>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(UNSENT_BYTES)
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        Self {
            socket: WebSocketStream::from_raw_socket(connection, Role::Client, Some(config)).await,
            port,
            begun: [false; CHANNELS],
            received: Bytes::new(),
            has_ended: false,
            is_shut: false,
            _permit: permit,
        }
    }

    /// The next bytes of the port; nothing at the end.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let mut message = match ready!(self.socket.poll_next_unpin(context)) {
                Some(Ok(Message::Binary(message))) => message,
                // To be polled again: the library answers then.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(None)),
                Some(Err(_)) if self.is_shut => return Poll::Ready(Ok(None)),
                Some(Ok(_)) => return Poll::Ready(Err(cut())),
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(ErrorKind::ConnectionReset, error)));
                }
            };
            let Some((&channel, bytes)) = message.split_first().filter(|it| !it.1.is_empty())
            else {
                continue;
            };
            let Some(has_begun) = self.begun.get_mut(usize::from(channel)) else {
                return Poll::Ready(Err(cut()));
            };
            match (*has_begun, channel) {
                (false, _) if *bytes == self.port.to_le_bytes() => *has_begun = true,
                (true, BYTES) => {
                    message.advance(1);
                    return Poll::Ready(Ok(Some(message)));
                }
                // Nobody listens to reports, and the port is of no use then.
                _ => return Poll::Ready(Err(cut())),
            }
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the API server ends the connection to the port")
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PortForward<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.received.is_empty() && !this.has_ended {
            let read = ready!(this.poll_bytes(context));
            this.has_ended = !matches!(read, Ok(Some(_)));
            this.received = read?.unwrap_or_default();
        }
        let count = this.received.len().min(buffer.remaining());
        buffer.put_slice(this.received.get(..count).unwrap_or_default());
        this.received.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PortForward<S> {
    /// One message at a time: the next waits until the connection has taken it.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.socket.poll_ready_unpin(context)).map_err(io::Error::other)?;
        let piece = bytes.get(..bytes.len().min(SENT_BYTES)).unwrap_or_default();
        if !piece.is_empty() {
            let message = Message::binary([slice::from_ref(&BYTES), piece].concat());
            this.socket.start_send_unpin(message).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_flush_unpin(context).map_err(io::Error::other)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.is_shut = true;
        this.socket.poll_close_unpin(context).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    const REPORTS: u8 = 1;
    const PORT: u16 = 2_222;
    const GREETING: &[u8] = b"SSH-2.0-test\r\n";

    /// Of a port, and of the API server.
    async fn ends(size: usize) -> (PortForward<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(size);
        let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        (PortForward::new(ours, PORT, None).await, server)
    }

    fn message(channel: u8, payload: &[u8]) -> Message {
        Message::binary([&[channel][..], payload].concat())
    }

    /// With these numbers of the port.
    fn opened(bytes: u16, reports: u16) -> Vec<Message> {
        vec![message(BYTES, &bytes.to_le_bytes()), message(REPORTS, &reports.to_le_bytes())]
    }

    /// What is read of these, and how it ends.
    async fn read(messages: Vec<Message>, size: usize) -> (Vec<u8>, Option<ErrorKind>) {
        let (mut forward, mut server) = ends(size).await;
        let sending = tokio::spawn(async move {
            for message in messages {
                // It may be read no further.
                if server.send(message).await.is_err() {
                    break;
                }
            }
            // Open until all is read.
            server
        });
        let mut received = Vec::new();
        let end = forward.read_to_end(&mut received).await.err().map(|error| error.kind());
        drop(forward);
        drop(sending.await.unwrap());
        (received, end)
    }

    #[tokio::test]
    async fn the_bytes_of_the_port_arrive_however_they_are_cut() {
        let sent = vec![
            message(BYTES, GREETING),
            Message::Ping(Bytes::new()),
            message(BYTES, &[8; 300]),
            message(BYTES, &[]),
            Message::binary(Bytes::new()),
            message(BYTES, &[9; 70_000]),
            Message::Close(None),
        ];
        let sent = [opened(PORT, PORT), sent].concat();
        let expected = [GREETING, &[8; 300][..], &[9; 70_000][..]].concat();
        for size in [1, 64, 4_096, 1 << 20] {
            let (received, end) = read(sent.clone(), size).await;
            assert!(received == expected && end.is_none(), "in pieces of {size}: {end:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_what_nobody_expects_of_the_api_server() {
        let then = |message: Message| [opened(PORT, PORT), vec![message]].concat();
        let (cut, reset) = (Some(ErrorKind::UnexpectedEof), Some(ErrorKind::ConnectionReset));
        for (what, mut messages, end) in [
            ("another port", opened(PORT + 1, PORT), cut),
            ("another port of reports", opened(PORT, PORT + 1), cut),
            ("no port", Vec::new(), cut),
            ("a report", then(message(REPORTS, b"refused")), cut),
            ("a channel of no port", then(message(2, &PORT.to_le_bytes())), cut),
            ("its end", then(Message::Close(None)), None),
            ("text", then(Message::text("SSH")), cut),
            ("a long message", then(message(BYTES, &[0; MESSAGE_BYTES])), reset),
        ] {
            messages.push(message(BYTES, GREETING));
            assert_eq!(read(messages, 1 << 20).await, (Vec::new(), end), "{what}");
        }
    }

    /// An answer that ends with its connection would else be taken for a whole one.
    #[tokio::test]
    async fn a_stream_whose_connection_is_cut_has_no_end() {
        let (mut forward, mut server) = ends(1 << 10).await;
        for message in [opened(PORT, PORT), vec![message(BYTES, GREETING)]].concat() {
            server.send(message).await.unwrap();
        }
        drop(server);
        let mut received = Vec::new();
        let error = forward.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(received, GREETING);
    }

    #[tokio::test]
    async fn a_stream_that_was_closed_here_has_ended() {
        let (mut forward, mut server) = ends(1 << 10).await;
        let closing = async move {
            while let Some(Ok(message)) = server.next().await {
                if message.is_close() {
                    break;
                }
            }
            // The client waits until the connection is gone.
            drop(server);
        };
        let (closed, ()) = tokio::join!(forward.shutdown(), closing);
        closed.unwrap();
        assert_eq!(forward.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_written_arrives_in_short_messages() {
        let (mut forward, mut server) = ends(64).await;
        let bytes: Vec<u8> = (0..40_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let sending = async {
            forward.write_all(&bytes).await.unwrap();
            forward.shutdown().await.unwrap();
        };
        let taking = async {
            let mut all = Vec::new();
            loop {
                let message = server.next().await.unwrap().unwrap();
                if message.is_close() {
                    return all;
                }
                let payload = message.into_data();
                let (channel, piece) = payload.split_first().unwrap();
                assert_eq!(*channel, BYTES);
                assert!(piece.len() <= SENT_BYTES);
                all.extend_from_slice(piece);
            }
        };
        let ((), all) = tokio::join!(sending, taking);
        assert!(all == bytes);
    }

    #[tokio::test]
    async fn what_is_flushed_arrives_and_a_ping_is_answered() {
        let (mut forward, mut server) = ends(64).await;
        let ping = Bytes::from_static(b"there?");
        let client = async {
            forward.write_all(&[b'x'; 100]).await.unwrap();
            forward.flush().await.unwrap();
            assert_eq!(forward.read_u8().await.unwrap(), b'y');
        };
        let pod = async {
            let typed = server.next().await.unwrap().unwrap();
            assert_eq!(typed, message(BYTES, &[b'x'; 100]));
            let answers = vec![Message::Ping(ping.clone()), message(BYTES, b"y")];
            for message in [opened(PORT, PORT), answers].concat() {
                server.send(message).await.unwrap();
            }
            assert_eq!(server.next().await.unwrap().unwrap(), Message::Pong(ping.clone()));
        };
        tokio::join!(client, pod);
    }

    #[tokio::test]
    async fn little_is_read_ahead() {
        let (mut forward, mut server) = ends(1 << 20).await;
        let messages = vec![message(BYTES, &[7; 10_000]); 20];
        for message in [opened(PORT, PORT), messages].concat() {
            server.send(message).await.unwrap();
        }
        drop(server);
        assert_eq!(forward.read_u8().await.unwrap(), 7);
        let mut rest = Vec::new();
        forward.socket.into_inner().read_to_end(&mut rest).await.unwrap();
        // Of 20.
        assert!(rest.len() > 18 * 10_000, "{} bytes are left", rest.len());
    }

    #[tokio::test]
    async fn the_memory_of_a_long_message_is_given_back() {
        let (mut forward, mut server) = ends(1 << 20).await;
        let long = vec![message(BYTES, &[8; 32 << 10])];
        let short = vec![message(BYTES, &[9; 100]); 100];
        for message in [opened(PORT, PORT), long, short].concat() {
            server.send(message).await.unwrap();
        }
        let mut received = vec![0; (32 << 10) + 100 * 100];
        forward.read_exact(&mut received).await.unwrap();
        drop(forward.socket);
        let last = forward.received.try_into_mut().unwrap();
        assert!(last.capacity() < 2 * READ_BYTES, "{}", last.capacity());
    }
}
