//! What signs receipts.

use crate::model::units::UnixTime;
use crate::protocol::SignedReceipt;
use std::error::Error;

/// The key does not sign.
#[derive(Debug, thiserror::Error)]
#[error("the receipt cannot be signed")]
pub struct SignError(#[source] Box<dyn Error + Send + Sync>);

impl SignError {
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Signs receipts with the service's key.
pub trait ReceiptSigner: Send + Sync {
    /// The event with this content, of this time. The same input gives the same bytes: receipts are
    /// not stored.
    ///
    /// # Errors
    /// The key does not sign.
    fn sign(&self, content: String, at: UnixTime) -> Result<SignedReceipt, SignError>;
}
