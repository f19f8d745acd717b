//! A client that trusts any host key: a pod makes a new one when it starts, and its address is the
//! ledger's, no stranger's.

use russh::client::{Config, Handle, Handler};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelMsg, Disconnect};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::mpsc;

/// A dead server is noticed after three of these.
const KEEPALIVE: Duration = Duration::from_secs(30);

struct AnyHost;

impl Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server does not answer, or stopped in between.
    #[error("the SSH server is not there: {0}")]
    Unreachable(#[from] russh::Error),
    /// Wrong user or password.
    #[error("the SSH server refused the login")]
    Refused,
}

/// What is typed into a terminal.
pub enum TerminalInput {
    /// Keys.
    Keys(Vec<u8>),
    /// The window has this many columns and rows now.
    Resize(u16, u16),
}

/// A session that is logged in.
pub struct Client {
    handle: Handle<AnyHost>,
    _cutter: ShutdownOnDrop,
}

/// Cuts the connection when it is dropped: russh's own task lives as long as its socket does,
/// whatever the server does.
struct ShutdownOnDrop(std::net::TcpStream);

impl ShutdownOnDrop {
    async fn connect(address: impl ToSocketAddrs) -> std::io::Result<(TcpStream, Self)> {
        let stream = TcpStream::connect(address).await?.into_std()?;
        let cutter = Self(stream.try_clone()?);
        Ok((TcpStream::from_std(stream)?, cutter))
    }
}

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Client {
    /// Logs in with a password.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn login(
        address: impl ToSocketAddrs,
        username: &str,
        password: &str,
    ) -> Result<Self, LoginError> {
        let (stream, cutter) =
            ShutdownOnDrop::connect(address).await.map_err(russh::Error::from)?;
        // A server that is gone is noticed.
        let config = Config { keepalive_interval: Some(KEEPALIVE), ..Config::default() };
        let mut handle = russh::client::connect_stream(Arc::new(config), stream, AnyHost).await?;
        match handle.authenticate_password(username, password).await?.success() {
            true => Ok(Self { handle, _cutter: cutter }),
            false => Err(LoginError::Refused),
        }
    }

    /// Runs a command; gives its output and exit status.
    ///
    /// # Errors
    /// [`LoginError::Unreachable`] when the session ends in between.
    pub async fn run(&self, command: &str) -> Result<(String, u32), LoginError> {
        let mut channel = self.handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let (mut output, mut status) = (Vec::new(), None);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => output.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
        match status {
            Some(status) => Ok((String::from_utf8_lossy(&output).into_owned(), status)),
            None => Err(LoginError::Unreachable(russh::Error::Disconnect)),
        }
    }

    /// A shell in a terminal of this size: what comes from `input` is typed, what is shown goes to
    /// `output`. Returns when the shell ends or either side is dropped, whatever the server does.
    ///
    /// # Errors
    /// [`LoginError::Unreachable`] when there is no terminal.
    pub async fn terminal(
        self,
        size: (u16, u16),
        input: mpsc::Receiver<TerminalInput>,
        output: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), LoginError> {
        let shown = output.clone();
        let carried = tokio::select! {
            carried = self.carry(size, input, output) => carried,
            // Who looks has gone: a server that answers nothing does not keep us.
            () = shown.closed() => Ok(()),
        };
        let _ = tokio::time::timeout(KEEPALIVE, self.close()).await;
        carried
    }

    async fn carry(
        &self,
        (columns, rows): (u16, u16),
        mut input: mpsc::Receiver<TerminalInput>,
        output: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), LoginError> {
        let mut channel = self.handle.channel_open_session().await?;
        channel.request_pty(true, "xterm-256color", columns.into(), rows.into(), 0, 0, &[]).await?;
        channel.request_shell(true).await?;
        loop {
            tokio::select! {
                typed = input.recv() => match typed {
                    Some(TerminalInput::Keys(keys)) => channel.data_bytes(keys).await?,
                    Some(TerminalInput::Resize(columns, rows)) => channel.window_change(columns.into(), rows.into(), 0, 0).await?,
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

    /// Waits until the server ends the session.
    pub async fn ended(self) {
        let Self { handle, _cutter } = self;
        let _ = handle.await;
    }

    /// Says goodbye.
    pub async fn close(self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "en").await;
    }
}
