//! Which messages are being served, and which were, in the ledger.

use backon::{ConstantBuilder, Retryable};
use nostr_sdk::EventId;
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::every_nth::EveryNth;
use paygress_core::limits;
use paygress_core::model::ids::MessageId;
use paygress_core::model::units::UnixTime;
use std::sync::Arc;
use std::time::Duration;

/// The pause before the ledger is tried again, and how often that is done: for half a day. Without it
/// nothing can be served, and an operator has to make room on its disk, or bring its server back.
const LEDGER_RETRY: Duration = Duration::from_secs(1);
const LEDGER_RETRIES: usize = 12 * 3_600;

pub(super) struct Claims {
    ledger: Arc<dyn InboxStore>,
    /// When served messages are forgotten, by how many there are.
    completed: EveryNth,
}

impl Claims {
    pub(super) fn new(ledger: Arc<dyn InboxStore>) -> Self {
        Self { ledger, completed: EveryNth::new(limits::MESSAGES_CHECK_EVERY) }
    }

    /// Whether the message is to be served, and by this replica.
    pub(super) async fn claim(&self, id: &EventId) -> Result<bool, LedgerError> {
        let id = MessageId::from_hash(id.to_bytes());
        with_retries(|| async { self.ledger.claim_message(&id, UnixTime::now()).await }).await
    }

    /// The message was served.
    pub(super) async fn complete(&self, id: &EventId) -> Result<(), LedgerError> {
        let id = MessageId::from_hash(id.to_bytes());
        with_retries(|| async { self.ledger.complete_message(&id, UnixTime::now()).await }).await?;
        if self.completed.is_due()
            && let Err(error) = self.forget().await
        {
            tracing::warn!(%error, "served messages could not be forgotten yet");
        }
        Ok(())
    }

    async fn forget(&self) -> Result<(), LedgerError> {
        let before = UnixTime::now().minus(limits::MESSAGES_KEPT);
        self.ledger.forget_messages(before, limits::MESSAGES_MOST).await.map(drop)
    }
}

/// A message that was read from a relay is not read again before the next start: the ledger is
/// tried until it answers.
async fn with_retries<T, F: Future<Output = Result<T, LedgerError>>>(
    operation: impl FnMut() -> F,
) -> Result<T, LedgerError> {
    let pauses = ConstantBuilder::default().with_delay(LEDGER_RETRY).with_max_times(LEDGER_RETRIES);
    operation
        .retry(pauses)
        .notify(|error, _| tracing::warn!(%error, "the ledger failed; it is tried again"))
        .await
}
