//! Few requests at once at each mint: a mint that hangs delays its own orders only.

use crate::model::ids::MintUrl;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One semaphore for each accepted mint.
pub(super) struct MintLimiter {
    by_mint: Mutex<HashMap<MintUrl, Arc<Semaphore>>>,
    each: usize,
}

impl MintLimiter {
    pub(super) fn of(each: usize) -> Self {
        Self { by_mint: Mutex::default(), each }
    }

    pub(super) async fn acquire(&self, mint: &MintUrl) -> Option<OwnedSemaphorePermit> {
        let permits = {
            let mut all = self.by_mint.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                all.entry(mint.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each))),
            )
        };
        permits.acquire_owned().await.ok()
    }
}
