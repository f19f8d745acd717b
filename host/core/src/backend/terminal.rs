//! A terminal in a pod, for transports that bring one to a browser.

use crate::model::login::Login;
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

/// Why no shell was opened.
#[derive(Debug, thiserror::Error)]
#[error("the login at the pod failed")]
pub struct ShellError(#[source] Box<dyn Error + Send + Sync>);

impl ShellError {
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Opens shells.
#[async_trait]
pub trait Shell: Send + Sync {
    /// Logs in at this host and port.
    ///
    /// # Errors
    /// [`ShellError`]: the pod cannot be reached, or refuses the login.
    async fn open(
        &self,
        host: &str,
        port: u16,
        login: &Login,
        size: Size,
    ) -> Result<Session, ShellError>;
}
