//! Where tokens were spent elsewhere that their mint had called unspent: their customers have kept
//! places from others for nothing.

use crate::limits;
use crate::model::ids::MintUrl;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// When it was last so at each mint, of those that are accepted.
#[derive(Default)]
pub(super) struct DoubleSpends(Mutex<HashMap<MintUrl, Instant>>);

impl DoubleSpends {
    pub(super) fn report(&self, mint: &MintUrl) {
        tracing::info!(%mint, "a token was spent elsewhere after its mint had called it unspent");
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.insert(mint.clone(), Instant::now());
    }

    pub(super) fn is_recent(&self, mint: &MintUrl) -> bool {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.get(mint).is_some_and(|at| at.elapsed() < limits::DOUBLE_SPEND_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_is_remembered_of_its_own_mint_for_a_while() {
        let [mint, other] =
            ["https://a.invalid", "https://b.invalid"].map(|url| MintUrl::parse(url).unwrap());
        let spends = DoubleSpends::default();
        assert!(!spends.is_recent(&mint));
        spends.report(&mint);
        assert!(spends.is_recent(&mint) && !spends.is_recent(&other));
        tokio::time::advance(limits::DOUBLE_SPEND_MEMORY - Duration::from_secs(1)).await;
        assert!(spends.is_recent(&mint));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!spends.is_recent(&mint));
    }
}
