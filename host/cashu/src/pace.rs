//! When requests to a mint start. Mints limit how many a client makes, and a busy provider is one
//! client: their starts are spaced. The first few after a pause are not, so that no order waits for
//! its own last request.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Between the starts of two requests, while there are always more.
const INTERVAL: Duration = Duration::from_millis(10);
/// Requests that start at once after a pause: those of two orders that meet a mint whose keysets are
/// not known yet (keysets, keys, states, swap).
const BURST: u32 = 8;
/// By how much the last one of these starts before its time.
const EARLY: Duration = INTERVAL.saturating_mul(BURST.saturating_sub(1));

/// When the next request starts if none starts before its time; none: no request was made yet.
#[derive(Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Waits until one more request may start. Does not yield if that is now: a timer would take up
    /// to two milliseconds even then.
    pub(crate) async fn wait(&self) {
        let now = Instant::now();
        let start = self.claim(now);
        if start > now {
            sleep_until(start).await;
        }
    }

    /// When one more request may start; further ones may later.
    fn claim(&self, now: Instant) -> Instant {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spaced = (*next).map_or(now, |next| next.max(now));
        *next = spaced.checked_add(INTERVAL);
        spaced.checked_sub(EARLY).map_or(now, |start| start.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// After how many milliseconds so many requests start that come at this time.
    fn starts(pace: &Pace, now: Instant, requests: u32) -> Vec<u128> {
        let after = |_| pace.claim(now).saturating_duration_since(now).as_millis();
        (0..requests).map(after).collect()
    }

    #[test]
    fn a_few_requests_start_at_once_and_the_rest_one_after_the_other() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(starts(&pace, now, BURST), [0; 8]);
        assert_eq!(starts(&pace, now, 3), [10, 20, 30]);
        // Three intervals after the last one has started.
        let later = now + 6 * INTERVAL;
        assert_eq!(starts(&pace, later, 5), [0, 0, 0, 10, 20]);
        // After a long pause there are no more than after a short one.
        let much_later = later + Duration::from_secs(3_600);
        assert_eq!(starts(&pace, much_later, BURST + 2), [0, 0, 0, 0, 0, 0, 0, 0, 10, 20]);
    }

    #[tokio::test]
    async fn a_request_that_may_start_at_once_waits_for_no_timer() {
        let pace = Pace::default();
        for _ in 0..BURST {
            assert!(pace.wait().now_or_never().is_some());
        }
    }
}
