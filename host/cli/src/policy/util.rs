//! What the commands share.

use anyhow::{Result, anyhow};
use paygress_core::backend::policy::Slot;

pub(super) fn slot(name: &str) -> Result<Slot> {
    Slot::named(name).ok_or_else(|| {
        anyhow!("there is no slot {name}; the slots are images, pricing, duration and pod-template")
    })
}

/// Runs blocking work, such as compiling, off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}
