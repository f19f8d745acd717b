//! How often somebody may come.

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often keys that have their whole allowance are looked for when there are too many.
const FORGET: Duration = Duration::from_secs(1);

/// A rate for each key.
pub(crate) struct Rates<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    most: usize,
    forgot: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// So many a second, and so many at once, for so many keys at the most.
    pub(crate) fn new([a_second, at_once]: [u32; 2], most: usize) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(a_second)).allow_burst(at_least_one(at_once));
        Self { limiter: RateLimiter::keyed(quota), most, forgot: Mutex::new(Instant::now()) }
    }

    /// Counts one, unless it comes too soon, or too many others are counted already.
    pub(crate) fn allows(&self, key: &K) -> bool {
        if self.limiter.len() >= self.most {
            self.forget();
            if self.limiter.len() >= self.most {
                return false;
            }
        }
        self.limiter.check_key(key).is_ok()
    }

    /// Looks at every key, so not each time.
    fn forget(&self) {
        let mut forgot = self.forgot.lock().unwrap_or_else(PoisonError::into_inner);
        if forgot.elapsed() >= FORGET {
            self.limiter.retain_recent();
            *forgot = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let rates = Rates::new([1, 3], 8);
        let allowed = (0..10).filter(|_| rates.allows(&"a")).count();
        assert!((3..=4).contains(&allowed), "{allowed}");
        assert!(rates.allows(&"b"));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let rates = Rates::new([1, 3], 8);
        assert!((0..8).all(|key| rates.allows(&key)));
        assert!(!rates.allows(&8));
    }
}
