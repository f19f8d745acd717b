//! What is done from time to time, by how often something else has happened: nobody waits for a
//! timer, however fast it is.

use std::sync::atomic::{AtomicU32, Ordering};

/// Due at the first of so many, and at the first of the next as many. Whoever restarts often has it
/// as often.
pub struct EveryNth {
    n: u32,
    happened: AtomicU32,
}

impl EveryNth {
    #[must_use]
    pub const fn new(n: u32) -> Self {
        Self { n, happened: AtomicU32::new(0) }
    }

    /// It has happened once more. Whether what is done from time to time is due.
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
