//! How much may be under way in each session over iroh: what waits in the gateway's memory is bounded
//! in all of them together, and no session is kept out.

use crate::limits;
use paygress_core::keyed_limit::share;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes each way that sessions share.
pub(crate) struct WindowPermits(Arc<Semaphore>);

/// A session's, until it is dropped.
pub(crate) struct WindowPermit {
    pub(crate) bytes: u32,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Default for WindowPermits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::QUIC_WINDOWS)))
    }
}

impl WindowPermits {
    /// A [share] of what there is. Where nothing is left, the least that a session has comes on top.
    pub(crate) fn acquire(&self) -> WindowPermit {
        let most = usize::try_from(limits::QUIC_WINDOW).unwrap_or(usize::MAX);
        let share = share(most, self.0.available_permits(), limits::QUIC_WINDOWS);
        let bytes = u32::try_from(share).unwrap_or(u32::MAX).max(limits::LEAST_QUIC_WINDOW);
        match Arc::clone(&self.0).try_acquire_many_owned(bytes) {
            Ok(of_all) => WindowPermit { bytes, _of_all: Some(of_all) },
            Err(_) => WindowPermit { bytes: limits::LEAST_QUIC_WINDOW, _of_all: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as docs/operating.md says.
    #[test]
    fn sessions_have_whole_windows_while_they_are_few_and_a_bounded_sum_however_many_they_are() {
        let permits = WindowPermits::default();
        let count = usize::try_from(limits::SESSIONS_OVER_IROH).unwrap();
        let all: Vec<WindowPermit> = (0..count).map(|_| permits.acquire()).collect();
        let whole = all.iter().take_while(|permit| permit.bytes == limits::QUIC_WINDOW).count();
        assert_eq!(whole, 68);
        assert_eq!([all[199].bytes, all[599].bytes], [138_888, limits::LEAST_QUIC_WINDOW]);
        assert!(all.iter().all(|permit| permit.bytes >= limits::LEAST_QUIC_WINDOW));
        let bytes: u64 = all.iter().map(|permit| u64::from(permit.bytes)).sum();
        assert!(bytes < 250 << 20, "{bytes}");
        drop(all);
        assert_eq!(permits.acquire().bytes, limits::QUIC_WINDOW, "what has ended counts no more");
    }
}
