//! Which failures are logged: while a database or an API server is away, everything that needs it
//! fails, and by the same cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same failure is not logged again.
const PAUSE: Duration = Duration::from_secs(60);
/// Different ones that are logged meanwhile: outsiders cause some, and texts of servers vary.
const TEXTS: usize = 4;

/// The failures of one thing that were logged last, and when.
#[derive(Debug, Default)]
pub struct LoggedFailures(Mutex<Vec<(String, Instant)>>);

impl LoggedFailures {
    /// The text of a failure, if it is to be logged now.
    #[must_use]
    pub fn admit(&self, text: impl Into<String>) -> Option<String> {
        self.admit_at(text.into(), Instant::now())
    }

    fn admit_at(&self, text: String, now: Instant) -> Option<String> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|(_, at)| now.saturating_duration_since(*at) < PAUSE);
        if logged.len() >= TEXTS || logged.iter().any(|(known, _)| *known == text) {
            return None;
        }
        logged.push((text.clone(), now));
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_logged_once_a_minute_and_a_few_others_at_once() {
        let start = Instant::now();
        let after = |seconds| start.checked_add(Duration::from_secs(seconds)).unwrap();
        let failures = LoggedFailures::default();
        let is_logged = |text: &str, now| failures.admit_at(text.to_owned(), now).is_some();
        assert_eq!(failures.admit_at("away".to_owned(), start).as_deref(), Some("away"));
        assert!(!is_logged("away", after(59)));
        assert!(is_logged("away", after(60)));
        assert!(is_logged("refused", after(60)));
        let others = (0..100).filter(|n| is_logged(&format!("other {n}"), after(61))).count();
        assert_eq!(Some(others), TEXTS.checked_sub(2));
        assert!(is_logged("away", after(120)) && !is_logged("other 0", after(120)));
    }
}
