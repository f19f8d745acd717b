//! Why there is no response. No text contains a header, a path or a body: they may be secret.

use crate::connect_error::ConnectError;
use crate::proxy::ProxyError;
use crate::redirect::RedirectError;
use crate::tls::TlsError;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// There is no client: something in the environment has to be changed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// Why a request got no usable response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nothing was sent.
    #[error("not an http or https URL with a host and without user information")]
    InvalidUrl,
    /// No connection, or no TLS session. Nothing was sent.
    #[error("{host} cannot be reached")]
    Unreachable {
        host: String,
        #[source]
        source: ConnectError,
    },
    /// The connection broke after it was made: the server may have acted on the request.
    #[error("the connection to {host} broke")]
    Disconnected {
        host: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server may have acted on the request.
    #[error("{host} did not send {phase} within {}", seconds(.limit))]
    TimedOut { host: String, phase: Phase, limit: Duration },
    /// The body is longer than the caller allows.
    #[error("the response of {host} has more than {limit} bytes")]
    BodyTooLarge { host: String, limit: usize },
    /// The body costs more than its bytes: no honest server sends such a one.
    #[error("the response of {host} has thousands of pieces of a few bytes")]
    TinyPieces { host: String },
    /// A redirect that the [`RedirectPolicy`](crate::RedirectPolicy) does not allow.
    #[error("a redirect by {host} is not followed")]
    Redirect {
        host: String,
        #[source]
        source: RedirectError,
    },
}

/// What a server was late with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Status and headers.
    Head,
    /// The rest of the body.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "a response",
            Self::Body => "the whole response",
        })
    }
}

fn seconds(limit: &Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}
