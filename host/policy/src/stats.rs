//! What is counted of a component's calls.

use paygress_core::backend::policy::{LATENCY_BUCKETS_US, Slot, SlotStats};
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
    last: (u64, u64),
    total_us: u64,
    // One for each bound, and one for the rest.
    latency: [u64; LATENCY_BUCKETS_US.len() + 1],
}

/// The counts of one component since it was loaded.
#[derive(Default)]
pub(crate) struct CallStats(Mutex<Counts>);

impl CallStats {
    /// Counts a call.
    pub(crate) fn note<T, E>(&self, took: Duration, answer: &Result<Result<T, Refusal>, E>) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BUCKETS_US
            .iter()
            .position(|bound| took <= *bound)
            .unwrap_or(LATENCY_BUCKETS_US.len());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.calls = counts.calls.saturating_add(1);
        counts.total_us = counts.total_us.saturating_add(took);
        match answer {
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

    /// Notes the memory that a call had, and the instructions that it took, if they are counted.
    pub(crate) fn note_usage(&self, bytes: usize, fuel: u64) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.memory_bytes = counts.memory_bytes.max(bytes);
        counts.last = (bytes, fuel);
    }

    /// Memory and instructions of the last call.
    pub(crate) fn last_usage(&self) -> (u64, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    pub(crate) fn report(&self, slot: Slot, digest: &str) -> SlotStats {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Counts { calls, refusals, faults, memory_bytes, last: _, total_us, latency } = counts;
        SlotStats {
            slot,
            digest: digest.to_owned(),
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
        let tally = CallStats::default();
        assert_eq!(tally.report(Slot::Pricing, "").percentile_us(50), None);
        for took in [10, 60, 70, 999, 1_000_000] {
            tally.note(Duration::from_micros(took), &Ok::<_, ()>(Ok(())));
        }
        let report = tally.report(Slot::Pricing, "abc");
        assert_eq!(
            (report.calls, report.refusals.len(), report.faults, report.total_us),
            (5, 0, 0, 1_001_139)
        );
        assert_eq!(
            (report.percentile_us(50), report.percentile_us(80), report.percentile_us(99)),
            (Some(100), Some(1_000), None)
        );
    }
}
