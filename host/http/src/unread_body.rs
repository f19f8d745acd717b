//! What a handler leaves of a request's body. A connection that is closed over unread bytes is
//! reset, and the client loses the answer that says why. So the rest is read before the answer, up
//! to a limit, and beyond it the answer says that the connection is closed.

use crate::limits;
use crate::places::{Receiving, UnderWay};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A body as the client sends it.
struct ClientBody {
    body: Incoming,
    /// None: it is here in full.
    receiving: Option<Receiving>,
}

impl hyper::body::Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            if let Some(receiving) = &mut self.receiving {
                receiving.wait();
            }
            return Poll::Pending;
        };
        match &frame {
            Some(Err(_)) => {}
            Some(Ok(piece)) if !self.body.is_end_stream() => {
                if let Some(receiving) = &mut self.receiving {
                    receiving.progress(piece.data_ref().map_or(0, Bytes::len));
                }
            }
            Some(Ok(_)) | None => self.receiving = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that is sent back when the handler drops it.
struct ReturnedBody {
    body: Option<ClientBody>,
    back: Option<oneshot::Sender<ClientBody>>,
}

impl hyper::body::Body for ReturnedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(ClientBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, ClientBody::size_hint)
    }
}

impl Drop for ReturnedBody {
    fn drop(&mut self) {
        if let (Some(mut body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for more of it now.
            if let Some(receiving) = &mut body.receiving {
                receiving.progress(0);
            }
            let _ = back.send(body);
        }
    }
}

/// The body of a request that is being answered.
pub(crate) struct UnreadBody {
    back: oneshot::Receiver<ClientBody>,
    /// The client waits for `100 Continue`: there is nothing to read.
    is_held: bool,
}

impl UnreadBody {
    /// While more of the body is waited for, the connection waits for its client.
    pub(crate) fn of(
        request: hyper::Request<Incoming>,
        under_way: Option<&UnderWay>,
    ) -> (Request, Self) {
        let (sender, back) = oneshot::channel();
        let is_held = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| {
            let under_way = under_way.filter(|_| !body.is_end_stream());
            let body = ClientBody { body, receiving: under_way.and_then(UnderWay::receive) };
            Body::new(ReturnedBody { body: Some(body), back: Some(sender) })
        });
        (request, Self { back, is_held })
    }

    /// Reads what the handler left, and tells the client if that is too much.
    pub(crate) async fn finish(mut self, response: &mut Response) {
        let Ok(body) = self.back.try_recv() else { return };
        if body.is_end_stream() {
            return;
        }
        let is_read = !self.is_held
            && tokio::time::timeout(limits::UNREAD, read(body)).await.unwrap_or_default();
        if !is_read {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }
}

/// Whether this was all of it.
async fn read(mut body: ClientBody) -> bool {
    let mut left = limits::UNREAD_BYTES;
    for _ in 0..limits::UNREAD_PIECES {
        let Some(frame) = body.frame().await else { return true };
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else { return false };
        left = rest;
    }
    body.is_end_stream()
}
