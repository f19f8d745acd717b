//! A port for what is started later.

use crate::error::{Result, during};
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::TcpSocket;

/// A port of this machine on which a program can listen later. It is below those that the system gives
/// to outgoing connections, so that none of these gets it meanwhile; another call gives another one, and
/// another process begins elsewhere.
pub fn free_port() -> Result<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(257);
    let found = (0..7_000).find_map(|_| {
        let number = begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % 7_000;
        let port = u16::try_from(number).ok()?.checked_add(22_000)?;
        is_free(port).then_some(port)
    });
    found.ok_or(io::ErrorKind::AddrInUse).map_err(io::Error::from).map_err(during("find a port"))
}

/// Whether nothing listens there. This socket does not either: a child that another test starts has a
/// copy of it until it is another program, and nobody else could listen meanwhile.
fn is_free(port: u16) -> bool {
    let bind = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())
    };
    bind().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn each_call_gives_another_port_where_something_can_listen() {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        assert_ne!(ports[0], ports[1]);
        let listeners = ports.map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        assert!(ports.iter().all(|port| !is_free(*port)));
        drop(listeners);
    }
}
