//! How long orders for pods took to their logins, since this process started.

use crate::model::units::Seconds;

/// The upper bounds of the buckets; what takes longer than the last is in one more bucket.
pub const LOGIN_BUCKETS: [Seconds; 11] = [
    Seconds(1),
    Seconds(2),
    Seconds(3),
    Seconds(5),
    Seconds(8),
    Seconds(15),
    Seconds(30),
    Seconds(60),
    Seconds(120),
    Seconds(300),
    Seconds(3_600),
];

/// The orders whose pods took logins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginTimes {
    /// How many, one number a bucket of [`LOGIN_BUCKETS`] and one for the rest.
    pub buckets: [u64; LOGIN_BUCKETS.len() + 1],
    /// How long they took together.
    pub total: Seconds,
}

impl LoginTimes {
    pub(super) fn record(&mut self, time: Seconds) {
        let bound = LOGIN_BUCKETS.iter().position(|bound| time <= *bound);
        if let Some(count) = self.buckets.get_mut(bound.unwrap_or(LOGIN_BUCKETS.len())) {
            *count = count.saturating_add(1);
        }
        self.total = self.total.plus(time);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0_u64, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_bucket_that_it_fits_into() {
        let mut times = LoginTimes::default();
        for seconds in [0, 1, 2, 9, 3_600, 3_601] {
            times.record(Seconds(seconds));
        }
        assert_eq!(times.buckets, [2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!((times.count(), times.total), (6, Seconds(7_213)));
    }
}
