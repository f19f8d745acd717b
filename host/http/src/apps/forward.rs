//! Forwards one request to the pod, and its response back, on a connection of its own. Bodies are
//! streamed and never collected: if one side stops reading, the other has to wait.

use super::headers::is_websocket;
use super::idle_stream::IdleStream;
use super::permits::AppPermit;
use crate::limits;
use crate::server::Peer;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, Uri, Version};
use axum::response::Response;
use futures::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use paygress_core::backend::pod_streams::ByteStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::copy_bidirectional;
use tokio::task::JoinSet;

/// Why the pod has not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("the pod's HTTP server fails")]
    Http(#[from] hyper::Error),
    #[error("the pod's HTTP server changes the protocol, which no request has asked for")]
    Protocol,
}

/// All that is held while a request or its WebSocket is under way. Dropping it cuts client and pod
/// off from each other.
pub(super) struct Exchange {
    _permit: AppPermit,
    /// The client's connection counts towards the limits until this is dropped.
    _peer: Option<Peer>,
    connection: JoinSet<()>,
}

impl Exchange {
    pub(super) fn new(permit: AppPermit, peer: Option<Peer>) -> Self {
        Self { _permit: permit, _peer: peer, connection: JoinSet::new() }
    }
}

/// The body of an answer.
struct PodBody {
    body: Incoming,
    _exchange: Exchange,
}

impl hyper::body::Body for PodBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A way to a pod, and what cuts it: one for the request, one for a WebSocket.
pub(super) struct PodConnection {
    pub(super) stream: Box<dyn ByteStream>,
    pub(super) ends: [BoxFuture<'static, ()>; 2],
}

/// Sends the request, whose headers are the pod's already, and gives the answer as the pod has made
/// it.
pub(super) async fn forward(
    request: Request,
    connection: PodConnection,
    mut exchange: Exchange,
) -> Result<Response, ForwardError> {
    let PodConnection { stream, ends: [end, end_of_websocket] } = connection;
    let (mut parts, body) = request.into_parts();
    let io = TokioIo::new(IdleStream::new(stream, limits::APP_IDLE));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(limits::HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(io).await?;
    exchange.connection.spawn(async move {
        tokio::select! {
            served = connection.with_upgrades() => if let Err(error) = served {
                tracing::debug!(%error, "a connection to a pod's HTTP port ended");
            },
            () = end => {}
        }
    });
    let of_client = parts.extensions.remove::<OnUpgrade>();
    let of_client = of_client.filter(|_| is_websocket(&parts.headers));
    let mut to_pod = hyper::Request::new(body);
    *to_pod.method_mut() = parts.method;
    *to_pod.headers_mut() = parts.headers;
    *to_pod.uri_mut() = parts.uri.into_parts().path_and_query.map_or_else(Uri::default, Uri::from);
    let mut answer = sender.send_request(to_pod).await?;
    *answer.version_mut() = Version::HTTP_11;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(|body| Body::new(PodBody { body, _exchange: exchange })));
    }
    let Some(of_client) = of_client.filter(|_| is_websocket(answer.headers())) else {
        return Err(ForwardError::Protocol);
    };
    let of_pod = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        tokio::select! {
            copied = copy(of_client, of_pod) => if let Err(error) = copied {
                tracing::debug!(%error, "a WebSocket of a pod ended");
            },
            () = end_of_websocket => {}
        }
        drop(exchange);
    });
    Ok(answer.map(|_| Body::empty()))
}

async fn copy(
    of_client: OnUpgrade,
    of_pod: OnUpgrade,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (client, pod) = tokio::try_join!(of_client, of_pod)?;
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(pod)).await?;
    Ok(())
}
