//! A shell in the browser: a WebSocket on one side, the pod's SSH server on the other.
//!
//! The first message authenticates (`{"bearer_token": …, "columns": 80, "rows": 24}`): a browser
//! cannot send headers with a WebSocket, and what stands in a URL is kept in logs. Then binary
//! messages are keys, and text messages new sizes.

use crate::extract::{PathParam, bearer};
use crate::limits;
use crate::places::Receiving;
use crate::problem::{Problem, ProblemBody};
use crate::server::Peer;
use crate::state::App;
use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::response::Response;
use paygress_core::backend::terminal::{Input, Session, ShellError, ShellLogin, Size};
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use paygress_core::orders::RunningLogin;
use paygress_core::orders::pod_named;
use serde::Deserialize;
use std::sync::Arc;
use tokio::time::Instant;

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
/// IANA's "Service Restart".
const RESTARTED: u16 = 1_012;
/// At most 123 bytes, as all reasons.
const WRONG_HOST_KEY: &str = "another server answers at the pod's address: its host key is not the pod's; no password was sent";
const UNKNOWN_HOST_KEYS: &str = "the pod's host keys are not known, so no password was sent; log in with ssh, which shows its host key";

/// Open a terminal
///
/// A WebSocket. The first message is text and authenticates: `{"bearer_token": "…", "columns":
/// 80, "rows": 24}`. Then binary messages are keys and what is shown, and text messages new sizes.
/// It is closed with 4403 when the pod is not the customer's or has no password, with 4502 when the
/// pod does not answer, or another server does: then the host key is not the pod's, or when its host
/// keys are not known; with 1012 when the service is restarted.
#[utoipa::path(get, path = "/pods/{name}/terminal", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 101, description = "It is a WebSocket now"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")))]
pub(crate) async fn terminal(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    // The connection's permit is held as long as the terminal is open.
    peer: Option<Extension<Peer>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade =
        upgrade.map_err(|_| Problem::invalid("this is for WebSockets; send an upgrade request"))?;
    let upgrade =
        upgrade.max_message_size(limits::TERMINAL_BYTES).max_frame_size(limits::TERMINAL_BYTES);
    // Whoever has not logged in keeps no place from a newcomer.
    let waited_for = peer.as_ref().map(|Extension(peer)| peer.wait());
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        let served = tokio::select! {
            served = serve(&app, name, &mut socket, waited_for) => served,
            _ = app.stopping.begun() => Err(stopping()),
        };
        let (code, reason) = match served {
            Ok(()) => (DONE, "the shell has ended".to_owned()),
            Err(Closed { code, reason }) => (code, reason),
        };
        let closing = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() })));
        let _ = tokio::time::timeout(limits::WRITE, closing).await;
        drop(peer);
    }))
}

/// Why a terminal is closed.
struct Closed {
    code: u16,
    reason: String,
}

fn refused(reason: &str) -> Closed {
    Closed { code: REFUSED, reason: reason.to_owned() }
}

fn failed(reason: &str) -> Closed {
    Closed { code: FAILED, reason: reason.to_owned() }
}

fn stopping() -> Closed {
    let reason = "the service is restarted; open the terminal again".to_owned();
    Closed { code: RESTARTED, reason }
}

/// One terminal, within the limits. Its client is waited for until it has proved whose it is; then it is
/// the pod that is waited for, by no more than a customer may have.
async fn serve(
    app: &App,
    pod: String,
    socket: &mut WebSocket,
    waited_for: Option<Receiving>,
) -> Result<(), Closed> {
    let hello = hello(socket).await?;
    let bearer = bearer(&hello.bearer_token).map_err(|_| refused("this is not a bearer token"))?;
    let customer = Customer::of_bearer(&bearer);
    let pod = pod_named(pod).map_err(|refusal| refused(&refusal.message))?;
    let full = || failed("too many terminals are open; use ssh");
    let known =
        app.orders.login(&pod, &customer).await.map_err(|refusal| refused(&refusal.message))?;
    // The customer's key is not here, and no password was requested.
    let no_password = || refused("this pod has no password; log in with ssh and your key");
    let password = known.login.password.as_ref().ok_or_else(no_password)?;
    let of_customer = app.terminals_of.try_acquire(customer.clone(), limits::TERMINALS_OF_ONE);
    let _of_customer = of_customer.ok_or_else(full)?;
    let _permit = app.terminals.try_acquire().map_err(|_| full())?;
    drop(waited_for);
    let size = hello.size.size();
    let opening = async {
        match open(app, &known, password, size).await {
            // By now its server may prove them, or another pod may run in place of the one that has.
            Err(ShellError::UnknownHostKeys | ShellError::WrongHostKey(_)) => {
                let proved = app.orders.proved_login(&pod, &customer).await;
                open(app, proved.as_ref().unwrap_or(&known), password, size).await
            }
            opened => opened,
        }
    };
    let session = match tokio::time::timeout(limits::TERMINAL_LOGIN, opening).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            let reason = match error {
                ShellError::WrongHostKey(_) => WRONG_HOST_KEY,
                ShellError::UnknownHostKeys => UNKNOWN_HOST_KEYS,
                ShellError::Failed(_) => "the pod refuses the login",
            };
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, %pod, "a terminal could not be opened");
            return Err(failed(reason));
        }
        Err(_) => return Err(failed("the pod does not answer")),
    };
    forward(socket, session).await;
    Ok(())
}

/// Logs in as it is known.
async fn open(
    app: &App,
    known: &RunningLogin,
    password: &Secret,
    size: Size,
) -> Result<Session, ShellError> {
    let RunningLogin { host, port, login, host_keys } = known;
    let login = ShellLogin { host, port: *port, username: &login.username, password, host_keys };
    app.shell.open(login, size).await
}

/// The first message.
async fn hello(socket: &mut WebSocket) -> Result<Hello, Closed> {
    let hello = tokio::time::timeout(limits::TERMINAL_HELLO, socket.recv()).await;
    let Ok(Some(Ok(Message::Text(text)))) = hello else {
        return Err(refused(
            "the first message authenticates: send bearer_token, columns and rows",
        ));
    };
    serde_json::from_str(text.as_str()).map_err(|_| refused("send bearer_token, columns and rows"))
}

/// Forwards keys one way and output the other, until one side ends.
async fn forward(socket: &mut WebSocket, session: Session) {
    let Session { input, mut output } = session;
    let mut ping = tokio::time::interval(limits::TERMINAL_PING);
    let mut last_received = Instant::now();
    loop {
        tokio::select! {
            bytes = output.recv() => match bytes {
                Some(bytes) => {
                    let sent = tokio::time::timeout(limits::WRITE, socket.send(Message::Binary(bytes.into()))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                None => return,
            },
            _ = ping.tick() => {
                let sent = tokio::time::timeout(limits::WRITE, socket.send(Message::Ping(Bytes::new()))).await;
                if last_received.elapsed() > limits::TERMINAL_SILENCE || !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            message = socket.recv() => {
                last_received = Instant::now();
                let sent = match message {
                    Some(Ok(Message::Binary(keys))) => Input::Keys(keys.to_vec()),
                    Some(Ok(Message::Text(text))) => match serde_json::from_str::<Dimensions>(text.as_str()) {
                        Ok(dimensions) => Input::Resize(dimensions.size()),
                        Err(_) => continue,
                    },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                // A shell that reads nothing slows down its own browser only.
                if !matches!(tokio::time::timeout(limits::WRITE, input.send(sent)).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}
