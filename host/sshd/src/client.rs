//! An SSH client for pods: a login with a password, one command or one terminal.

use crate::client_handler::{ClientHandler, ServerCheck};
use crate::exchanges::KEY_EXCHANGES;
use crate::host_key_proof::{HostKeySecret, Nonce};
use crate::keys::{Error, SIGNATURE_KINDS};
use crate::socket::ShutdownOnDrop;
use futures::{Stream, StreamExt};
use russh::client::{AuthResult, Config, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{Algorithm, PublicKey};
use russh::{AlgorithmKind, ChannelMsg, Disconnect, MethodKind, Preferred};
use std::borrow::Cow;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional, duplex};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::mpsc;

/// A dead server is noticed after three of these.
const KEEPALIVE: Duration = Duration::from_secs(30);
const TERM: &str = "xterm-256color";
/// What is under way of a login in each direction.
const LOGIN_BYTES: usize = 16 << 10;
/// How often a server may ask by `keyboard-interactive` in one login.
const QUESTIONS: usize = 4;

/// Which servers a client sends its password to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKeyCheck {
    /// Any: nothing is known of their keys.
    AcceptAny,
    /// Those that have one of these keys.
    OneOf(Vec<PublicKey>),
}

impl HostKeyCheck {
    /// Those that have one of these keys, each as in an OpenSSH `.pub` file.
    ///
    /// # Errors
    /// [`Error::Key`] when a line is none.
    pub fn one_of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let keys: Result<Vec<PublicKey>, _> =
            lines.into_iter().map(PublicKey::from_openssh).collect();
        Ok(Self::OneOf(keys?))
    }

    /// The kinds of keys that the server is to prove itself with: of several it may choose one that
    /// is not known here.
    fn kinds(&self) -> Cow<'static, [Algorithm]> {
        let Self::OneOf(keys) = self else { return Preferred::default().key };
        let is_known = |kind: &&Algorithm| {
            keys.iter().any(|key| match (key.algorithm(), kind) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (own, kind) => own == **kind,
            })
        };
        Cow::Owned(SIGNATURE_KINDS.iter().filter(is_known).cloned().collect())
    }
}

impl ServerCheck for HostKeyCheck {
    fn accepts(&mut self, server: &PublicKey) -> bool {
        match self {
            Self::AcceptAny => true,
            Self::OneOf(keys) => keys.iter().any(|key| key.key_data() == server.key_data()),
        }
    }
}

/// Accepts any server, and remembers the key that it has proved.
#[derive(Clone, Default)]
struct ExchangedKey(Arc<OnceLock<PublicKey>>);

impl ServerCheck for ExchangedKey {
    fn accepts(&mut self, server: &PublicKey) -> bool {
        // There is one exchange in the time of a proof.
        self.0.set(server.clone()).is_ok()
    }
}

/// Why the host keys of a server are not known.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("cannot reach the SSH server: {0}")]
    Unreachable(#[from] russh::Error),
    #[error("another server answers at this address: it does not prove its host keys")]
    NotProved,
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server does not answer, or the connection broke.
    #[error("cannot reach the SSH server: {0}")]
    Unreachable(#[source] russh::Error),
    /// The password was not sent.
    #[error("another server answers at this address: its host key is not the one that is known")]
    WrongHostKey,
    #[error("the SSH server rejected the user name or the password")]
    Refused,
}

impl From<russh::Error> for LoginError {
    fn from(error: russh::Error) -> Self {
        match error {
            // It has none of the kinds that are known, or another one.
            russh::Error::UnknownKey
            | russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. } => Self::WrongHostKey,
            error => Self::Unreachable(error),
        }
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    pub columns: u16,
    pub rows: u16,
}

/// What the user of a terminal does.
pub enum TerminalInput {
    Keys(Vec<u8>),
    Resize(WindowSize),
}

/// What a command has printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutput {
    pub stdout: String,
    pub exit_status: u32,
}

/// An authenticated connection.
pub struct Client {
    handle: Handle<ClientHandler<HostKeyCheck>>,
    _shutdown: ShutdownOnDrop,
}

/// A connection to a server that has proved a key of these kinds which passes the check; nobody is
/// logged in.
async fn connect<C: ServerCheck>(
    address: impl ToSocketAddrs,
    check: C,
    kinds: Cow<'static, [Algorithm]>,
) -> Result<(Handle<ClientHandler<C>>, ShutdownOnDrop), russh::Error> {
    let stream = TcpStream::connect(address).await?;
    let (stream, shutdown) = ShutdownOnDrop::split(stream)?;
    let handle = exchange_keys(stream, check, kinds).await?;
    Ok((handle, shutdown))
}

/// As [`connect`], on this connection.
async fn exchange_keys<C: ServerCheck>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    check: C,
    kinds: Cow<'static, [Algorithm]>,
) -> Result<Handle<ClientHandler<C>>, russh::Error> {
    let config = Config {
        keepalive_interval: Some(KEEPALIVE),
        preferred: Preferred {
            kex: Cow::Borrowed(&KEY_EXCHANGES),
            key: kinds,
            ..Preferred::default()
        },
        ..Config::default()
    };
    russh::client::connect_stream(Arc::new(config), stream, ClientHandler(check)).await
}

/// Logs in on this connection as OpenSSH's client does with a password, at a server that passes the
/// check, and runs nothing. The connection is closed in any case, also when this is dropped.
///
/// # Errors
/// [`LoginError`].
pub async fn try_login(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    username: &str,
    password: &str,
    check: HostKeyCheck,
) -> Result<(), LoginError> {
    // russh's own task lives as long as its socket, which is the end of a pipe here.
    let (socket, piped) = duplex(LOGIN_BYTES);
    let pipe = async move {
        let (mut stream, mut piped) = (stream, piped);
        let _ = copy_bidirectional(&mut stream, &mut piped).await;
    };
    let login = async move {
        let kinds = check.kinds();
        let mut handle = exchange_keys(socket, check, kinds).await?;
        match authenticate(&mut handle, username, password).await? {
            true => Ok(()),
            false => Err(LoginError::Refused),
        }
    };
    let mut login = pin!(login);
    tokio::select! {
        biased;
        result = &mut login => result,
        // The server has closed the connection; it may have answered before.
        () = pipe => login.await,
    }
}

/// Whether the server accepts the password, by itself or as the answer to each question of
/// `keyboard-interactive`, by which servers with PAM may ask for it.
async fn authenticate(
    handle: &mut Handle<ClientHandler<HostKeyCheck>>,
    username: &str,
    password: &str,
) -> Result<bool, russh::Error> {
    let answer = handle.authenticate_password(username, password).await?;
    let AuthResult::Failure { remaining_methods, .. } = answer else { return Ok(true) };
    if !remaining_methods.contains(&MethodKind::KeyboardInteractive) {
        return Ok(false);
    }
    let mut answer =
        handle.authenticate_keyboard_interactive_start(username, None::<String>).await?;
    for _ in 0..QUESTIONS {
        let count = match &answer {
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts.len(),
            _ => break,
        };
        let responses = vec![password.to_owned(); count];
        answer = handle.authenticate_keyboard_interactive_respond(responses).await?;
    }
    Ok(matches!(answer, KeyboardInteractiveAuthResponse::Success))
}

/// Verifies that a server listens at this address that passes the check, without a login.
///
/// # Errors
/// [`LoginError::WrongHostKey`] if another one does, [`LoginError::Unreachable`] if none does.
pub async fn verify_host_key(
    address: impl ToSocketAddrs,
    check: HostKeyCheck,
) -> Result<(), LoginError> {
    let kinds = check.kinds();
    connect(address, check, kinds).await?;
    Ok(())
}

/// The public host keys of the server at this address, `kind base64` each, which it proves by this
/// secret. There is no login.
///
/// # Errors
/// [`ProofError::NotProved`] if another server answers, [`ProofError::Unreachable`] if none does.
pub async fn proved_host_keys(
    address: impl ToSocketAddrs,
    secret: &HostKeySecret,
) -> Result<Vec<String>, ProofError> {
    let nonce = Nonce::random().map_err(russh::Error::from)?;
    let exchanged = ExchangedKey::default();
    let kinds = Cow::Borrowed(SIGNATURE_KINDS.as_slice());
    let (mut handle, _shutdown) = connect(address, exchanged.clone(), kinds).await?;
    let answer = handle.authenticate_keyboard_interactive_start(nonce.user(), None::<String>);
    let KeyboardInteractiveAuthResponse::InfoRequest { instructions, .. } = answer.await? else {
        return Err(ProofError::NotProved);
    };
    let key = exchanged.0.get().ok_or(ProofError::NotProved)?;
    secret.verify(&nonce, &instructions, key).ok_or(ProofError::NotProved)
}

impl Client {
    /// Logs in with a password, at a server that passes the check.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn login(
        address: impl ToSocketAddrs,
        username: &str,
        password: &str,
        check: HostKeyCheck,
    ) -> Result<Self, LoginError> {
        let kinds = check.kinds();
        let (mut handle, shutdown) = connect(address, check, kinds).await?;
        match handle.authenticate_password(username, password).await?.success() {
            true => Ok(Self { handle, _shutdown: shutdown }),
            false => Err(LoginError::Refused),
        }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`LoginError::Unreachable`] when the connection breaks before the command has ended.
    pub async fn run(&self, command: &str) -> Result<CommandOutput, LoginError> {
        let mut channel = self.handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let (mut stdout, mut status) = (Vec::new(), None);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                // As OpenSSH's client reports it.
                ChannelMsg::ExitSignal { .. } => status = Some(255),
                _ => {}
            }
        }
        let exit_status = status.ok_or(LoginError::Unreachable(russh::Error::Disconnect))?;
        Ok(CommandOutput { stdout: String::from_utf8_lossy(&stdout).into_owned(), exit_status })
    }

    /// Opens a shell in a terminal and connects it with `input` and `output`. Returns when the
    /// shell ends, `input` ends or the receiver of `output` is dropped, whatever the server does.
    ///
    /// # Errors
    /// [`LoginError::Unreachable`] when no terminal can be opened or the connection breaks.
    pub async fn terminal(
        self,
        size: WindowSize,
        input: impl Stream<Item = TerminalInput>,
        output: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), LoginError> {
        let result = tokio::select! {
            result = self.forward(size, input, &output) => result,
            // A server that answers nothing must not keep a terminal open that nobody sees.
            () = output.closed() => Ok(()),
        };
        let _ = tokio::time::timeout(KEEPALIVE, self.close()).await;
        result
    }

    async fn forward(
        &self,
        WindowSize { columns, rows }: WindowSize,
        input: impl Stream<Item = TerminalInput>,
        output: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), LoginError> {
        let mut input = pin!(input);
        let mut channel = self.handle.channel_open_session().await?;
        channel.request_pty(true, TERM, columns.into(), rows.into(), 0, 0, &[]).await?;
        channel.request_shell(true).await?;
        loop {
            tokio::select! {
                next = input.next() => match next {
                    Some(TerminalInput::Keys(keys)) => channel.data_bytes(keys).await?,
                    Some(TerminalInput::Resize(WindowSize { columns, rows })) => {
                        channel.window_change(columns.into(), rows.into(), 0, 0).await?;
                    }
                    None => return Ok(()),
                },
                message = channel.wait() => match message {
                    Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                        if output.send(data.to_vec()).await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(ChannelMsg::Close | ChannelMsg::Eof) | None => return Ok(()),
                    Some(_) => {}
                },
            }
        }
    }

    /// Waits until the server closes the connection.
    pub async fn closed(self) {
        let Self { handle, _shutdown } = self;
        let _ = handle.await;
    }

    /// Sends SSH_MSG_DISCONNECT.
    pub async fn close(self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "en").await;
    }
}
