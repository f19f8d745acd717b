//! A response whose body has not been read yet.

use crate::body::{BodyError, read_body};
use crate::error::{HttpError, Phase};
use crate::redirect::{Origin, location};
use crate::url::host;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::http::response::Parts;
use hyper::{StatusCode, Uri};
use std::time::Duration;
use tokio::time::Instant;

/// Status and headers. The body is still to come, and has the rest of the request's time.
#[derive(Debug)]
pub struct Response {
    pub(crate) origin: Origin,
    pub(crate) head: Parts,
    pub(crate) body: Incoming,
    pub(crate) deadline: Deadline,
}

/// Until when a response has to be complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) started: Instant,
    pub(crate) limit: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self { started: Instant::now(), limit }
    }

    pub(crate) fn remaining(self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }
}

impl Response {
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The URL that sent it; another one than the request's after
    /// [`HttpClient::follow`](crate::HttpClient::follow).
    #[must_use]
    pub fn url(&self) -> &Uri {
        &self.origin.url
    }

    /// The server that sent it, which may name others in it: see
    /// [`HttpClient::send_from`](crate::HttpClient::send_from).
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The `Location` header as an absolute URL: a path on the same server or a whole URL, without
    /// user information.
    #[must_use]
    pub fn location(&self) -> Option<Uri> {
        location(self.url(), &self.head.headers)
    }

    /// Reads the body. One of more than `limit` bytes is given up as soon as it is known to be, and
    /// so is one in thousands of tiny pieces.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, HttpError> {
        let host = host(self.url());
        let reading = read_body(self.body, limit);
        match tokio::time::timeout(self.deadline.remaining(), reading).await {
            Ok(Ok(body)) => Ok(body.into()),
            Ok(Err(BodyError::TooLarge { limit })) => Err(HttpError::BodyTooLarge { host, limit }),
            Ok(Err(BodyError::TinyPieces)) => Err(HttpError::TinyPieces { host }),
            Ok(Err(BodyError::Incomplete(source))) => Err(HttpError::Disconnected { host, source }),
            Err(_) => {
                Err(HttpError::TimedOut { host, phase: Phase::Body, limit: self.deadline.limit })
            }
        }
    }
}
