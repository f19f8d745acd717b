//! Who asks: customers who sign their requests with a Nostr key, at a door that is not Nostr's.

use crate::model::units::{Customer, UnixTime};

/// A request as it was signed.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The whole URL, as the world sees it.
    pub url: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// When it came.
    pub now: UnixTime,
}

/// Reads signatures (NIP-98).
pub trait Nip98Verifier: Send + Sync {
    /// Who signed this request: `evidence` is what stands after `Nostr` in the `Authorization`
    /// header.
    ///
    /// # Errors
    /// What is wrong with it, for the customer.
    fn signer(&self, evidence: &str, request: &SignedRequest<'_>) -> Result<Customer, String>;
}
