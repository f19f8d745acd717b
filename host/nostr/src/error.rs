//! What goes wrong with relays.

use crate::address::AddressError;
use crate::gift_wrap::WrapError;
use nostr_sdk::RelayUrl;
use paygress_core::backend::store::LedgerError;
use paygress_core::error_chain;
use paygress_core::sanitize::plain;
use std::collections::HashMap;
use std::fmt;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is kept of a text in which a relay may have its own.
pub(crate) const REASON_CHARS: usize = 300;

/// An error of the library as plain text: some hold what a relay has sent.
pub(crate) fn sdk_error(error: impl Into<BoxError>) -> BoxError {
    let error: BoxError = error.into();
    plain(&error_chain(&*error), REASON_CHARS).into()
}

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
        Self::Sdk(sdk_error(error))
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
            write!(f, "{separator}{relay}: {}", plain(reason, REASON_CHARS))?;
        }
        Ok(())
    }
}

/// Why one relay did not take an event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the relay did not take the event")]
    Sdk(#[source] BoxError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the connection to the relay failed")]
    Connection(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("the relay closed the connection")]
    Closed,
    #[error("the relay does not answer in time")]
    Timeout,
    #[error("the relay sent too much that is not its answer")]
    NoAnswer,
    #[error("the relay refused the event: {0}")]
    Refused(String),
    #[error("the relay failed lately and is left alone for a while")]
    FailedLately,
    #[error("too many relays are being visited")]
    Busy,
}

impl RelayError {
    pub(crate) fn sdk(error: impl Into<BoxError>) -> Self {
        Self::Sdk(sdk_error(error))
    }

    pub(crate) fn connection(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Connection(Box::new(error))
    }

    /// Whether the relay is at fault, whatever it was sent: it is left alone for a while.
    pub(crate) fn is_the_relays(&self) -> bool {
        match self {
            Self::Address(error) => !error.is_final(),
            Self::Connection(_) | Self::Closed | Self::Timeout | Self::NoAnswer => true,
            Self::Sdk(_) | Self::Refused(_) | Self::FailedLately | Self::Busy => false,
        }
    }

    /// Whether the relay will never take an event of ours: its address is not one for us.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Address(error) if error.is_final())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relays_text_is_plain_and_short() {
        let text = format!("blocked: \u{1b}[2J\n{}", "x".repeat(10_000));
        let relay = RelayUrl::parse("wss://a.example").unwrap();
        for shown in [
            error_chain(&RelayError::sdk(text.clone())),
            error_chain(&Error::sdk(text.clone())),
            RelayFailures::from(HashMap::from([(relay, text.clone())])).to_string(),
        ] {
            assert!(shown.contains("blocked: \\u{1b}[2J\\u{a}xxx"), "{shown}");
            assert!(!shown.contains(char::is_control), "{shown}");
            assert!(shown.chars().count() < 400, "{}", shown.chars().count());
        }
    }
}
