//! How long orders for pods took to their logins, since this process started.

use crate::model::units::UnixTime;
use std::time::{Duration, Instant};

/// The upper bounds of the buckets; what takes longer than the last is in one more bucket.
pub const LOGIN_BUCKETS: [Duration; 16] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_millis(1_500),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
    Duration::from_secs(3_600),
];

/// The orders whose pods took logins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginTimes {
    /// How many, one number a bucket of [`LOGIN_BUCKETS`] and one for the rest.
    pub buckets: [u64; LOGIN_BUCKETS.len() + 1],
    /// How long they took together.
    pub total: Duration,
}

impl LoginTimes {
    pub(super) fn record(&mut self, time: Duration) {
        let bound = LOGIN_BUCKETS.iter().position(|bound| time <= *bound);
        if let Some(count) = self.buckets.get_mut(bound.unwrap_or(LOGIN_BUCKETS.len())) {
            *count = count.saturating_add(1);
        }
        self.total = self.total.saturating_add(time);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0_u64, |sum, count| sum.saturating_add(*count))
    }
}

/// When this process began to work on an order: by the clock that orders are dated by, which knows
/// seconds, and by one that knows less than a millisecond.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartTime {
    at: UnixTime,
    instant: Instant,
}

impl StartTime {
    pub(super) fn now() -> Self {
        Self { at: UnixTime::now(), instant: Instant::now() }
    }

    /// The time until `now` of an order of this date. What an earlier process had of it is known to a
    /// second.
    pub(super) fn since(self, created_at: UnixTime, now: Instant) -> Duration {
        let before = Duration::from_secs(self.at.since(created_at).0);
        before.saturating_add(now.saturating_duration_since(self.instant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_bucket_that_it_fits_into() {
        let mut times = LoginTimes::default();
        for milliseconds in [0, 100, 101, 700, 751, 9_000, 3_600_000, 3_600_001] {
            times.record(Duration::from_millis(milliseconds));
        }
        let expected = [2, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1];
        assert_eq!(times.buckets, expected);
        assert_eq!((times.count(), times.total), (8, Duration::from_millis(7_210_653)));
    }

    #[test]
    fn a_time_has_milliseconds_and_the_seconds_of_an_earlier_process() {
        let begun = StartTime::now();
        let now = begun.instant.checked_add(Duration::from_millis(680)).unwrap();
        let of = |created_at| begun.since(created_at, now);
        assert_eq!(of(begun.at), Duration::from_millis(680));
        // The second ended after this process had begun.
        assert_eq!(of(UnixTime(begun.at.0 + 1)), Duration::from_millis(680));
        assert_eq!(of(UnixTime(begun.at.0 - 3)), Duration::from_millis(3_680));
    }
}
