//! A client that trusts any host key: for the demo and for tests, which talk to 127.0.0.1.

use russh::client::{Handle, Handler};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelMsg, Disconnect};
use std::net::SocketAddr;
use std::sync::Arc;

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

/// A session that is logged in.
pub struct Client {
    handle: Handle<AnyHost>,
}

impl Client {
    /// Logs in with a password.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn login(address: SocketAddr, username: &str, password: &str) -> Result<Self, LoginError> {
        let mut handle = russh::client::connect(Arc::default(), address, AnyHost).await?;
        match handle.authenticate_password(username, password).await?.success() {
            true => Ok(Self { handle }),
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

    /// Waits until the server ends the session.
    pub async fn ended(self) {
        let _ = self.handle.await;
    }

    /// Says goodbye.
    pub async fn close(self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "en").await;
    }
}
