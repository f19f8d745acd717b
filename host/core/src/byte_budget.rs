//! A limit of bytes, where [`keyed_limit`](crate::keyed_limit) limits numbers: orders that wait in
//! memory differ in size by a factor of a hundred.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes that may be reserved in all.
pub(crate) struct ByteBudget(Arc<Semaphore>);

/// Reserved bytes, until this is dropped.
pub(crate) struct ReservedBytes {
    _permit: OwnedSemaphorePermit,
}

impl ByteBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// None if fewer bytes are left.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<ReservedBytes> {
        let bytes = u32::try_from(bytes).ok()?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes).ok()?;
        Some(ReservedBytes { _permit: permit })
    }

    /// The bytes that are not reserved.
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
