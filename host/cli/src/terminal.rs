//! Terminals in pods, over SSH.

use async_trait::async_trait;
use paygress_core::backend::terminal::{Input, Session, Shell, Size};
use paygress_core::model::login::Login;
use paygress_sshd::client::{Client, TerminalInput};
use tokio::sync::mpsc;

/// Pieces that may wait on either side; a full channel holds up who fills it.
const PIECES: usize = 32;

/// Logs in as a customer would.
pub(crate) struct SshShell;

#[async_trait]
impl Shell for SshShell {
    async fn open(
        &self,
        host: &str,
        port: u16,
        login: &Login,
        size: Size,
    ) -> Result<Session, String> {
        let client = Client::login((host, port), &login.username, login.password.expose())
            .await
            .map_err(|error| error.to_string())?;
        let (input, mut inputs) = mpsc::channel(PIECES);
        let (typed, keys) = mpsc::channel(1);
        let (shown, output) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            while let Some(input) = inputs.recv().await {
                let piece = match input {
                    Input::Keys(keys) => TerminalInput::Keys(keys),
                    Input::Resize(size) => TerminalInput::Resize(size.columns, size.rows),
                };
                if typed.send(piece).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            if let Err(error) = client.terminal((size.columns, size.rows), keys, shown).await {
                tracing::debug!(%error, "a terminal ended");
            }
        });
        Ok(Session { input, output })
    }
}
