//! What an order finds in its turn is known to all who wait: that there is no room for its tier.

use crate::backend::capacity::{NoCapacity, Tier};
use tokio::sync::watch;

/// The latest tier that there was no room for, and why. Nothing is kept for those who come later:
/// they look for themselves.
#[derive(Default)]
pub(super) struct SoldOut(watch::Sender<Option<(Tier, NoCapacity)>>);

/// What is found from now on.
pub(super) struct SoldOutFindings {
    latest: watch::Receiver<Option<(Tier, NoCapacity)>>,
    /// Some of the tier that was asked for were read.
    has_read: bool,
}

impl SoldOut {
    pub(super) fn report(&self, tier: &Tier, reason: NoCapacity) {
        self.0.send_replace(Some((tier.clone(), reason)));
    }

    pub(super) fn findings(&self) -> SoldOutFindings {
        SoldOutFindings { latest: self.0.subscribe(), has_read: false }
    }
}

impl SoldOutFindings {
    /// Whether there was found to be no room for this tier, which is the one that was waited for.
    pub(super) fn has_found(&self, tier: &Tier) -> bool {
        let is_new = self.latest.has_changed().unwrap_or(false);
        let is_of_tier = |found: &(Tier, NoCapacity)| found.0 == *tier;
        self.has_read || is_new && self.latest.borrow().as_ref().is_some_and(is_of_tier)
    }

    /// Waits until there is no room for this tier. A finding may be missed when another one follows
    /// at once: the next order of the tier whose turn comes makes it again.
    pub(super) async fn of(&mut self, tier: &Tier) -> NoCapacity {
        loop {
            if self.latest.changed().await.is_err() {
                return std::future::pending().await;
            }
            let found = self.latest.borrow_and_update().clone();
            if let Some((of, reason)) = found
                && of == *tier
            {
                self.has_read = true;
                return reason;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::Resources;
    use crate::testing;

    fn tier(id: &str) -> Tier {
        Tier { id: testing::tier(id), resources: Resources::default() }
    }

    /// What is known of this tier by now.
    async fn known(findings: &mut SoldOutFindings, tier: &Tier) -> Option<NoCapacity> {
        tokio::select! {
            biased;
            reason = findings.of(tier) => Some(reason),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn who_waits_learns_what_is_found_of_their_own_tier_from_then_on() {
        let (small, large) = (tier("small"), tier("large"));
        let sold_out = SoldOut::default();
        sold_out.report(&small, NoCapacity::Nodes);
        let mut findings = sold_out.findings();
        assert_eq!(known(&mut findings, &small).await, None, "it was found before");
        sold_out.report(&large, NoCapacity::TooLarge);
        assert_eq!(known(&mut findings, &small).await, None, "it is of others");
        assert!(!findings.has_found(&small));
        sold_out.report(&small, NoCapacity::Quota);
        assert!(findings.has_found(&small) && !findings.has_found(&large), "it is not read yet");
        let mut later = sold_out.findings();
        assert_eq!(known(&mut findings, &small).await, Some(NoCapacity::Quota));
        assert!(findings.has_found(&small), "it was read");
        assert_eq!(known(&mut later, &small).await, None);
    }
}
