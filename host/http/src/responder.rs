//! The responder of this transport: responses wait in the ledger until they are fetched.

use async_trait::async_trait;
use paygress_core::backend::responder::{ReplyTo, Responder, SendError};
use paygress_core::protocol::Response;

/// The name of this transport in a [`ReplyTo`].
pub const TRANSPORT: &str = "http";

/// Responses to orders that came over HTTP wait in the ledger until they are fetched.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolledResponder;

#[async_trait]
impl Responder for PolledResponder {
    async fn send(&self, _: &ReplyTo, _: &Response) -> Result<(), SendError> {
        Ok(())
    }
}
