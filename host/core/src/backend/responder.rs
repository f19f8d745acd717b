//! How a response reaches a customer who is not connected any more.

pub use crate::model::reply_to::ReplyTo;

use crate::model::secret::Secret;
use crate::protocol::{PodAccessDetails, Response};
use async_trait::async_trait;
use std::error::Error;

/// Why a response was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The customer, or the transport of the order, cannot be addressed.
    #[error("the recipient cannot be addressed")]
    Recipient(#[source] Box<dyn Error + Send + Sync>),
    /// Nobody has confirmed the response; it may be sent again.
    #[error("the response was not delivered")]
    Undelivered(#[source] Box<dyn Error + Send + Sync>),
}

impl SendError {
    /// For logs that show the source too.
    #[must_use]
    pub fn as_dyn(&self) -> &(dyn Error + 'static) {
        self
    }

    pub fn recipient(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Recipient(source.into())
    }

    pub fn undelivered(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Undelivered(source.into())
    }
}

/// What a pod is given to write to its customer, as the program of the transport in the pod reads
/// it: with the login, for nobody else to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReply(Secret);

impl PodReply {
    #[must_use]
    pub fn new(request: impl Into<String>) -> Self {
        Self(Secret::new(request))
    }

    /// The text for the program.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Delivers responses.
#[async_trait]
pub trait Responder: Send + Sync {
    /// Delivers this response; `Ok` once somebody has taken it for the customer (a relay's OK).
    ///
    /// # Errors
    /// [`SendError`]: the order service sends it again later.
    async fn send(&self, to: &ReplyTo, response: &Response) -> Result<(), SendError>;

    /// What the pod of an order is to write to the customer by itself. None: no pod does, or not to
    /// this customer. It takes a few seconds at most, since a paid pod waits for it.
    async fn pod_reply(&self, _to: &ReplyTo, _details: PodAccessDetails) -> Option<PodReply> {
        None
    }
}
