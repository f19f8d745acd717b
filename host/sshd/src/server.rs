//! The listener: limits on connections, and their shutdown.

use crate::account::Account;
use crate::connection::{self, Connection};
use russh::keys::PrivateKey;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at the same time; each costs a few hundred kilobytes.
const MAX_CONNECTIONS: usize = 128;
/// Connections of one address that have not authenticated yet, as OpenSSH's `MaxStartups`: one
/// address cannot lock the others out.
const MAX_STARTUPS: usize = 8;
/// A client that has not authenticated by then is disconnected, as OpenSSH's `LoginGraceTime`.
const LOGIN_GRACE: Duration = Duration::from_secs(30);
/// After a failed `accept`, most likely because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves logins until `stop` is `true` or its sender is dropped; then shuts every connection down
/// and ends every process of the user.
pub async fn serve(
    listener: TcpListener,
    account: Account,
    host_key: PrivateKey,
    mut stop: watch::Receiver<bool>,
) {
    let account = Arc::new(account);
    let config = Arc::new(connection::config(host_key));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let startups = Arc::<Startups>::default();
    loop {
        let (socket, peer) = tokio::select! {
            () = is_set(&mut stop) => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(pre_auth) = PreAuthConn::admit(&startups, peer.ip()) else { continue };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let (config, account, stop) = (Arc::clone(&config), Arc::clone(&account), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_connection(socket, config, account, pre_auth, stop).await {
                tracing::debug!(%error, "a connection failed");
            }
            drop(permit);
        });
    }
}

/// How many connections of each address have not authenticated yet.
type Startups = Mutex<HashMap<IpAddr, usize>>;

/// A connection that has not authenticated yet; it counts until it is dropped.
struct PreAuthConn {
    startups: Arc<Startups>,
    address: IpAddr,
}

impl PreAuthConn {
    fn admit(startups: &Arc<Startups>, address: IpAddr) -> Option<Self> {
        let mut counts = startups.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_STARTUPS {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Self { startups: Arc::clone(startups), address })
    }
}

impl Drop for PreAuthConn {
    fn drop(&mut self) {
        let mut counts = self.startups.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(counts.remove(&self.address)),
        }
    }
}

/// Waits until the flag is `true` or its sender is dropped.
async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await.is_ok();
}

async fn serve_connection(
    socket: TcpStream,
    config: Arc<russh::server::Config>,
    account: Arc<Account>,
    pre_auth: PreAuthConn,
    mut stop: watch::Receiver<bool>,
) -> Result<(), russh::Error> {
    socket.set_nodelay(true)?;
    // A second handle on the socket: a client that has stopped reading can still be cut off.
    let socket = socket.into_std()?;
    let shutdown_handle = socket.try_clone()?;
    let (authenticated, mut is_authenticated) = watch::channel(false);
    let handler = Connection::new(account, authenticated);
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
