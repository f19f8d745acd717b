//! The listener: limits on connections, and their shutdown.

use crate::account::Account;
use crate::connection::{self, Connection, Shared};
use crate::early_drop::{EarlyDrop, random};
use crate::forward::ACCEPT_PAUSE;
use crate::host_keys::HostKeys;
use crate::ignored_signals;
use crate::lease_file;
use crate::login_reader::LoginReader;
use crate::progress::Stage;
use crate::session::Peers;
use crate::startups::{Startup, Startups};
use crate::terminals::LAST_LINE_TIMEOUT;
use russh::keys::PrivateKey;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;

/// Connections at the same time; a session costs a few hundred kilobytes, a connection that has not
/// authenticated 40. Those leave room for more sessions than a person has.
const MAX_CONNECTIONS: usize = 228;
/// Connections that have not authenticated yet, as many as with OpenSSH's `MaxStartups 10:30:100`: from
/// the tenth on, and ever more, a new one costs one of these: see [`Startups`]. Addresses are not
/// counted: behind source NAT all clients have the same.
const STARTUPS: EarlyDrop = EarlyDrop::new([10, 30, 100]);
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

/// A `stop` flag for [`serve`] that SIGTERM sets.
///
/// # Errors
/// The signal cannot be handled.
pub fn stopped_by_sigterm() -> std::io::Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        stop.send_replace(true);
    });
    Ok(stopped)
}

/// Serves logins until `stop` is `true` or its sender is dropped; then shuts every connection down
/// and ends every process of the user.
pub async fn serve(
    listener: TcpListener,
    account: Account,
    host_keys: impl Into<HostKeys>,
    stop: watch::Receiver<bool>,
) {
    run(listener, Shared::new(account), host_keys.into(), stop).await;
}

/// [`serve`], and terminals show when the lease ends: the file [`END_FILE`](crate::END_FILE) of this
/// directory, which is read again when it changes. Without such a directory they show nothing.
pub async fn serve_lease(
    listener: TcpListener,
    account: Account,
    host_keys: impl Into<HostKeys>,
    lease: PathBuf,
    stop: watch::Receiver<bool>,
) {
    let shared = Shared::new(account);
    // It ends with this.
    let mut following = JoinSet::new();
    following.spawn(lease_file::follow(lease, Arc::clone(&shared.terminals)));
    run(listener, shared, host_keys.into(), stop).await;
}

async fn run(
    listener: TcpListener,
    mut shared: Shared,
    host_keys: HostKeys,
    stop: watch::Receiver<bool>,
) {
    shared.prover = host_keys.prover().map(Arc::new);
    if let Err(error) = ignored_signals::keep_from_sessions() {
        tracing::warn!(%error, "sessions ignore the signals that this process ignores");
    }
    // Connections are closed after the last line is shown, or when this is dropped.
    let (close, closed) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    accept(&listener, &shared, host_keys, &connections, stop, &closed).await;
    drop(listener);
    shared.terminals.show_last().await;
    close.send_replace(true);
    // None of them starts a program any more.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(STOP_GRACE, connections.acquire_many(all)).await;
    shared.groups.end().await;
}

/// Serves connections until `stop` is set.
async fn accept(
    listener: &TcpListener,
    shared: &Shared,
    host_keys: HostKeys,
    connections: &Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    closed: &watch::Receiver<bool>,
) {
    let HostKeys { mut keys, mut rsa, .. } = host_keys;
    let mut config = Arc::new(connection::config(keys.clone(), &shared.account));
    let mut startups = Startups::new(STARTUPS, random);
    loop {
        let (socket, _) = tokio::select! {
            () = is_set(&mut stop) => return,
            made = made(&mut rsa) => {
                keys.extend(made);
                config = Arc::new(connection::config(keys.clone(), &shared.account));
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
        let Ok(permit) = Arc::clone(connections).try_acquire_owned() else { continue };
        let startup = startups.admit();
        let (config, shared, closed) = (Arc::clone(&config), shared.clone(), closed.clone());
        tokio::spawn(async move {
            let served =
                serve_connection(socket, config, shared, startup, closed, LOGIN_GRACE).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection failed");
            }
            drop(permit);
        });
    }
}

/// Waits for the key that is still being made, if one is.
async fn made(rsa: &mut Option<JoinHandle<Option<PrivateKey>>>) -> Option<PrivateKey> {
    let Some(task) = rsa else { return std::future::pending().await };
    let key = task.await.ok().flatten();
    *rsa = None;
    key
}

/// Waits until the flag is `true` or its sender is dropped.
pub async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await.is_ok();
}

/// Waits for the end of the login grace time, or until another connection has the place; forever if
/// the client authenticates.
async fn login_failed(grace: Sleep, startup: Startup) {
    let progress = startup.progress.clone();
    tokio::select! {
        () = grace => {}
        () = progress.dropped() => {}
        () = progress.authenticated() => {
            drop(startup);
            std::future::pending().await
        }
    }
}

async fn serve_connection(
    socket: TcpStream,
    config: Arc<russh::server::Config>,
    shared: Shared,
    startup: Startup,
    mut close: watch::Receiver<bool>,
    login_grace: Duration,
) -> Result<(), russh::Error> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&socket, true).map_err(std::io::Error::from)?;
    let peers = Peers { client: socket.peer_addr()?, server: socket.local_addr()? };
    // A second handle on the socket: a client that has stopped reading can still be cut off.
    let socket = socket.into_std()?;
    let shutdown_handle = socket.try_clone()?;
    let (progress, terminals) = (startup.progress.clone(), Arc::clone(&shared.terminals));
    let handler = Connection::new(shared, peers, progress.clone());
    let channels = handler.channels();
    let mut login_failed = pin!(login_failed(tokio::time::sleep(login_grace), startup));
    let (reader, writer) = TcpStream::from_std(socket)?.into_split();
    let socket = tokio::io::join(LoginReader::new(reader, progress.clone()), writer);
    let mut session = tokio::select! {
        session = russh::server::run_stream(config, socket, handler) => session?,
        () = &mut login_failed => return Ok(()),
    };
    progress.reach(Stage::Greeted);
    tokio::select! {
        ended = &mut session => return ended,
        () = is_set(&mut close) => {
            // Its terminals are hung up: the client has shown their last line when it ends.
            if terminals.have_had_last()
                && channels.had_terminal()
                && let Ok(ended) = tokio::time::timeout(LAST_LINE_TIMEOUT, &mut session).await
            {
                return ended;
            }
        }
        () = &mut login_failed => {}
    }
    let _ = shutdown_handle.shutdown(Shutdown::Both);
    session.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Password, new_host_key, parse_keys};
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Serves one connection with these times; its address and end.
    async fn serve_one(
        keys: &str,
        home: &Path,
        keepalive: Duration,
        login_grace: Duration,
    ) -> (SocketAddr, JoinHandle<Result<(), russh::Error>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let account = Account {
            keys: parse_keys(keys).unwrap(),
            ..Account::new("alice", Password::none(), home)
        };
        let mut config = connection::config(vec![new_host_key().unwrap()], &account);
        config.keepalive_interval = Some(keepalive);
        let served = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let startup = Startups::new(STARTUPS, random).admit();
            let (config, shared) = (Arc::new(config), Shared::new(account));
            let (_close, closed) = watch::channel(false);
            serve_connection(socket, config, shared, startup, closed, login_grace).await
        });
        (address, served)
    }

    /// As OpenSSH's `LoginGraceTime`, whether the client has greeted or not.
    #[tokio::test]
    async fn a_client_that_does_not_log_in_is_disconnected_after_the_grace_time() {
        let (minute, grace) = (Duration::from_secs(60), Duration::from_secs(2));
        for greeting in ["", "SSH-2.0-test\r\n"] {
            let (address, served) = serve_one("", Path::new("/"), minute, grace).await;
            let started = Instant::now();
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(greeting.as_bytes()).await.unwrap();
            let mut received = Vec::new();
            let end = client.read_to_end(&mut received);
            let _ = tokio::time::timeout(minute, end).await.expect("disconnected");
            let took = started.elapsed();
            println!("{greeting:?}: disconnected after {took:?}");
            assert!(took >= grace && received.starts_with(b"SSH-2.0-"), "{greeting:?}: {took:?}");
            let _ = served.await.unwrap();
        }
    }

    /// sshd's `ClientAliveInterval` is 0: what a suspended client has open is there when it goes on.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_suspended_client_gets_keep_alives_and_keeps_its_connection() {
        let home = tempfile::tempdir().unwrap();
        let key = home.path().join("key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-N", "", "-t", "ed25519", "-f"]).arg(&key);
        assert!(keygen.status().unwrap().success());
        let keys = std::fs::read_to_string(home.path().join("key.pub")).unwrap();
        let (interval, grace) = (Duration::from_millis(20), LOGIN_GRACE);
        let (address, served) = serve_one(&keys, home.path(), interval, grace).await;
        let mut ssh = Command::new("ssh");
        ssh.args(["-v", "-F", "none", "-p", &address.port().to_string(), "-i"]).arg(&key);
        for option in [
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["alice@127.0.0.1", "touch in; until [ -e go ]; do sleep 0.05; done; exit 3"]);
        let child = ssh.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (pid, started) = (child.id().to_string(), Instant::now());
        let signal = |name: &str| {
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        };
        while !home.path().join("in").exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "the command does not run");
            tokio::time::sleep(interval).await;
        }
        signal("-STOP");
        // The subject of the test is time: some 150 keep-alives without an answer, fewer where the
        // server does not run in time.
        tokio::time::sleep(interval.saturating_mul(150)).await;
        signal("-CONT");
        std::fs::write(home.path().join("go"), "").unwrap();
        let done =
            tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let log = String::from_utf8_lossy(&done.stderr);
        let received = log.matches("rtype keepalive@openssh.com").count();
        println!("{received} keep-alives, and the session goes on");
        assert_eq!(done.status.code(), Some(3), "{log}");
        assert!(received >= 10, "{log}");
        let _ = served.await.unwrap();
    }
}
