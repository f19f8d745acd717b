//! What a handler leaves of a request's body. A connection that is closed over unread bytes is
//! reset, and the client loses the answer that says why. So the rest is read before the answer, up
//! to a limit, and beyond it the answer says that the connection is closed.

use crate::limits;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A body that is sent back when the handler drops it.
struct ReturnedBody {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
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
        self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, hyper::body::Body::size_hint)
    }
}

impl Drop for ReturnedBody {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            let _ = back.send(body);
        }
    }
}

/// The body of a request that is being answered.
pub(crate) struct UnreadBody {
    back: oneshot::Receiver<Incoming>,
    /// The client sends nothing before it is asked to, so nothing needs to be read.
    is_held: bool,
}

impl UnreadBody {
    pub(crate) fn of(request: hyper::Request<Incoming>) -> (Request, Self) {
        let (body, back) = oneshot::channel();
        let is_held = request.headers().contains_key(header::EXPECT);
        let request = request
            .map(|incoming| Body::new(ReturnedBody { body: Some(incoming), back: Some(body) }));
        (request, Self { back, is_held })
    }

    /// Reads what the handler left, and tells the client if that is too much.
    pub(crate) async fn finish(mut self, response: &mut Response) {
        let Ok(body) = self.back.try_recv() else { return };
        if hyper::body::Body::is_end_stream(&body) {
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
async fn read(mut body: Incoming) -> bool {
    let mut left = limits::UNREAD_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else { return false };
        left = rest;
    }
    true
}
