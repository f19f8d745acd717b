//! How many bytes something holds in all, as [`keyed_limit`](crate::keyed_limit) counts how many
//! there are: what waits in memory differs in size by a factor of a hundred.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes.
pub(crate) struct ByteBudget(Arc<Semaphore>);

/// Some of them, until it is dropped.
pub(crate) struct ReservedBytes {
    _permit: OwnedSemaphorePermit,
}

impl ByteBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// None if so many are not left.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<ReservedBytes> {
        let bytes = u32::try_from(bytes).ok()?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes).ok()?;
        Some(ReservedBytes { _permit: permit })
    }

    /// How many are left.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.0.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_not_reserved_twice() {
        let budget = ByteBudget::new(10);
        let (a, b) = (budget.try_reserve(6), budget.try_reserve(4));
        assert!(a.is_some() && b.is_some() && budget.try_reserve(1).is_none());
        assert!(budget.try_reserve(0).is_some());
        drop(a);
        assert_eq!(budget.left(), 6);
        assert!(budget.try_reserve(7).is_none() && budget.try_reserve(6).is_some());
        assert!(budget.try_reserve(usize::MAX).is_none());
    }
}
