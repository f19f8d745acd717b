//! Amounts and times as types. No bare `u64` passes between crates.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The sum, stopping at the largest value.
            #[must_use]
            pub fn plus(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, stopping at zero.
            #[must_use]
            pub fn minus(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $unit), self.0)
            }
        }
    };
}

quantity!(/** An amount of money, in sat. */ Sat, " sat");
quantity!(/** An amount of money, in thousandths of a sat. */ Msat, " msat");
quantity!(/** A length of time, in seconds. */ Seconds, " s");

/// By how much the clock of this process is shifted.
#[cfg(feature = "testing")]
static SHIFT: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

/// Shifts the clock of this process, for tests of clock jumps.
#[cfg(feature = "testing")]
pub fn set_clock_wrong(by_seconds: i64) {
    SHIFT.store(by_seconds, std::sync::atomic::Ordering::Relaxed);
}

/// An amount times `part / whole`, at most all of it, rounded down.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(amount)
        .saturating_mul(u128::from(part.min(whole)))
        .checked_div(u128::from(whole));
    share.and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
}

impl Seconds {
    /// This time times `part / whole`, rounded down.
    #[must_use]
    pub fn share(self, part: Sat, whole: Sat) -> Self {
        Self(share(self.0, part.0, whole.0))
    }
}

impl Sat {
    /// This amount times `part / whole`, rounded down.
    #[must_use]
    pub fn share(self, part: Seconds, whole: Seconds) -> Self {
        Self(share(self.0, part.0, whole.0))
    }

    /// This percentage of the amount, at most all of it, rounded down.
    #[must_use]
    pub fn percent(self, percent: u8) -> Self {
        self.share(Seconds(percent.into()), Seconds(100))
    }
}

/// A gain or a loss of money, in sat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedSat(pub i64);

impl SignedSat {
    /// With this gained, stopping at the largest value.
    #[must_use]
    pub fn plus(self, gained: Sat) -> Self {
        Self(self.0.saturating_add_unsigned(gained.0))
    }

    /// With this lost, stopping at the smallest value.
    #[must_use]
    pub fn minus(self, lost: Sat) -> Self {
        Self(self.0.saturating_sub_unsigned(lost.0))
    }
}

/// A point in time: seconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The clock of this machine.
    #[must_use]
    pub fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        #[cfg(feature = "testing")]
        let now = now.saturating_add_signed(SHIFT.load(std::sync::atomic::Ordering::Relaxed));
        Self(now)
    }

    /// This point plus a duration.
    #[must_use]
    pub fn after(self, time: Seconds) -> Self {
        Self(self.0.saturating_add(time.0))
    }

    /// This point minus a duration.
    #[must_use]
    pub fn minus(self, time: Seconds) -> Self {
        Self(self.0.saturating_sub(time.0))
    }

    /// How long it is from `earlier` to this point; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Seconds {
        Seconds(self.0.saturating_sub(earlier.0))
    }

    /// As RFC 3339 in UTC, for people and for the wire.
    #[must_use]
    pub fn rfc3339(self) -> String {
        i64::try_from(self.0)
            .ok()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .map_or_else(|| format!("@{}", self.0), |time| time.to_string())
    }
}

/// How far another clock is ahead of this machine's, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset(pub i64);

impl ClockOffset {
    /// From the `Date` header of an HTTP response that has come `now`; none if it is no date. It is
    /// known to a second, and less the time that the response was under way.
    #[must_use]
    pub fn of_http_date(text: &str, now: UnixTime) -> Option<Self> {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let now = i64::try_from(now.0).ok()?;
        Some(Self(date.as_second().saturating_sub(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc3339_and_never_overflow() {
        assert_eq!(UnixTime(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(UnixTime(u64::MAX).after(Seconds(1)), UnixTime(u64::MAX));
        assert!(UnixTime(u64::MAX).rfc3339().starts_with('@'));
        assert_eq!(UnixTime(5).since(UnixTime(9)), Seconds(0));
    }

    #[test]
    fn a_response_says_how_far_its_clock_is_ahead() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (now, offset) in [(1_445_412_480, 0), (1_445_412_470, 10), (1_445_412_540, -60)] {
            let read = ClockOffset::of_http_date(date, UnixTime(now));
            assert_eq!(read, Some(ClockOffset(offset)), "{now}");
        }
        for text in ["", "1445412480", "yesterday", "Wed, 21 Oct"] {
            assert_eq!(ClockOffset::of_http_date(text, UnixTime(0)), None, "{text}");
        }
    }

    #[test]
    fn a_loss_is_below_zero() {
        assert_eq!(SignedSat::default().plus(Sat(9)).minus(Sat(11)), SignedSat(-2));
        assert_eq!(SignedSat(-2).minus(Sat(u64::MAX)), SignedSat(i64::MIN));
        assert_eq!(SignedSat(-2).plus(Sat(u64::MAX)), SignedSat(i64::MAX));
    }
}
