//! Exponential backoff without an end, for what is tried until it succeeds.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

/// The delays of [`doubling`], for structs that have them as a field.
pub type Doubling = ExponentialBackoff;

/// Delays that double, with jitter, from `first` up to `longest`.
#[must_use]
pub fn doubling(first: Duration, longest: Duration) -> Doubling {
    ExponentialBuilder::default()
        .with_min_delay(first)
        // Jitter at most doubles it.
        .with_max_delay(longest.div_f32(2.0))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}
