//! One read for all who want it before it begins: a crowd costs a database few of them.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

type Read<T> = Arc<OnceCell<T>>;

/// Reads of the same, one after the other. Nobody gets what was read before they wanted it,
/// nor waits for more than the read that runs and their own.
pub(crate) struct Coalesced<T> {
    /// The one that has not begun.
    next: Mutex<Read<T>>,
    running: tokio::sync::Mutex<()>,
}

impl<T> Default for Coalesced<T> {
    fn default() -> Self {
        Self { next: Mutex::default(), running: tokio::sync::Mutex::default() }
    }
}

impl<T: Clone> Coalesced<T> {
    /// What is read from now on. If who reads stops waiting, another one reads.
    pub(crate) async fn read<F: Future<Output = T>>(&self, read: impl FnOnce() -> F) -> T {
        let next = Arc::clone(&self.next.lock().unwrap_or_else(PoisonError::into_inner));
        let reading = next.get_or_init(async || {
            let _running = self.running.lock().await;
            *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
            read().await
        });
        reading.await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;
    use tokio::task::{JoinHandle, yield_now};

    /// Each read of it waits until it may end.
    #[derive(Default)]
    struct Source {
        coalesced: Coalesced<u32>,
        wanted: AtomicU32,
        reads: AtomicU32,
        begun: Notify,
        may_end: Notify,
    }

    impl Source {
        /// Reads in a task of its own, and returns when that has begun to wait.
        async fn spawn_read(self: &Arc<Self>) -> JoinHandle<u32> {
            let before = self.wanted.load(Ordering::Relaxed);
            let source = Arc::clone(self);
            let reading = tokio::spawn(async move {
                source.wanted.fetch_add(1, Ordering::Relaxed);
                source.coalesced.read(|| source.next()).await
            });
            while self.wanted.load(Ordering::Relaxed) == before {
                yield_now().await;
            }
            reading
        }

        async fn next(&self) -> u32 {
            let number = self.reads.fetch_add(1, Ordering::Relaxed);
            self.begun.notify_one();
            self.may_end.notified().await;
            number
        }
    }

    #[tokio::test]
    async fn all_who_come_while_one_reads_share_the_next_read() {
        let source = Arc::new(Source::default());
        let first = source.spawn_read().await;
        source.begun.notified().await;
        let mut crowd = Vec::new();
        for _ in 0..100 {
            crowd.push(source.spawn_read().await);
        }
        source.may_end.notify_one();
        assert_eq!(first.await.unwrap(), 0);
        source.begun.notified().await;
        source.may_end.notify_one();
        for reading in crowd {
            assert_eq!(reading.await.unwrap(), 1, "what was read before they came");
        }
    }

    #[tokio::test]
    async fn another_one_reads_when_the_first_stops_waiting() {
        let source = Arc::new(Source::default());
        let first = source.spawn_read().await;
        source.begun.notified().await;
        let second = source.spawn_read().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        source.begun.notified().await;
        source.may_end.notify_one();
        assert_eq!(second.await.unwrap(), 1);
    }
}
