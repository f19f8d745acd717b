//! A circuit breaker for each mint: one that fails repeatedly gets no requests for a while. One that
//! limits our requests (429) has not failed: then tokens that may be invented wait for the others.

use crate::error::{MintError, UnavailableReason};
use backon::ExponentialBackoff;
use cdk::mint_url::MintUrl;
use paygress_core::backoff::doubling;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Consecutive failures after which a mint is suspended.
const FAILURE_THRESHOLD: u32 = 3;
const MIN_SUSPENSION: Duration = Duration::from_secs(1);
const MAX_SUSPENSION: Duration = Duration::from_secs(30);
/// How long a mint that limits our requests is taken to want none, when it does not say so.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(5);

/// A mint's health, from the requests made so far.
#[derive(Clone, Debug, Default)]
pub struct MintHealth {
    /// Consecutive failures, up to now.
    pub failures: u32,
    pub last_error: Option<String>,
    /// Set while the mint is suspended.
    pub suspended_until: Option<Instant>,
    pub latency: Option<Duration>,
}

#[derive(Default)]
struct State {
    health: MintHealth,
    suspension: Duration,
    backoff: Option<ExponentialBackoff>,
}

impl State {
    fn suspend(&mut self) {
        self.health.suspended_until = Instant::now().checked_add(self.suspension);
    }

    fn lengthen_suspension(&mut self) {
        let backoff = self.backoff.get_or_insert_with(|| doubling(MIN_SUSPENSION, MAX_SUSPENSION));
        self.suspension = backoff.next().unwrap_or(MAX_SUSPENSION);
    }
}

#[derive(Default)]
pub(crate) struct CircuitBreaker(Mutex<State>);

impl CircuitBreaker {
    /// Whether a request may be made now.
    pub(crate) fn check(&self) -> Result<(), UnavailableReason> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.health.suspended_until {
            Some(until) if until > Instant::now() => Err(UnavailableReason::Suspended {
                failures: state.health.failures,
                last_error: state.health.last_error.clone().unwrap_or_default(),
            }),
            Some(_) => {
                // One caller probes the mint; the others fail until its result is known.
                state.suspend();
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn record_success(&self, mint: &MintUrl, latency: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.health.suspended_until.is_some() {
            tracing::info!(%mint, "mint is available again");
        }
        let health = MintHealth { latency: Some(latency), ..MintHealth::default() };
        *state = State { health, ..State::default() };
    }

    pub(crate) fn record_failure(&self, mint: &MintUrl, error: &MintError) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.health.failures = state.health.failures.saturating_add(1);
        state.health.last_error = Some(error.to_string());
        if state.health.failures < FAILURE_THRESHOLD {
            return;
        }
        if state.health.failures == FAILURE_THRESHOLD {
            tracing::warn!(%mint, %error, "mint is unavailable; its orders wait");
        }
        state.lengthen_suspension();
        state.suspend();
    }

    pub(crate) fn health(&self) -> MintHealth {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).health.clone()
    }
}

/// Until when tokens that may be invented wait for those that cannot.
#[derive(Default)]
pub(crate) struct RateLimit(Mutex<Option<Instant>>);

impl RateLimit {
    /// The mint has had too many requests. Twice as long as it wants to have none, so that the
    /// repeated requests of others are the first.
    pub(crate) fn record(&self, mint: &MintUrl, retry_after: Option<Duration>) {
        let pause = retry_after.unwrap_or(RATE_LIMIT_PAUSE).saturating_mul(2);
        if self.remaining().is_zero() {
            tracing::warn!(%mint, ?pause, "mint limits our requests; tokens without DLEQ proofs wait");
        }
        let until = Instant::now().checked_add(pause);
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = (*latest).max(until);
    }

    /// How long tokens that may be invented have to wait.
    pub(crate) fn remaining(&self) -> Duration {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn a_rate_limit_holds_for_twice_as_long_as_the_mint_says() {
        let (limit, mint) =
            (RateLimit::default(), MintUrl::from_str("https://mint.example").unwrap());
        assert_eq!(limit.remaining(), Duration::ZERO);
        let mut before = Duration::ZERO;
        // The latest end counts.
        for (retry_after, most) in [(Some(1), 2), (None, 10), (Some(1), 10), (Some(15), 30)] {
            limit.record(&mint, retry_after.map(Duration::from_secs));
            let remaining = limit.remaining();
            assert!(remaining <= Duration::from_secs(most), "{remaining:?}");
            assert!(remaining.saturating_add(Duration::from_secs(1)) > before, "{remaining:?}");
            before = Duration::from_secs(most);
        }
        assert!(limit.remaining() > Duration::from_secs(29));
    }

    #[test]
    fn a_mint_is_suspended_after_three_failures_and_for_a_bounded_time() {
        let (breaker, mint) =
            (CircuitBreaker::default(), MintUrl::from_str("https://mint.example").unwrap());
        let error = MintError::Unavailable(UnavailableReason::Closed);
        for _ in 1..FAILURE_THRESHOLD {
            breaker.record_failure(&mint, &error);
            assert!(breaker.check().is_ok());
        }
        for _ in 0..20 {
            breaker.record_failure(&mint, &error);
            assert!(matches!(breaker.check(), Err(UnavailableReason::Suspended { .. })));
            let until = breaker.health().suspended_until.unwrap();
            assert!(until.duration_since(Instant::now()) <= MAX_SUSPENSION);
        }
        breaker.record_success(&mint, Duration::ZERO);
        assert!(breaker.check().is_ok() && breaker.health().failures == 0);
    }
}
