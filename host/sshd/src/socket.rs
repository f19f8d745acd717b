//! Sockets of connections that are ended from outside.

use std::io;
use std::net::Shutdown;
use tokio::net::TcpStream;

/// Shuts the socket down when it is dropped: russh's own task lives as long as its socket, whatever
/// its handle does, and whatever the other end does.
pub struct ShutdownOnDrop(std::net::TcpStream);

impl ShutdownOnDrop {
    /// # Errors
    /// The system's.
    pub fn split(stream: TcpStream) -> io::Result<(TcpStream, Self)> {
        // What is typed is small, and waited for.
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let shutdown = Self(stream.try_clone()?);
        Ok((TcpStream::from_std(stream)?, shutdown))
    }
}

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
