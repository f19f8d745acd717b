//! A terminal in a pod, for doors that bring one to a browser.

use crate::model::login::Login;
use async_trait::async_trait;
use tokio::sync::mpsc;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// What is typed.
#[derive(Clone, PartialEq, Eq)]
pub enum Input {
    /// Keys.
    Keys(Vec<u8>),
    /// The window has another size.
    Resize(Size),
}

/// A shell that is open; it ends when either end is dropped.
pub struct Session {
    /// What is typed; a full channel keeps the typist waiting.
    pub input: mpsc::Sender<Input>,
    /// What is shown; closed when the shell has ended.
    pub output: mpsc::Receiver<Vec<u8>>,
}

/// Opens shells.
#[async_trait]
pub trait Shell: Send + Sync {
    /// Logs in at this host and port.
    ///
    /// # Errors
    /// In words, for the log.
    async fn open(
        &self,
        host: &str,
        port: u16,
        login: &Login,
        size: Size,
    ) -> Result<Session, String>;
}
