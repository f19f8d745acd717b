//! Statistics of a component's calls.

use paygress_core::backend::policy::{Configured, LATENCY_BUCKETS_US, Slot, SlotStats};
use paygress_core::model::ids::HexDigest;
use paygress_core::model::refusal::{ErrorType, Refusal};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Clone, Default)]
struct Counts {
    calls: u64,
    // A policy may refuse with a handful of codes.
    refusals: BTreeMap<ErrorType, u64>,
    faults: u64,
    memory_bytes: u64,
    last: CallUsage,
    // The last call of which that is known took longer than a busy thread has for it.
    is_slow: bool,
    total_us: u64,
    // One bucket per bound, and one for the rest.
    latency: [u64; LATENCY_BUCKETS_US.len() + 1],
}

/// What one call used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallUsage {
    pub(crate) memory_bytes: u64,
    /// Instructions; 0 unless the engine counts them.
    pub(crate) fuel: u64,
}

/// The statistics of one component since it was loaded.
#[derive(Default)]
pub(crate) struct CallStats(Mutex<Counts>);

impl CallStats {
    pub(crate) fn record<T, E>(&self, took: Duration, result: &Result<Result<T, Refusal>, E>) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BUCKETS_US
            .iter()
            .position(|bound| took <= *bound)
            .unwrap_or(LATENCY_BUCKETS_US.len());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.calls = counts.calls.saturating_add(1);
        counts.total_us = counts.total_us.saturating_add(took);
        match result {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => {
                let count = counts.refusals.entry(refusal.code).or_default();
                *count = count.saturating_add(1);
            }
            Err(_) => counts.faults = counts.faults.saturating_add(1),
        }
        if let Some(count) = counts.latency.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
    }

    pub(crate) fn record_usage(&self, bytes: usize, fuel: u64) {
        let memory_bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.memory_bytes = counts.memory_bytes.max(memory_bytes);
        counts.last = CallUsage { memory_bytes, fuel };
    }

    /// Whether the next call may be made on a thread that other work waits for.
    pub(crate) fn is_quick(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_slow
    }

    pub(crate) fn mark_slow(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_slow = true;
    }

    pub(crate) fn mark_quick(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_slow = false;
    }

    pub(crate) fn last_usage(&self) -> CallUsage {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    pub(crate) fn report(
        &self,
        slot: Slot,
        digest: &HexDigest,
        configured: Configured,
    ) -> SlotStats {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Counts { calls, refusals, faults, memory_bytes, total_us, latency, .. } = counts;
        SlotStats {
            slot,
            digest: digest.clone(),
            configured,
            calls,
            refusals,
            faults,
            memory_bytes,
            total_us,
            latency: latency.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let stats = CallStats::default();
        let digest = HexDigest::of("component");
        let report = stats.report(Slot::Pricing, &digest, Configured::EachCall);
        assert_eq!(report.percentile_us(50), None);
        for took in [10, 60, 70, 999, 1_000_000] {
            stats.record(Duration::from_micros(took), &Ok::<_, ()>(Ok(())));
        }
        let report = stats.report(Slot::Pricing, &digest, Configured::EachCall);
        assert_eq!(
            (report.calls, report.refusals.len(), report.faults, report.total_us),
            (5, 0, 0, 1_001_139)
        );
        assert_eq!(
            (report.percentile_us(50), report.percentile_us(80), report.percentile_us(99)),
            (Some(75), Some(1_000), None)
        );
    }
}
