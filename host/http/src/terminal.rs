//! A shell in the browser: a WebSocket on one side, the pod's SSH server on the other.
//!
//! The first message says whose it is (`{"bearer_token": …, "columns": 80, "rows": 24}`): a browser cannot send headers with a
//! WebSocket, and what stands in a URL is kept in logs. Then binary messages are keys, and text messages new sizes.

use crate::App;
use crate::asked::{Named, bearer};
use crate::identity::customer_of;
use crate::limits;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use paygress_core::shell::{Input, Session, Size};
use paygress_core::units::PodName;
use serde::Deserialize;
use std::sync::Arc;

/// The first message.
#[derive(Deserialize)]
struct Hello {
    bearer_token: String,
    #[serde(flatten)]
    size: Dimensions,
}

#[derive(Deserialize)]
struct Dimensions {
    columns: u16,
    rows: u16,
}

impl Dimensions {
    /// A terminal of no size is none.
    fn size(&self) -> Size {
        Size { columns: self.columns.clamp(1, 1_000), rows: self.rows.clamp(1, 1_000) }
    }
}

/// Codes for closing: ours begin at 4000.
const REFUSED: u16 = 4_403;
const FAILED: u16 = 4_502;
const DONE: u16 = 1_000;

/// Opens a terminal in a pod.
pub(crate) async fn terminal(State(app): State<Arc<App>>, Named(name): Named, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.max_message_size(limits::TERMINAL_BYTES).max_frame_size(limits::TERMINAL_BYTES);
    upgrade.on_upgrade(move |mut socket| async move {
        let (code, reason) = match serve(&app, PodName(name), &mut socket).await {
            Ok(()) => (DONE, "the shell has ended".to_owned()),
            Err(told) => told,
        };
        let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
    })
}

/// One terminal, in a place of its own.
async fn serve(app: &App, pod: PodName, socket: &mut WebSocket) -> Result<(), (u16, String)> {
    let _place = app.terminals.try_acquire().map_err(|_| (FAILED, "too many terminals are open; use ssh".to_owned()))?;
    let session = open(app, pod, socket).await?;
    carry(socket, session).await;
    Ok(())
}

/// Finds out whose it is, and logs in.
async fn open(app: &App, pod: PodName, socket: &mut WebSocket) -> Result<Session, (u16, String)> {
    let refused = |why: &str| (REFUSED, why.to_owned());
    let hello = tokio::time::timeout(limits::TERMINAL_HELLO, socket.recv()).await;
    let Ok(Some(Ok(Message::Text(text)))) = hello else { return Err(refused("the first message says whose terminal it is")) };
    let hello: Hello = serde_json::from_str(text.as_str()).map_err(|_| refused("send bearer_token, columns and rows"))?;
    let bearer = bearer(&hello.bearer_token).map_err(|_| refused("this is no bearer token"))?;
    let (host, port, login) = app.desk.login(&pod, &customer_of(&bearer)).await.map_err(|refusal| refused(&refusal.message))?;
    match tokio::time::timeout(limits::TERMINAL_LOGIN, app.shell.open(&host, port, &login, hello.size.size())).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(why)) => {
            tracing::warn!(why, %pod, "a terminal could not be opened");
            Err((FAILED, "the pod does not take the login".to_owned()))
        }
        Err(_) => Err((FAILED, "the pod does not answer".to_owned())),
    }
}

/// Carries keys one way and the screen the other, until one side ends.
async fn carry(socket: &mut WebSocket, session: Session) {
    let Session { input, mut output } = session;
    loop {
        tokio::select! {
            shown = output.recv() => match shown {
                Some(bytes) => {
                    let sent = tokio::time::timeout(limits::WRITE, socket.send(Message::Binary(bytes.into()))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                None => return,
            },
            message = socket.recv() => {
                let typed = match message {
                    Some(Ok(Message::Binary(keys))) => Input::Keys(keys.to_vec()),
                    Some(Ok(Message::Text(text))) => match serde_json::from_str::<Dimensions>(text.as_str()) {
                        Ok(dimensions) => Input::Resize(dimensions.size()),
                        Err(_) => continue,
                    },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                // A shell that takes nothing holds up its own typist.
                if !matches!(tokio::time::timeout(limits::WRITE, input.send(typed)).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}
