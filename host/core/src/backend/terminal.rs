//! A terminal in a pod, for transports that bring one to a browser.

use crate::model::host_key::HostKey;
use crate::model::ids::Username;
use crate::model::secret::Secret;
use async_trait::async_trait;
use std::error::Error;
use tokio::sync::mpsc;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// What the customer's terminal sends.
#[derive(Clone, PartialEq, Eq)]
pub enum Input {
    Keys(Vec<u8>),
    /// The window has another size.
    Resize(Size),
}

/// A shell that is open; it ends when either end is dropped.
pub struct Session {
    /// A full channel slows the sender down.
    pub input: mpsc::Sender<Input>,
    /// Closed when the shell has ended.
    pub output: mpsc::Receiver<Vec<u8>>,
}

/// Where a shell is opened, and how to log in there.
#[derive(Clone, Copy, Debug)]
pub struct ShellLogin<'a> {
    pub host: &'a str,
    pub port: u16,
    pub username: &'a Username,
    pub password: &'a Secret,
    /// The server has one of these; none: they are not known.
    pub host_keys: &'a [HostKey],
}

/// Why no shell was opened.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// Nothing was sent to it, the password neither.
    #[error("the server has another host key than the pod")]
    WrongHostKey(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing was sent to it either.
    #[error("the pod's host keys are not known")]
    UnknownHostKeys,
    #[error("the login at the pod failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl ShellError {
    pub fn wrong_host_key(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::WrongHostKey(source.into())
    }

    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(source.into())
    }
}

/// Opens shells.
#[async_trait]
pub trait Shell: Send + Sync {
    /// Logs in.
    ///
    /// # Errors
    /// [`ShellError`]: the pod cannot be reached, refuses the login, is another server, or could be.
    async fn open(&self, login: ShellLogin<'_>, size: Size) -> Result<Session, ShellError>;
}
