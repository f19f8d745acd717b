//! The customer's side of iroh: `ProxyCommand` of their SSH client.

use crate::alpn;
use crate::close::CloseReason;
use crate::endpoint::{Relay, relay_mode};
use crate::limits;
use crate::pump;
use crate::ticket::GatewayTicket;
use iroh::endpoint::{
    BindError, ConnectError, ConnectingError, Connection, ConnectionError, RecvStream, SendStream,
    TransportErrorCode, VarInt, presets,
};
use iroh::{Endpoint, RelayUrl};
use paygress_core::model::ids::PodName;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use std::error::Error;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};

/// TLS's alert that there is no such protocol.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Why there is no way to the pod, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no UDP socket can be opened here: a firewall or a sandbox may forbid it")]
    Bind(#[source] Box<BindError>),
    #[error(
        "the gateway does not answer: check the connection, and whether UDP is let through; the ticket may be old"
    )]
    Unreachable(#[source] Option<Box<ConnectError>>),
    #[error("the relay does not answer: check its URL, and whether it is reached from here")]
    RelayUnreachable,
    #[error("the gateway knows no such pod: has its lease ended?")]
    UnknownLease,
    #[error("the gateway is busy, or was called too often: try again in a minute")]
    Refused,
    #[error("the lease of the pod has ended: order a new pod")]
    LeaseEnded,
    #[error("the gateway is being stopped: connect again")]
    Stopping,
    #[error("too many connections are open: close one")]
    TooMany,
    #[error("the gateway cannot reach the pod: try again")]
    PodUnreachable,
    #[error("the connection to the gateway was lost: connect again")]
    Lost(#[source] Box<dyn Error + Send + Sync>),
    #[error("signals cannot be handled here: start this command from a terminal")]
    Signals(#[source] std::io::Error),
}

impl ClientError {
    /// Its code, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bind(_) => "gateway-no-socket",
            Self::Unreachable(_) => "gateway-unreachable",
            Self::RelayUnreachable => "gateway-relay-unreachable",
            Self::UnknownLease => "gateway-unknown-lease",
            Self::Refused => "gateway-refused",
            Self::LeaseEnded => "lease-ended",
            Self::Stopping => "gateway-stopping",
            Self::TooMany => "gateway-too-many",
            Self::PodUnreachable => "pod-unreachable",
            Self::Lost(_) => "gateway-lost",
            Self::Signals(_) => "gateway-signals",
        }
    }

    fn from_connect(error: ConnectError) -> Self {
        let cause = match &error {
            ConnectError::Connection { source, .. }
            | ConnectError::Connecting {
                source: ConnectingError::ConnectionError { source, .. },
                ..
            } => Some(source),
            _ => None,
        };
        match cause {
            Some(ConnectionError::ConnectionClosed(close)) => {
                if close.error_code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) {
                    Self::UnknownLease
                } else if close.error_code == TransportErrorCode::CONNECTION_REFUSED {
                    Self::Refused
                } else {
                    Self::Unreachable(Some(Box::new(error)))
                }
            }
            _ => Self::Unreachable(Some(Box::new(error))),
        }
    }

    /// None if the gateway has closed the connection since all is done.
    fn from_end(error: ConnectionError) -> Option<Self> {
        let reason = match &error {
            ConnectionError::ApplicationClosed(close) => {
                CloseReason::from_code(close.error_code.into_inner())
            }
            _ => None,
        };
        match reason {
            Some(CloseReason::Done) => None,
            Some(CloseReason::LeaseEnded) => Some(Self::LeaseEnded),
            Some(CloseReason::Stopping) => Some(Self::Stopping),
            Some(CloseReason::TooMany) => Some(Self::TooMany),
            Some(CloseReason::Unreachable) => Some(Self::PodUnreachable),
            Some(CloseReason::Silent) | None => Some(Self::Lost(Box::new(error))),
        }
    }

    /// As [`from_end`](Self::from_end), for a session that has ended like this. A connection that is
    /// dropped has the code of one where all is done.
    fn from_session(error: ConnectionError, end: SessionEnd) -> Option<Self> {
        match (Self::from_end(error.clone()), end) {
            (None, SessionEnd::Cut) => Some(Self::Lost(Box::new(error))),
            (reason, SessionEnd::Complete | SessionEnd::Cut) => reason,
        }
    }
}

/// How the exchange of a session has ended, as its streams show.
#[derive(Clone, Copy)]
enum SessionEnd {
    /// By the end of a side.
    Complete,
    /// Neither side had ended.
    Cut,
}

impl SessionEnd {
    fn new<E>(of_a_side: &Result<(), E>) -> Self {
        if of_a_side.is_ok() { Self::Complete } else { Self::Cut }
    }
}

/// A connection to a pod's SSH port.
#[derive(Debug)]
pub struct Tunnel {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

/// Connects to a pod's SSH port by its gateway, within 15 seconds. Nothing is sent before the first
/// byte: SSH clients greet first.
///
/// # Errors
/// [`ClientError`].
pub async fn connect(ticket: &GatewayTicket, pod: &PodName) -> Result<Tunnel, ClientError> {
    let endpoint = bind(ticket.addr().relay_urls().cloned()).await?;
    match Box::pin(open(&endpoint, ticket, pod)).await {
        Ok((connection, send, receive)) => Ok(Tunnel { endpoint, connection, send, receive }),
        Err(error) => {
            close(&endpoint).await;
            Err(error)
        }
    }
}

async fn bind(relays: impl Iterator<Item = RelayUrl>) -> Result<Endpoint, ClientError> {
    let builder = Endpoint::builder(presets::Minimal).relay_mode(relay_mode(relays));
    let bound = Box::pin(builder.bind()).await;
    bound.map_err(|error| ClientError::Bind(Box::new(error)))
}

/// Verifies that the endpoint of this id is found by the ticket, as an operator's check: it has to
/// prove its key in the handshake. No pod is named, and none is reached.
///
/// # Errors
/// [`ClientError::Bind`], or [`ClientError::Unreachable`] within 15 seconds.
pub async fn verify_endpoint(ticket: &GatewayTicket) -> Result<(), ClientError> {
    let endpoint = bind(ticket.addr().relay_urls().cloned()).await?;
    let connected = Box::pin(endpoint.connect(ticket.addr().clone(), alpn::BARE));
    let connected = tokio::time::timeout(limits::CONNECT, connected).await;
    close(&endpoint).await;
    match connected {
        Ok(connected) => connected.map(drop).map_err(ClientError::from_connect),
        Err(_) => Err(ClientError::Unreachable(None)),
    }
}

/// Verifies that the relay accepts an endpoint. The endpoint has a new random key.
///
/// # Errors
/// [`ClientError::Bind`], or [`ClientError::RelayUnreachable`] within 15 seconds.
pub async fn verify_relay(relay: &Relay) -> Result<(), ClientError> {
    let endpoint = bind(std::iter::once(relay.url().clone())).await?;
    let online = tokio::time::timeout(limits::CONNECT, endpoint.online()).await;
    close(&endpoint).await;
    online.map_err(|_| ClientError::RelayUnreachable)
}

async fn open(
    endpoint: &Endpoint,
    ticket: &GatewayTicket,
    pod: &PodName,
) -> Result<(Connection, SendStream, RecvStream), ClientError> {
    let protocol = alpn::of_pod(pod);
    let connected = Box::pin(endpoint.connect(ticket.addr().clone(), &protocol));
    let connection = tokio::time::timeout(limits::CONNECT, connected)
        .await
        .map_err(|_| ClientError::Unreachable(None))?
        .map_err(ClientError::from_connect)?;
    // The gateway allows one stream.
    match connection.open_bi().await {
        Ok((send, receive)) => Ok((connection, send, receive)),
        Err(error) => Err(ClientError::from_end(error).unwrap_or(ClientError::Refused)),
    }
}

/// Says goodbye, but does not wait for long.
async fn close(endpoint: &Endpoint) {
    let _ = tokio::time::timeout(limits::CLIENT_CLOSE, endpoint.close()).await;
}

impl Tunnel {
    /// Copies `input` to the pod and what it sends to `output`, until the pod's side ends, a while
    /// after `input` has ended, or until `stop` returns. Then the connection and the endpoint are
    /// closed, so that the gateway does not wait for either.
    ///
    /// # Errors
    /// [`ClientError`]: the gateway has closed the connection, or is gone.
    pub async fn run(
        self,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ClientError> {
        let (result, endpoint) = self.exchange(input, output, stop).await;
        close(&endpoint).await;
        result
    }

    /// The session, without the time that the gateway takes to learn of its end.
    async fn exchange(
        self,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
        stop: impl Future<Output = ()>,
    ) -> (Result<(), ClientError>, Endpoint) {
        let Self { endpoint, connection, send, receive } = self;
        let (up, down) = (pump::copy(input, send), pump::copy(receive, output));
        let exchange = async {
            let mut up = pin!(up);
            let mut down = pin!(down);
            tokio::select! {
                down = &mut down => SessionEnd::new(&down),
                up = &mut up => {
                    let rest = tokio::time::timeout(limits::CLIENT_LINGER, &mut down).await;
                    SessionEnd::new(&up.or(rest.unwrap_or(Ok(()))))
                }
            }
        };
        let end = tokio::select! {
            end = exchange => Some(end),
            () = stop => None,
        };
        let reason = connection.close_reason().zip(end);
        connection.close(VarInt::from_u32(CloseReason::Done.code()), b"");
        let result = match reason.and_then(|(error, end)| ClientError::from_session(error, end)) {
            Some(error) => Err(error),
            None => Ok(()),
        };
        (result, endpoint)
    }
}

/// A session of [`proxy_command`] that is over, or came to nothing.
#[derive(Debug)]
pub struct ProxyEnd {
    /// [`ClientError`]: why there was no session, or how it was cut.
    pub result: Result<(), ClientError>,
    endpoint: Option<Endpoint>,
}

impl ProxyEnd {
    /// Waits until the gateway has learned of the end. Standard output and error are let go before:
    /// whoever reads them until they end, as programs do that start `ssh`, does not wait as well.
    pub async fn finish(self) {
        if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            let _ = dup2_stdout(&nowhere);
            let _ = dup2_stderr(&nowhere);
        }
        if let Some(endpoint) = self.endpoint {
            close(&endpoint).await;
        }
    }
}

/// [`connect`] and [`Tunnel::run`] with standard input and output, until SIGHUP (by which `ssh` ends
/// its `ProxyCommand`), SIGINT or SIGTERM.
///
/// Standard input is read by a thread that blocks: the program must end by [`std::process::exit`]
/// when this returns, after [`ProxyEnd::finish`].
pub async fn proxy_command(ticket: &GatewayTicket, pod: &PodName) -> ProxyEnd {
    let ended = proxy(ticket, pod).await;
    let (result, endpoint) = ended.unwrap_or_else(|error| (Err(error), None));
    ProxyEnd { result, endpoint }
}

/// The session, and the endpoint that is still open.
async fn proxy(
    ticket: &GatewayTicket,
    pod: &PodName,
) -> Result<(Result<(), ClientError>, Option<Endpoint>), ClientError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(ClientError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ClientError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ClientError::Signals)?;
    let stop = async {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut stop = pin!(stop);
    let tunnel = tokio::select! {
        tunnel = connect(ticket, pod) => tunnel?,
        () = &mut stop => return Ok((Ok(()), None)),
    };
    let (result, endpoint) = tunnel.exchange(tokio::io::stdin(), tokio::io::stdout(), stop).await;
    Ok((result, Some(endpoint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use iroh::endpoint::ApplicationClose;

    /// As a gateway leaves it that ends before it has given a reason.
    #[test]
    fn a_connection_that_is_dropped_is_lost_unless_a_side_has_ended() {
        let dropped = || {
            ConnectionError::ApplicationClosed(ApplicationClose {
                error_code: VarInt::from_u32(0),
                reason: Bytes::new(),
            })
        };
        assert!(ClientError::from_session(dropped(), SessionEnd::Complete).is_none());
        let cut = ClientError::from_session(dropped(), SessionEnd::Cut);
        assert!(matches!(cut, Some(ClientError::Lost(_))), "{cut:?}");
    }

    #[test]
    fn what_the_gateway_ends_has_a_reason() {
        assert!(ClientError::from_end(ConnectionError::TimedOut).is_some_and(|error| {
            error.code() == "gateway-lost" && error.to_string().contains("connect again")
        }));
        assert_eq!(ClientError::Unreachable(None).code(), "gateway-unreachable");
    }
}
