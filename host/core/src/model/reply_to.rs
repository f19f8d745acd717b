//! Where a response goes.

use crate::model::units::Customer;
use serde::{Deserialize, Serialize};

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
