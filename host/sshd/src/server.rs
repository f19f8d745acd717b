//! The listener: limits on connections, and their shutdown.

use crate::account::Account;
use crate::connection::{self, Connection};
use crate::forward::ACCEPT_PAUSE;
use crate::groups::Groups;
use crate::host_keys::HostKeys;
use crate::session::Peers;
use russh::keys::PrivateKey;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

/// Connections at the same time; a session costs a few hundred kilobytes, a connection that has not
/// authenticated 40. Those leave room for more sessions than a person has.
const MAX_CONNECTIONS: usize = 228;
/// Connections that have not authenticated yet, as OpenSSH's `MaxStartups 10:30:100`. From
/// `STARTUPS_BEGIN` on, a new one is dropped at random, with `STARTUPS_RATE` percent at first and
/// ever more up to all of them at `STARTUPS_FULL`: somebody who holds connections open cannot keep
/// a customer out who tries again. Addresses are not counted: behind source NAT all clients have
/// the same.
const STARTUPS_BEGIN: usize = 10;
const STARTUPS_RATE: usize = 30;
const STARTUPS_FULL: usize = 100;
/// The percent that are added between the first number and the last one, and how far apart those
/// are.
const STARTUPS_RISE: usize = 100 - STARTUPS_RATE;
const STARTUPS_SPAN: usize = STARTUPS_FULL - STARTUPS_BEGIN;
/// A client that has not authenticated by then is disconnected, as OpenSSH's `LoginGraceTime`.
const LOGIN_GRACE: Duration = Duration::from_secs(120);
/// For the connections to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Listens on IPv6 and IPv4 by one socket; where there is no IPv6, on IPv4 alone.
///
/// # Errors
/// The port is in use.
pub async fn listen_on_both_families(port: u16) -> std::io::Result<TcpListener> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    // The first that can be had.
    TcpListener::bind(&[v6, v4][..]).await
}

/// Serves logins until `stop` is `true` or its sender is dropped; then shuts every connection down
/// and ends every process of the user.
pub async fn serve(
    listener: TcpListener,
    account: Account,
    host_keys: impl Into<HostKeys>,
    mut stop: watch::Receiver<bool>,
) {
    let account = Arc::new(account);
    let HostKeys { mut keys, mut rsa } = host_keys.into();
    let mut config = Arc::new(connection::config(keys.clone(), &account));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let startups = Arc::new(Semaphore::new(STARTUPS_FULL));
    let groups = Arc::new(Groups::default());
    loop {
        let (socket, _) = tokio::select! {
            () = is_set(&mut stop) => break,
            made = made(&mut rsa) => {
                keys.extend(made);
                config = Arc::new(connection::config(keys.clone(), &account));
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(pre_auth) = admit(&startups) else { continue };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let (config, account, stop) = (Arc::clone(&config), Arc::clone(&account), stop.clone());
        let groups = Arc::clone(&groups);
        tokio::spawn(async move {
            let served = serve_connection(socket, config, account, groups, pre_auth, stop).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection failed");
            }
            drop(permit);
        });
    }
    drop(listener);
    // None of them starts a program any more.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(STOP_GRACE, connections.acquire_many(all)).await;
    groups.end().await;
}

/// Waits for the key that is still being made, if one is.
async fn made(rsa: &mut Option<JoinHandle<Option<PrivateKey>>>) -> Option<PrivateKey> {
    let Some(task) = rsa else { return std::future::pending().await };
    let key = task.await.ok().flatten();
    *rsa = None;
    key
}

/// Holds one of the places of `MaxStartups` until it authenticates or ends.
type PreAuthConn = OwnedSemaphorePermit;

/// A place for a new connection, unless chance is against it.
fn admit(startups: &Arc<Semaphore>) -> Option<PreAuthConn> {
    let held = STARTUPS_FULL.saturating_sub(startups.available_permits());
    let drop_percent = drop_percent(held);
    // Without randomness nothing is admitted while there are many.
    let is_dropped =
        drop_percent > 0 && getrandom::u32().map_or(true, |random| random % 100 < drop_percent);
    if is_dropped { None } else { Arc::clone(startups).try_acquire_owned().ok() }
}

/// How many of a hundred new connections are dropped while so many have not authenticated.
fn drop_percent(held: usize) -> u32 {
    let rise = held.saturating_sub(STARTUPS_BEGIN).saturating_mul(STARTUPS_RISE);
    let percent = match held {
        0..STARTUPS_BEGIN => 0,
        STARTUPS_BEGIN..STARTUPS_FULL => {
            STARTUPS_RATE.saturating_add(rise.div_euclid(STARTUPS_SPAN))
        }
        _ => 100,
    };
    u32::try_from(percent).unwrap_or(100)
}

/// Waits until the flag is `true` or its sender is dropped.
async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await.is_ok();
}

async fn serve_connection(
    socket: TcpStream,
    config: Arc<russh::server::Config>,
    account: Arc<Account>,
    groups: Arc<Groups>,
    pre_auth: PreAuthConn,
    mut stop: watch::Receiver<bool>,
) -> Result<(), russh::Error> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&socket, true).map_err(std::io::Error::from)?;
    let peers = Peers { client: socket.peer_addr()?, server: socket.local_addr()? };
    // A second handle on the socket: a client that has stopped reading can still be cut off.
    let socket = socket.into_std()?;
    let shutdown_handle = socket.try_clone()?;
    let (authenticated, mut is_authenticated) = watch::channel(false);
    let handler = Connection::new(account, groups, peers, authenticated);
    let grace = tokio::time::sleep(LOGIN_GRACE);
    let mut session = match tokio::time::timeout(
        LOGIN_GRACE,
        russh::server::run_stream(config, TcpStream::from_std(socket)?, handler),
    )
    .await
    {
        Ok(session) => session?,
        Err(_) => return Ok(()),
    };
    let login_timed_out = async {
        tokio::select! {
            () = grace => {}
            // Authenticated or closed: the grace time no longer matters.
            () = is_set(&mut is_authenticated) => {
                drop(pre_auth);
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        ended = &mut session => return ended,
        () = is_set(&mut stop) => {}
        () = login_timed_out => {}
    }
    let _ = shutdown_handle.shutdown(Shutdown::Both);
    session.await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of OpenSSH's `should_drop_connection` for `10:30:100`.
    #[test]
    fn connections_are_dropped_as_openssh_drops_them() {
        for (held, percent) in [
            (0, 0),
            (9, 0),
            (10, 30),
            (11, 30),
            (19, 37),
            (50, 61),
            (55, 65),
            (99, 99),
            (100, 100),
            (usize::MAX, 100),
        ] {
            assert_eq!(drop_percent(held), percent, "{held}");
        }
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let startups = Arc::new(Semaphore::new(STARTUPS_FULL));
        let held: Vec<PreAuthConn> = (0..STARTUPS_BEGIN).filter_map(|_| admit(&startups)).collect();
        assert_eq!(held.len(), STARTUPS_BEGIN, "none is dropped below the first number");
        let all: Vec<PreAuthConn> = (0..100_000).filter_map(|_| admit(&startups)).collect();
        assert_eq!(all.len() + held.len(), STARTUPS_FULL, "and none is taken above the last one");
        drop((held, all));
        assert!(admit(&startups).is_some());
    }
}
