//! A port of a pod, through the API server: one websocket, whose frames are read into the caller's
//! buffer and are sent as they are written.
//!
//! `kube` has such streams too. Each of them holds 128 KiB to read into, and up to 1 MiB in each
//! direction between tasks of its own, all of which stays until the stream ends: hundreds of idle
//! sessions would have that. Here a stream holds a frame while it is sent, and else some hundred bytes.
//!
//! Each message begins with its channel: the port's bytes are one, and what the API server reports of
//! a failure is another. Each channel begins with the number of the port.

use crate::visit_permits::VisitPermit;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Of the port's bytes.
const BYTES: u8 = 0;
/// Of what the API server reports.
const REPORTS: u8 = 1;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The longest payload of a ping.
const CONTROL_BYTES: usize = 125;
/// The longest header of a frame that is sent here.
const HEADER_BYTES: usize = 8;
/// Sent in one frame: with its header it fills a record of TLS.
const FRAME_BYTES: usize = (16 << 10) - HEADER_BYTES - 1;

/// What of the websocket is read next.
#[derive(Clone, Copy)]
enum Reading {
    /// Two bytes with which a frame begins. A short length is one of them.
    Start,
    Length16 {
        opcode: u8,
    },
    Length64 {
        opcode: u8,
    },
    /// The channel of a message. So much of its frame is left then, as below.
    Channel {
        left: u64,
    },
    /// The number with which the channel begins.
    Port {
        left: u64,
    },
    Bytes {
        left: u64,
    },
    Control {
        opcode: u8,
        length: usize,
    },
    /// Nothing, until the answer to a ping is sent.
    Answer,
    Ended,
}

impl Reading {
    /// How many bytes show what comes after it.
    fn length(self) -> usize {
        match self {
            Self::Start | Self::Length16 { .. } | Self::Port { .. } => 2,
            Self::Length64 { .. } => 8,
            Self::Channel { .. } => 1,
            Self::Control { length, .. } => length,
            Self::Bytes { .. } | Self::Answer | Self::Ended => 0,
        }
    }
}

/// It ends when the API server closes it, reports anything, or does not keep to the protocol. There
/// is no end of one direction alone: one that is shut down is closed. Both halves belong to one task.
pub(crate) struct PortForward<S> {
    socket: S,
    port: u16,
    reading: Reading,
    /// What is read but for the port's bytes, and how much of it is there.
    small: [u8; CONTROL_BYTES],
    got: usize,
    /// Of the message that is being read.
    channel: u8,
    /// Which of the channels have begun.
    begun: [bool; 2],
    /// Frames, and how much of them the socket has taken.
    sending: Vec<u8>,
    sent: usize,
    is_closing: bool,
    _visit: Option<VisitPermit>,
}

impl<S> PortForward<S> {
    /// On the connection of a websocket whose handshake is over. The permit is held as long as the
    /// stream is open.
    pub(crate) fn new(socket: S, port: u16, visit: Option<VisitPermit>) -> Self {
        Self {
            socket,
            port,
            reading: Reading::Start,
            small: [0; CONTROL_BYTES],
            got: 0,
            channel: BYTES,
            begun: [false; 2],
            sending: Vec::new(),
            sent: 0,
            is_closing: false,
            _visit: visit,
        }
    }

    /// What is read after the bytes in `small`; nothing if the stream ends.
    fn advance(&mut self) -> Option<Reading> {
        let [first, second, ..] = self.small;
        match self.reading {
            Reading::Start => match (first & OPCODE, second) {
                (opcode, 126) => Some(Reading::Length16 { opcode }),
                (opcode, 127) => Some(Reading::Length64 { opcode }),
                // Only clients mask.
                (_, MASKED..) => None,
                (opcode, length) => self.frame(opcode, u64::from(length)),
            },
            Reading::Length16 { opcode } => {
                self.frame(opcode, u64::from(u16::from_be_bytes([first, second])))
            }
            Reading::Length64 { opcode } => {
                self.frame(opcode, u64::from_be_bytes(*self.small.first_chunk()?))
            }
            Reading::Channel { left } => {
                self.channel = first;
                self.message(left)
            }
            Reading::Port { left } => {
                *self.begun.get_mut(usize::from(self.channel))? = true;
                let is_ours = u16::from_le_bytes([first, second]) == self.port;
                is_ours.then(|| self.message(left)).flatten()
            }
            Reading::Control { opcode: PING, length } => {
                let small = self.small;
                self.queue(PONG, &[], small.get(..length)?).ok()?;
                Some(Reading::Answer)
            }
            Reading::Control { .. } | Reading::Answer => Some(Reading::Start),
            Reading::Bytes { left } => Some(Reading::Bytes { left }),
            Reading::Ended => None,
        }
    }

    /// What is read of a frame that begins.
    fn frame(&self, opcode: u8, length: u64) -> Option<Reading> {
        match opcode {
            BINARY => Some(match length.checked_sub(1) {
                Some(left) => Reading::Channel { left },
                None => Reading::Start,
            }),
            CONTINUATION => self.message(length),
            PING | PONG => {
                let length = usize::try_from(length).ok().filter(|it| *it <= CONTROL_BYTES)?;
                Some(Reading::Control { opcode, length })
            }
            _ => None,
        }
    }

    /// What is read of a message of the channel.
    fn message(&self, left: u64) -> Option<Reading> {
        let has_begun = *self.begun.get(usize::from(self.channel))?;
        match (has_begun, self.channel) {
            (false, _) => left.checked_sub(2).map(|left| Reading::Port { left }),
            (true, BYTES) => Some(Reading::Bytes { left }),
            // Nobody listens to it, and the port is of no use then.
            (true, _) => (left == 0).then_some(Reading::Start),
        }
    }

    /// Puts a frame behind those that are sent.
    fn queue(&mut self, opcode: u8, channel: &[u8], payload: &[u8]) -> io::Result<()> {
        let mut mask = [0; 4];
        getrandom::fill(&mut mask).map_err(io::Error::other)?;
        let length = channel.len().saturating_add(payload.len());
        self.sending.reserve(length.saturating_add(HEADER_BYTES));
        self.sending.push(FINAL | opcode);
        let length = u16::try_from(length).map_err(io::Error::other)?;
        match u8::try_from(length) {
            Ok(length @ 0..=125) => self.sending.push(MASKED | length),
            _ => {
                self.sending.push(MASKED | 126);
                self.sending.extend_from_slice(&length.to_be_bytes());
            }
        }
        self.sending.extend_from_slice(&mask);
        let start = self.sending.len();
        self.sending.extend_from_slice(channel);
        self.sending.extend_from_slice(payload);
        // Many bytes at a time.
        let masks = [mask; 16];
        let masks = masks.as_flattened();
        let masked = self.sending.get_mut(start..).unwrap_or_default();
        for piece in masked.chunks_mut(masks.len()) {
            for (byte, mask) in piece.iter_mut().zip(masks) {
                *byte ^= mask;
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> PortForward<S> {
    /// Fills `small` so far; `false` if the stream has ended.
    fn poll_small(&mut self, context: &mut Context<'_>, length: usize) -> Poll<bool> {
        while self.got < length {
            let Some(room) = self.small.get_mut(self.got..length) else {
                return Poll::Ready(false);
            };
            let mut room = ReadBuf::new(room);
            let read = ready!(Pin::new(&mut self.socket).poll_read(context, &mut room));
            let got = length.saturating_sub(room.remaining());
            if read.is_err() || got == self.got {
                return Poll::Ready(false);
            }
            self.got = got;
        }
        self.got = 0;
        Poll::Ready(true)
    }

    /// Reads so much of the port's bytes at the most; none at the end of the stream.
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        left: u64,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<u64> {
        let room = buffer.remaining();
        let mut bytes = (&mut self.socket).take(left);
        let read = ready!(Pin::new(&mut bytes).poll_read(context, buffer));
        let count = room.saturating_sub(buffer.remaining());
        Poll::Ready(read.map_or(0, |()| u64::try_from(count).unwrap_or(left)))
    }

    /// Sends what is queued, and then holds nothing.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.sending.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.socket).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent = self.sent.saturating_add(count);
        }
        self.sending = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PortForward<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let goes_on = match this.reading {
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Bytes { left: 0 } => {
                    this.reading = Reading::Start;
                    continue;
                }
                Reading::Bytes { left } => {
                    let count = ready!(this.poll_bytes(context, left, buffer));
                    this.reading = match count {
                        0 => Reading::Ended,
                        _ => Reading::Bytes { left: left.saturating_sub(count) },
                    };
                    return Poll::Ready(Ok(()));
                }
                Reading::Answer => ready!(this.poll_sent(context)).is_ok(),
                reading => ready!(this.poll_small(context, reading.length())),
            };
            let next = if goes_on { this.advance() } else { None };
            this.reading = next.unwrap_or(Reading::Ended);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PortForward<S> {
    /// One frame at a time: the next waits until the socket has taken it.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let piece = bytes.get(..bytes.len().min(FRAME_BYTES)).unwrap_or_default();
        if piece.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.queue(BINARY, &[BYTES], piece)?;
        match this.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(piece.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_closing {
            this.is_closing = true;
            this.queue(CLOSE, &[], &[])?;
        }
        this.poll_sent(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    const PORT: u16 = 2_222;
    const GREETING: &[u8] = b"SSH-2.0-test\r\n";

    /// As a server sends it.
    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![FINAL | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(u8::try_from(length).unwrap()),
            length @ 126..=0xffff => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend_from_slice(&u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn message(channel: u8, payload: &[u8]) -> Vec<u8> {
        frame(BINARY, &[&[channel][..], payload].concat())
    }

    /// With these numbers of the port.
    fn opened(bytes: u16, reports: u16) -> Vec<u8> {
        [message(BYTES, &bytes.to_le_bytes()), message(REPORTS, &reports.to_le_bytes())].concat()
    }

    /// The next frame of the client.
    async fn taken(server: &mut DuplexStream) -> (u8, Vec<u8>) {
        let first = server.read_u8().await.unwrap();
        assert!(first >= FINAL);
        let length = match server.read_u8().await.unwrap().checked_sub(MASKED).expect("masked") {
            126 => usize::from(server.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        let mut mask = [0; 4];
        server.read_exact(&mut mask).await.unwrap();
        let mut payload = vec![0; length];
        server.read_exact(&mut payload).await.unwrap();
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        (first & OPCODE, payload)
    }

    /// What is read of all of this, sent in pieces of this size.
    async fn read(sent: &[Vec<u8>], size: usize) -> Vec<u8> {
        let (ours, mut server) = duplex(size);
        let sent = sent.concat();
        let sending = tokio::spawn(async move {
            // It may be read no further.
            let _ = server.write_all(&sent).await;
        });
        let mut received = Vec::new();
        PortForward::new(ours, PORT, None).read_to_end(&mut received).await.unwrap();
        sending.await.unwrap();
        received
    }

    #[tokio::test]
    async fn the_bytes_of_the_port_arrive_however_the_frames_are_cut() {
        let sent = [
            opened(PORT, PORT),
            message(BYTES, GREETING),
            frame(PONG, b"pong"),
            message(BYTES, &[8; 300]),
            message(BYTES, &[]),
            frame(BINARY, &[]),
            // A message of two frames.
            vec![BINARY, 3, BYTES, b'a', b'b'],
            frame(CONTINUATION, b"c"),
            message(BYTES, &[9; 70_000]),
            frame(CLOSE, &[]),
        ];
        let expected = [GREETING, &[8; 300][..], &b"abc"[..], &[9; 70_000][..]].concat();
        for size in [1, 3, 4_096, 1 << 20] {
            assert!(read(&sent, size).await == expected, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_what_nobody_expects_of_the_api_server() {
        for (what, sent) in [
            ("another port", opened(PORT + 1, PORT)),
            ("no port", message(BYTES, &[1])),
            ("a report", [opened(PORT, PORT), message(REPORTS, b"refused")].concat()),
            ("a report at once", message(REPORTS, &[&PORT.to_le_bytes()[..], b"x"].concat())),
            ("a channel of no port", message(2, &PORT.to_le_bytes())),
            ("its end", [opened(PORT, PORT), frame(CLOSE, &[])].concat()),
            ("text", frame(1, GREETING)),
            ("a mask", vec![FINAL | BINARY, MASKED | 1]),
            ("a long ping", frame(PING, &[0; CONTROL_BYTES + 1])),
        ] {
            let more = message(BYTES, GREETING);
            assert_eq!(read(&[sent, more], 1 << 20).await, b"", "{what}");
        }
        let half = opened(PORT, PORT)[..3].to_vec();
        assert_eq!(read(&[half], 64).await, b"");
    }

    #[tokio::test]
    async fn what_is_written_arrives_and_nothing_of_it_is_held() {
        let (ours, mut server) = duplex(64);
        let mut forward = PortForward::new(ours, PORT, None);
        let bytes: Vec<u8> = (0..40_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let sending = async {
            forward.write_all(b"x").await.unwrap();
            forward.write_all(&bytes).await.unwrap();
            forward.flush().await.unwrap();
            assert_eq!(forward.sending.capacity(), 0);
            forward.shutdown().await.unwrap();
            forward
        };
        let taking = async {
            let mut all = Vec::new();
            loop {
                let (opcode, payload) = taken(&mut server).await;
                if opcode == CLOSE {
                    return all;
                }
                let (channel, piece) = payload.split_first().unwrap();
                assert_eq!((opcode, *channel), (BINARY, BYTES));
                all.extend_from_slice(piece);
            }
        };
        let (_forward, all) = tokio::join!(sending, taking);
        assert!(all == [&b"x"[..], &bytes].concat());
        assert!(size_of::<PortForward<DuplexStream>>() < 512);
    }

    #[tokio::test]
    async fn a_ping_is_answered_before_anything_else_is_read() {
        let (ours, mut server) = duplex(1 << 10);
        let mut forward = PortForward::new(ours, PORT, None);
        let sent = [opened(PORT, PORT), frame(PING, b"there?"), message(BYTES, b"y")].concat();
        server.write_all(&sent).await.unwrap();
        assert_eq!(forward.read_u8().await.unwrap(), b'y');
        assert_eq!(taken(&mut server).await, (PONG, b"there?".to_vec()));
    }
}
