//! `paygress-sshd`: a small SSH server for one user, with password or key, shell, exec and PTY.
//!
//! It is what a pod runs (`main.rs`, packed by `k8s/ssh-image`) and what the local runtime runs
//! instead of a pod. It needs no root, no capabilities, no `/etc/shadow` and no configuration: the
//! login comes as files, read once. Forwarding and agents are refused. Nothing the customer chose
//! as a login ever reaches a shell; what a logged-in user executes does, and it is their pod.

pub mod client;
mod process;
mod session;

pub use russh::keys::PrivateKey;
use russh::keys::{Algorithm, PublicKey, key::safe_rng};
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at the same time; each costs a few hundred kilobytes.
const CONNECTIONS: usize = 128;
/// Of these, such as are not logged in, from one address: nobody locks the others out by knocking.
const MAX_STARTUPS: usize = 8;
/// A client that has not logged in by then is cut off.
const LOGIN_GRACE: Duration = Duration::from_secs(30);
/// Wrong passwords in one connection, each answered after a second.
const AUTH_ATTEMPTS: usize = 6;
/// A dead peer is noticed after three of these.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Who may log in, and to what.
#[derive(Clone, Debug)]
pub struct Account {
    /// The only user.
    pub username: String,
    /// The password, compared in constant time.
    pub password: Password,
    /// One public key that may be used instead.
    pub key: Option<PublicKey>,
    /// The shell that sessions run.
    pub shell: PathBuf,
    /// Where they start.
    pub home: PathBuf,
}

/// A password that does not print.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Takes the password into custody.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn matches(&self, attempt: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(attempt.as_bytes()).into()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Why there is no account or no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A login file cannot be read.
    #[error("the login file {path} cannot be read: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key is malformed, or none could be made.
    #[error("a key is not usable: {0}")]
    Key(#[from] russh::keys::ssh_key::Error),
}

impl Account {
    /// The login in this directory: `username`, `password`, and `authorized_key` if there is one,
    /// each the whole file.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Key`].
    pub fn read(directory: &Path, shell: PathBuf, home: PathBuf) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })
        };
        let key = match read("authorized_key") {
            Ok(line) => Some(parse_key(&line)?),
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            username: read("username")?,
            password: Password::new(read("password")?),
            key,
            shell,
            home,
        })
    }
}

/// A public key as in an OpenSSH `.pub` file.
///
/// # Errors
/// [`Error::Key`] when it is malformed.
pub fn parse_key(line: &str) -> Result<PublicKey, Error> {
    Ok(PublicKey::from_openssh(line.trim())?)
}

/// A new host key.
///
/// # Errors
/// [`Error::Key`] when the system has no randomness.
pub fn new_host_key() -> Result<PrivateKey, Error> {
    Ok(PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)?)
}

/// Takes logins until `stop` says `true` or its sender is gone; then cuts every connection and ends
/// every process.
pub async fn serve(
    listener: TcpListener,
    account: Account,
    host_key: PrivateKey,
    mut stop: watch::Receiver<bool>,
) {
    let account = Arc::new(account);
    let config = Arc::new(session::config(host_key, AUTH_ATTEMPTS, KEEPALIVE));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let knocking = Arc::<Knocking>::default();
    loop {
        let (socket, from) = tokio::select! {
            () = set(&mut stop) => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: the listener itself is fine.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Some(knock) = PreAuthConn::at(&knocking, from.ip()) else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (config, account, stop) = (Arc::clone(&config), Arc::clone(&account), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(socket, config, account, knock, stop).await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
}

/// Connections that are not logged in, by their address.
type Knocking = Mutex<HashMap<IpAddr, usize>>;

/// One of them; it counts until it is dropped.
struct PreAuthConn {
    all: Arc<Knocking>,
    from: IpAddr,
}

impl PreAuthConn {
    fn at(all: &Arc<Knocking>, from: IpAddr) -> Option<Self> {
        let mut counts = all.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        if *count >= MAX_STARTUPS {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Self { all: Arc::clone(all), from })
    }
}

impl Drop for PreAuthConn {
    fn drop(&mut self) {
        let mut counts = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.from) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(counts.remove(&self.from)),
        }
    }
}

/// Waits until the flag is set, or nobody is left to set it.
async fn set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await.is_ok();
}

async fn connection(
    socket: TcpStream,
    config: Arc<russh::server::Config>,
    account: Arc<Account>,
    knock: PreAuthConn,
    mut stop: watch::Receiver<bool>,
) -> Result<(), russh::Error> {
    socket.set_nodelay(true)?;
    // A second handle, to cut a client off that no longer reads.
    let socket = socket.into_std()?;
    let cutter = socket.try_clone()?;
    let (logged_in, mut login) = watch::channel(false);
    let handler = session::Session::new(account, logged_in);
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
    let too_late = async {
        tokio::select! {
            () = grace => {}
            // Logged in, or gone: the grace no longer matters.
            () = set(&mut login) => {
                drop(knock);
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        ended = &mut session => return ended,
        () = set(&mut stop) => {}
        () = too_late => {}
    }
    let _ = cutter.shutdown(Shutdown::Both);
    session.await
}
