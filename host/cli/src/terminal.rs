//! Terminals in pods, over SSH.

use async_trait::async_trait;
use futures::stream::{StreamExt, poll_fn};
use paygress_core::backend::terminal::{Input, Session, Shell, ShellError, ShellLogin, Size};
use paygress_core::model::host_key::HostKey;
use paygress_sshd::client::{Client, HostKeyCheck, LoginError, TerminalInput, WindowSize};
use tokio::sync::mpsc;

/// Messages that may wait in either direction; a full channel slows its sender down.
const BUFFERED_MESSAGES: usize = 32;

/// Logs in with the customer's user name and password.
pub(crate) struct SshShell;

#[async_trait]
impl Shell for SshShell {
    async fn open(&self, login: ShellLogin<'_>, size: Size) -> Result<Session, ShellError> {
        let ShellLogin { host, port, username, password, host_keys } = login;
        let check = host_key_check(host_keys)?;
        let client = Client::login((host, port), username.as_str(), password.expose(), check)
            .await
            .map_err(shell_error)?;
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

/// Where no key is known any is accepted: a pod of an earlier version has not reported it.
fn host_key_check(keys: &[HostKey]) -> Result<HostKeyCheck, ShellError> {
    match keys {
        [] => Ok(HostKeyCheck::AcceptAny),
        keys => HostKeyCheck::one_of(keys.iter().map(HostKey::as_str)).map_err(ShellError::failed),
    }
}

fn shell_error(error: LoginError) -> ShellError {
    match error {
        LoginError::WrongHostKey => ShellError::wrong_host_key(error),
        error => ShellError::failed(error),
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
