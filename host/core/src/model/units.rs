//! Amounts, times and ids as types. No bare `u64` or `String` passes between crates.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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

impl Sat {
    /// This amount times `part / whole`, rounded down.
    #[must_use]
    pub fn share(self, part: Seconds, whole: Seconds) -> Self {
        let share = u128::from(self.0)
            .saturating_mul(u128::from(part.0.min(whole.0)))
            .checked_div(u128::from(whole.0));
        Self(share.and_then(|share| u64::try_from(share).ok()).unwrap_or(0))
    }

    /// This percentage of the amount, at most all of it, rounded down.
    #[must_use]
    pub fn percent(self, percent: u8) -> Self {
        self.share(Seconds(percent.into()), Seconds(100))
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

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(/** The id of an order: 16 lower-case hex digits. */ OrderId);
name!(/** The id of a lease: 10 characters of `a-z2-7`. */ LeaseId);
name!(/** The name of a lease's pod, as customers and Kubernetes see it: `ssh-pod-<lease>`. */ PodName);
name!(/** A customer: a Nostr public key (64 lower-case hex digits), or `bearer:` and the SHA-256 of an HTTP customer's bearer token. */ Customer);
name!(/** A mint's URL in its canonical form; two are the same mint only if they are equal. */ MintUrl);
name!(/** The public image of a proof's secret (NUT-00): 66 lower-case hex digits. */ ProofY);

impl OrderId {
    /// A new one, never used before.
    #[must_use]
    pub fn random() -> Self {
        Self(random_name(16, b"0123456789abcdef"))
    }
}

impl PodName {
    /// The lease of this pod; the empty id, which no lease has, if the name is not one of ours.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        LeaseId(self.0.strip_prefix("ssh-pod-").unwrap_or_default().to_owned())
    }
}

impl LeaseId {
    /// The lease that an order makes. It is derived, so that a resumed order finds the port that it
    /// had reserved. A pod's name is public: its 50 bits reveal nothing of the order's id.
    #[must_use]
    pub fn of(order: &OrderId) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let digest = Sha256::digest(format!("lease of order {order}"));
        let symbol =
            |byte: &u8| ALPHABET.get(usize::from(byte & 31)).copied().map_or('a', char::from);
        Self(digest.iter().take(10).map(symbol).collect())
    }

    /// The name of its pod.
    #[must_use]
    pub fn pod_name(&self) -> PodName {
        PodName(format!("ssh-pod-{}", self.0))
    }
}

/// `length` characters drawn evenly from an alphabet of at most 256, by the operating system's
/// generator.
pub(crate) fn random_name(length: usize, alphabet: &[u8]) -> String {
    let mut name = String::with_capacity(length);
    // Bytes past the last whole multiple of the alphabet's size would favour its first characters.
    let fair =
        256_usize.checked_rem(alphabet.len()).map_or(0, |rest| 256_usize.saturating_sub(rest));
    while name.len() < length {
        let mut byte = [0_u8];
        // The kernel's generator does not fail once it is seeded; without it no name is safe, so
        // wait for it.
        if getrandom::fill(&mut byte).is_err() {
            continue;
        }
        let index = usize::from(byte[0]);
        if let Some(symbol) = (index < fair)
            .then(|| index.checked_rem(alphabet.len()))
            .flatten()
            .and_then(|i| alphabet.get(i))
        {
            name.push(char::from(*symbol));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_their_alphabet_and_differ() {
        let (one, other) = (OrderId::random(), OrderId::random());
        assert_ne!(one, other);
        let (a, b) = (LeaseId::of(&one), LeaseId::of(&other));
        assert!(a != b && a == LeaseId::of(&one));
        assert!(
            a.0.len() == 10 && a.0.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        );
        assert_eq!(a.pod_name().0.len(), "ssh-pod-".len() + 10);
    }

    #[test]
    fn times_read_as_rfc3339_and_never_overflow() {
        assert_eq!(UnixTime(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(UnixTime(u64::MAX).after(Seconds(1)), UnixTime(u64::MAX));
        assert!(UnixTime(u64::MAX).rfc3339().starts_with('@'));
        assert_eq!(UnixTime(5).since(UnixTime(9)), Seconds(0));
    }
}
