//! How long a subscription stays closed that a relay has closed.

use super::relay_delays::{FirstTime, RelayDelays};
use std::collections::HashMap;
use std::time::Duration;

/// Before a closed subscription is opened again; doubled each time that it is closed again…
const REOPEN_FIRST: Duration = Duration::from_secs(10);
/// …up to this one, jitter included.
const REOPEN_LONGEST: Duration = Duration::from_secs(600);
/// The delays begin anew for a subscription that was open for so long. Longer than the longest
/// delay. What the relay has sent meanwhile does not count: sending its stored events costs it
/// nothing.
const REOPEN_FORGIVEN: Duration = Duration::from_secs(1_200);

/// How long subscriptions are to stay closed that their relays close now.
pub(super) fn reopenings() -> RelayDelays {
    RelayDelays {
        first: REOPEN_FIRST,
        longest: REOPEN_LONGEST,
        forgiven: REOPEN_FORGIVEN,
        first_time: FirstTime::Delayed,
        latest: HashMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nostr_sdk::RelayUrl;
    use std::time::Instant;

    const DAY: Duration = Duration::from_secs(86_400);

    /// The delays within a day of a relay that closes the subscription after it was open for so
    /// long.
    fn delays_of_a_day(open: Duration) -> Vec<Duration> {
        let relay = RelayUrl::parse("wss://a.example").unwrap();
        let (mut reopenings, start) = (super::reopenings(), Instant::now());
        let (mut elapsed, mut delays) = (Duration::ZERO, Vec::new());
        while elapsed < DAY {
            let now = start.checked_add(elapsed).unwrap();
            let delay = reopenings.delay(&relay, now);
            elapsed = elapsed.saturating_add(delay).saturating_add(open);
            delays.push(delay);
        }
        delays
    }

    /// Whether it has sent all that it had stored before that makes no difference.
    #[test]
    fn a_relay_that_closes_the_inbox_at_once_is_opened_at_longer_and_longer_intervals() {
        let delays = delays_of_a_day(Duration::ZERO);
        println!("closed at once for a day: opened again {} times", delays.len());
        for (delay, seconds) in delays.iter().zip([10, 20, 40, 80, 160, 300, 300]) {
            let least = Duration::from_secs(seconds);
            assert!((least..=least * 2).contains(delay), "{delay:?} is not from {least:?}");
        }
        assert!(delays.iter().all(|delay| *delay <= REOPEN_LONGEST), "{delays:?}");
        // Every ten seconds would be 8,640.
        assert!((144..=294).contains(&delays.len()), "{}", delays.len());
    }

    #[test]
    fn the_delays_have_jitter() {
        let [a, b] = [(); 2].map(|()| delays_of_a_day(Duration::ZERO));
        assert_ne!(a, b, "two relays are not opened again in step");
    }

    #[test]
    fn a_subscription_that_was_open_for_a_while_is_opened_again_soon() {
        let delays = delays_of_a_day(REOPEN_FORGIVEN);
        println!("closed after {REOPEN_FORGIVEN:?} for a day: opened again {} times", delays.len());
        assert!(delays.iter().all(|delay| *delay <= REOPEN_FIRST * 2), "{delays:?}");
        let delays = delays_of_a_day(REOPEN_FORGIVEN - Duration::from_secs(1));
        assert!(delays[6..].iter().all(|delay| *delay >= REOPEN_LONGEST / 2), "{delays:?}");
    }
}
