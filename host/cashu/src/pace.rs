//! When requests to a mint start. Mints limit how many a client makes, and a busy provider is one
//! client: their starts are spaced. The first few after a pause are not, so that no order waits for
//! its own last request.

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use tokio::sync::Mutex;

/// Requests a second, while there are always more.
const A_SECOND: u32 = 100;
/// Requests that start at once after a pause: those of two orders that meet a mint whose keysets are
/// not known yet (keysets, keys, states, swap).
const BURST: u32 = 8;

/// Lists of keysets that are requested again at once, since a token may be of a newer keyset: anybody
/// can invent one. Several rotations in a row…
const EARLY_KEYSETS: u32 = 4;
/// …and how many more there may be in a minute.
const EARLY_KEYSETS_A_MINUTE: u32 = 12;

fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

fn quota() -> Quota {
    Quota::per_second(at_least_one(A_SECOND)).allow_burst(at_least_one(BURST))
}

/// How often a list of keysets is requested before the last one is old enough.
pub(crate) struct EarlyKeysets(DefaultDirectRateLimiter);

impl Default for EarlyKeysets {
    fn default() -> Self {
        let quota = Quota::per_minute(at_least_one(EARLY_KEYSETS_A_MINUTE));
        Self(RateLimiter::direct(quota.allow_burst(at_least_one(EARLY_KEYSETS))))
    }
}

impl EarlyKeysets {
    /// Whether it may be requested now.
    pub(crate) fn may_request(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// Locked by the request that starts next: they start in the order in which they came.
pub(crate) struct Pace(Mutex<DefaultDirectRateLimiter>);

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(RateLimiter::direct(quota())))
    }
}

impl Pace {
    /// Waits until one more request may start. Does not yield if that is now: a timer would take up
    /// to two milliseconds even then.
    pub(crate) async fn wait(&self) {
        let limiter = self.0.lock().await;
        while let Err(early) = limiter.check() {
            tokio::time::sleep(early.wait_time_from(limiter.clock().now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use governor::clock::FakeRelativeClock;
    use std::time::Duration;

    #[test]
    fn a_few_requests_start_at_once_and_the_rest_one_after_the_other() {
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::direct_with_clock(quota(), clock.clone());
        // After how many milliseconds so many requests start that come now.
        let starts = |requests: u32| -> Vec<u128> {
            let mut waited = Duration::ZERO;
            let start = |_| {
                while let Err(early) = limiter.check() {
                    let pause = early.wait_time_from(clock.now());
                    clock.advance(pause);
                    waited += pause;
                }
                waited.as_millis()
            };
            (0..requests).map(start).collect()
        };
        assert_eq!(starts(BURST), [0; 8]);
        assert_eq!(starts(3), [10, 20, 30]);
        clock.advance(Duration::from_millis(30));
        assert_eq!(starts(5), [0, 0, 0, 10, 20]);
        // After a long pause there are no more than after a short one.
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(starts(BURST + 2), [0, 0, 0, 0, 0, 0, 0, 0, 10, 20]);
    }

    #[tokio::test]
    async fn a_request_that_may_start_at_once_waits_for_no_timer() {
        let pace = Pace::default();
        for _ in 0..BURST {
            assert!(pace.wait().now_or_never().is_some());
        }
    }

    /// It would lose what it had reserved.
    #[tokio::test]
    async fn a_request_that_is_given_up_while_it_waits_takes_no_place() {
        let pace = Pace::default();
        for _ in 0..BURST {
            pace.wait().await;
        }
        for _ in 0..1_000 {
            // Some may start meanwhile.
            let _ = pace.wait().now_or_never();
        }
        let next = tokio::time::timeout(Duration::from_secs(5), pace.wait()).await;
        assert!(next.is_ok(), "a thousand places are ten seconds");
    }
}
