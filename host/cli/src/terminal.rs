//! Terminals in pods, over SSH.

use async_trait::async_trait;
use futures::stream::{StreamExt, poll_fn};
use paygress_core::backend::terminal::{Input, Session, Shell, ShellError, Size};
use paygress_core::model::login::Login;
use paygress_sshd::client::{Client, TerminalInput, WindowSize};
use tokio::sync::mpsc;

/// Messages that may wait in either direction; a full channel slows its sender down.
const BUFFERED_MESSAGES: usize = 32;

/// Logs in with the customer's user name and password.
pub(crate) struct SshShell;

#[async_trait]
impl Shell for SshShell {
    async fn open(
        &self,
        host: &str,
        port: u16,
        login: &Login,
        size: Size,
    ) -> Result<Session, ShellError> {
        let client = Client::login((host, port), &login.username, login.password.expose())
            .await
            .map_err(ShellError::new)?;
        let (input, mut inputs) = mpsc::channel(BUFFERED_MESSAGES);
        let (shown, output) = mpsc::channel(BUFFERED_MESSAGES);
        tokio::spawn(async move {
            let inputs = poll_fn(|context| inputs.poll_recv(context)).map(terminal_input);
            if let Err(error) = client.terminal(window_size(size), inputs, shown).await {
                tracing::debug!(%error, "a terminal failed");
            }
        });
        Ok(Session { input, output })
    }
}

fn terminal_input(input: Input) -> TerminalInput {
    match input {
        Input::Keys(keys) => TerminalInput::Keys(keys),
        Input::Resize(size) => TerminalInput::Resize(window_size(size)),
    }
}

fn window_size(Size { columns, rows }: Size) -> WindowSize {
    WindowSize { columns, rows }
}
