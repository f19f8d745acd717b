//! Maintenance that is due after every so many events, such as deleting old rows: it keeps up with
//! any rate of events, and needs no timer.

use std::sync::atomic::{AtomicU32, Ordering};

/// Counts events of this process: the first is due, and every `n`th after it. A process that
/// restarts begins with one that is due.
pub struct EveryNth {
    n: u32,
    happened: AtomicU32,
}

impl EveryNth {
    #[must_use]
    pub const fn new(n: u32) -> Self {
        Self { n, happened: AtomicU32::new(0) }
    }

    /// Counts an event; whether the maintenance is due with it.
    pub fn is_due(&self) -> bool {
        self.happened.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_is_due() {
        let every = EveryNth::new(3);
        let due: Vec<bool> = (0..7).map(|_| every.is_due()).collect();
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
