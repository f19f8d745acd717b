//! What goes wrong with relays.

use crate::gift_wrap::WrapError;
use nostr_sdk::RelayUrl;
use paygress_core::backend::store::LedgerError;
use std::collections::HashMap;
use std::fmt;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the service or a client of it cannot work with its relays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a Nostr operation failed")]
    Sdk(#[source] BoxError),
    #[error("no relay can be reached ({0})")]
    NoRelay(RelayFailures),
    #[error("no relay took the request ({0})")]
    NotSent(RelayFailures),
    #[error("the request cannot be sent")]
    GiftWrap(#[from] WrapError),
    #[error(
        "no response within {seconds} s; the service may be offline and answers when it is back"
    )]
    NoResponse { seconds: u64 },
    #[error("the connection to the relays was closed")]
    Closed,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Error {
    pub(crate) fn sdk(error: impl Into<BoxError>) -> Self {
        Self::Sdk(error.into())
    }
}

/// The reason of each relay.
#[derive(Debug)]
pub struct RelayFailures(HashMap<RelayUrl, String>);

impl From<HashMap<RelayUrl, String>> for RelayFailures {
    fn from(failed: HashMap<RelayUrl, String>) -> Self {
        Self(failed)
    }
}

impl fmt::Display for RelayFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (relay, reason)) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{relay}: {reason}")?;
        }
        Ok(())
    }
}

/// Why one relay did not take an event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the relay did not take the event")]
    Sdk(#[source] BoxError),
    #[error("the relay does not answer in time")]
    Timeout,
    #[error("too many relays are being visited")]
    Busy,
}

impl RelayError {
    pub(crate) fn sdk(error: impl Into<BoxError>) -> Self {
        Self::Sdk(error.into())
    }
}

/// Why a response was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error("the customer is not a Nostr key")]
    Customer(#[source] BoxError),
    #[error("the response cannot be wrapped")]
    GiftWrap(#[from] WrapError),
    #[error("no relay took the response")]
    NotTaken,
}

/// Why the offers cannot be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("the offer cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("an event cannot be signed")]
    Sign(#[source] BoxError),
}
