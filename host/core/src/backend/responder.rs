//! How a response reaches a customer who is not connected any more.

use crate::model::units::Customer;
use crate::protocol::Response;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::error::Error;

/// The transport that an order came through; the response goes back through the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A NIP-17 message.
    #[default]
    Nostr,
    /// An HTTP request: the response waits in the ledger until it is fetched.
    Http,
}

/// Where a response goes. Opaque to the order service; the transport that made it reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    #[serde(default, rename = "door")]
    pub transport: Transport,
    pub customer: Customer,
    /// The relay that brought the order, if one did.
    pub relay: Option<String>,
    /// The id of the message that is answered.
    pub request: Option<String>,
}

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
