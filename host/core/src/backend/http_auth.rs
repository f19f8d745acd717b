//! Customers who sign their HTTP requests with a Nostr key (NIP-98).

use crate::model::ids::Customer;
use crate::model::units::UnixTime;
use std::error::Error;

/// A request as it was signed.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    pub method: &'a str,
    /// The whole URL, as customers call it.
    pub url: &'a str,
    pub body: &'a [u8],
    /// When the request came.
    pub now: UnixTime,
}

/// Why a signature is not accepted. The text is for the customer.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("it is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("it is not base64")]
    NotBase64(#[source] Box<dyn Error + Send + Sync>),
    #[error("it is not a Nostr event")]
    NotAnEvent(#[source] Box<dyn Error + Send + Sync>),
    #[error("its kind is {kind}, not 27235")]
    WrongKind { kind: u16 },
    #[error("its id or signature is wrong")]
    Forged(#[source] Box<dyn Error + Send + Sync>),
    #[error(
        "it is older than {age} s, or more than {ahead} s ahead; sign each request anew, and set your clock"
    )]
    Expired { age: u64, ahead: u64 },
    #[error("its tag u must be {url}")]
    WrongUrl { url: String },
    #[error("its tag method must be {method}")]
    WrongMethod { method: String },
    #[error("its tag payload must be the SHA-256 of the body, in hex")]
    WrongPayload,
}

/// Verifies signatures (NIP-98).
pub trait Nip98Verifier: Send + Sync {
    /// The customer who signed this request. `evidence` stands after `Nostr` in the `Authorization`
    /// header.
    ///
    /// # Errors
    /// [`SignatureError`].
    fn verify(
        &self,
        evidence: &str,
        request: &SignedRequest<'_>,
    ) -> Result<Customer, SignatureError>;
}
