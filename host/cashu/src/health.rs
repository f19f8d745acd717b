//! How a mint is, and when to leave it alone.

use crate::client::MintError;
use cdk::mint_url::MintUrl;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which a mint is left alone for a while.
const TIMEOUT: u32 = 3;
/// The first such while…
const FIRST: Duration = Duration::from_secs(1);
/// …doubling up to this one.
const LONGEST: Duration = Duration::from_secs(30);

/// What is known of a mint.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Requests that failed since the last one that did not.
    pub failures: u32,
    /// Why the last one failed.
    pub why: Option<String>,
    /// When it is asked again, while it is left alone.
    pub until: Option<Instant>,
    /// How long its last answer took.
    pub took: Option<Duration>,
}

#[derive(Default)]
pub(crate) struct Health(Mutex<State>);

impl Health {
    /// Whether the mint may be asked; why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            Some(until) if until > Instant::now() => Err(format!(
                "left alone after {} failures: {}",
                state.failures,
                state.why.as_deref().unwrap_or_default()
            )),
            Some(_) => {
                // One asks; the others wait for what it finds out.
                state.until = Instant::now().checked_add(pause(state.failures));
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn note(&self, mint: &MintUrl, took: Duration, fault: Option<&MintError>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            None => {
                if state.until.is_some() {
                    tracing::info!(%mint, "the mint is back");
                }
                *state = State { took: Some(took), ..State::default() };
            }
            Some(fault) => {
                state.failures = state.failures.saturating_add(1);
                state.why = Some(fault.to_string());
                if state.failures >= TIMEOUT {
                    if state.failures == TIMEOUT {
                        tracing::warn!(%mint, %fault, "the mint is away; its orders wait");
                    }
                    state.until = Instant::now().checked_add(pause(state.failures));
                }
            }
        }
    }

    pub(crate) fn state(&self) -> State {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(TIMEOUT).min(16);
    FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST)
}
