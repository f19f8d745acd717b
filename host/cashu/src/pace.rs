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

fn quota() -> Quota {
    let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(A_SECOND)).allow_burst(at_least_one(BURST))
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
