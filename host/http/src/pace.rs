//! How fast a client reads and sends while it is waited for.

use crate::limits;
use std::time::Duration;
use tokio::time::Instant;

/// How far a client is behind one that takes [`limits::SLOWEST_BYTE`] for each byte. The time counts in
/// which something waits for it to read, or it has yet to send something, and no other: not that of a
/// stream which is silent. It is never ahead: who was fast before is not waited for longer.
#[derive(Default)]
pub(crate) struct Pace {
    behind: Duration,
    waited_since: Option<Instant>,
}

impl Pace {
    /// It is waited for; since when, with all that it is behind from before.
    pub(crate) fn wait(&mut self) -> Instant {
        let since = *self.waited_since.get_or_insert_with(Instant::now);
        since.checked_sub(self.behind).unwrap_or(since)
    }

    /// It has taken or sent so many bytes, and is not waited for; how far it is behind.
    pub(crate) fn advance(&mut self, bytes: usize) -> Duration {
        let waited = self.waited_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let due = self.behind.saturating_add(waited);
        self.behind = due.saturating_sub(limits::SLOWEST_BYTE.saturating_mul(bytes));
        self.behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_behind_by_the_time_that_its_bytes_do_not_pay_for() {
        let mut pace = Pace::default();
        for (waited, bytes, behind) in
            [(3_000, 1_000, 2_000), (500, 0, 2_500), (0, 500, 2_000), (1_000, 9_000, 0), (1, 0, 1)]
        {
            pace.wait();
            advance(Duration::from_millis(waited)).await;
            assert_eq!(pace.advance(bytes), Duration::from_millis(behind), "{waited}, {bytes}");
            // Nothing waits for it meanwhile.
            advance(Duration::from_secs(60)).await;
            let mut waited_for = Pace { waited_since: None, ..pace };
            assert_eq!(waited_for.wait().elapsed(), Duration::from_millis(behind));
        }
    }
}
