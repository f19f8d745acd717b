//! The way back: a door that can bring an answer to a customer who is not connected.

use crate::model::units::Customer;
use crate::protocol::Response;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// The door that an order came through; its answer goes back through the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A NIP-17 message.
    #[default]
    Nostr,
    /// An HTTP request: the answer waits in the ledger until it is fetched.
    Http,
}

/// Where an answer goes. Opaque to the desk; the door that made it reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The door.
    #[serde(default)]
    pub door: Transport,
    /// The customer.
    pub customer: Customer,
    /// The relay that brought the order, if one did.
    pub relay: Option<String>,
    /// The id of the message that is answered.
    pub request: Option<String>,
}

/// Brings answers.
#[async_trait]
pub trait Responder: Send + Sync {
    /// Brings this answer; `Ok` once somebody has taken it for the customer (a relay's OK).
    ///
    /// # Errors
    /// In words, for the log: try again later.
    async fn send(&self, to: &ReplyTo, response: &Response) -> Result<(), String>;
}
