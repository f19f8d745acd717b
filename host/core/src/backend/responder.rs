//! How a response reaches a customer who is not connected any more.

pub use crate::model::reply_to::ReplyTo;

use crate::protocol::Response;
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

/// Delivers responses.
#[async_trait]
pub trait Responder: Send + Sync {
    /// Delivers this response; `Ok` once somebody has taken it for the customer (a relay's OK).
    ///
    /// # Errors
    /// [`SendError`]: the order service sends it again later.
    async fn send(&self, to: &ReplyTo, response: &Response) -> Result<(), SendError>;
}
