//! Which failures of a watch are logged: while the API server is away, each watch fails once a second.

use kube::runtime::watcher::Error;
use paygress_core::error_chain;
use std::time::{Duration, Instant};

/// How long the same failure is not logged again.
const PAUSE: Duration = Duration::from_secs(60);

/// The failure of a watch that was logged last, and when.
#[derive(Default)]
pub(crate) struct WatchErrors(Option<(String, Instant)>);

impl WatchErrors {
    /// The text of a failure that is to be logged now.
    pub(crate) fn admit(&mut self, error: &Error, now: Instant) -> Option<String> {
        let text = error_chain(error);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < PAUSE;
        if self.0.as_ref().is_some_and(|(last, at)| *last == text && is_recent(at)) {
            return None;
        }
        self.0 = Some((text.clone(), now));
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_logged_once_a_minute_and_another_one_at_once() {
        let away = Error::NoResourceVersion;
        let other = Error::WatchFailed(kube::Error::LinesCodecMaxLineLengthExceeded);
        let start = Instant::now();
        let after = |seconds| start.checked_add(Duration::from_secs(seconds)).unwrap();
        let mut errors = WatchErrors::default();
        assert!(errors.admit(&away, start).is_some_and(|text| text.contains("resourceVersion")));
        assert_eq!(errors.admit(&away, after(59)), None);
        assert!(errors.admit(&away, after(60)).is_some());
        assert!(errors.admit(&other, after(60)).is_some());
    }
}
