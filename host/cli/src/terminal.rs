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
pub(crate) struct SshShell {
    /// Whether the host puts the SSH server into pods, so that their host keys are known. Where it does
    /// not, a server is its image's own, and nobody knows its keys.
    pub(crate) needs_host_keys: bool,
}

#[async_trait]
impl Shell for SshShell {
    async fn open(&self, login: ShellLogin<'_>, size: Size) -> Result<Session, ShellError> {
        let ShellLogin { host, port, username, password, host_keys } = login;
        let check = self.host_key_check(host_keys)?;
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

impl SshShell {
    fn host_key_check(&self, keys: &[HostKey]) -> Result<HostKeyCheck, ShellError> {
        match keys {
            [] if self.needs_host_keys => Err(ShellError::UnknownHostKeys),
            [] => Ok(HostKeyCheck::AcceptAny),
            keys => {
                HostKeyCheck::one_of(keys.iter().map(HostKey::as_str)).map_err(ShellError::failed)
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_key_is_accepted_only_of_servers_that_are_their_images_own() {
        let keys = [HostKey::parse(paygress_core::testing::HOST_KEY).unwrap()];
        for needs_host_keys in [false, true] {
            let check = |keys: &[HostKey]| SshShell { needs_host_keys }.host_key_check(keys);
            assert!(matches!(check(&keys), Ok(known) if !matches!(known, HostKeyCheck::AcceptAny)));
            match check(&[]) {
                Ok(HostKeyCheck::AcceptAny) => assert!(!needs_host_keys),
                Err(ShellError::UnknownHostKeys) => assert!(needs_host_keys),
                _ => panic!("{needs_host_keys}"),
            }
        }
    }
}
