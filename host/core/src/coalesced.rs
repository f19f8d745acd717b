//! One read for all who ask before it begins: a crowd costs a database few of them.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

type Read<T> = Arc<OnceCell<T>>;

/// Reads of the same, one after the other. Nobody gets what was read before they asked, nor waits for
/// more than the read that runs and their own.
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
    /// What is read from now on. If who reads stops waiting, the next of those who ask reads.
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
        asked: AtomicU32,
        reads: AtomicU32,
        begun: Notify,
        may_end: Notify,
    }

    impl Source {
        /// Asks in a task of its own, and returns when it has.
        async fn ask(self: &Arc<Self>) -> JoinHandle<u32> {
            let before = self.asked.load(Ordering::Relaxed);
            let source = Arc::clone(self);
            let asking = tokio::spawn(async move {
                source.asked.fetch_add(1, Ordering::Relaxed);
                source.coalesced.read(|| source.next()).await
            });
            while self.asked.load(Ordering::Relaxed) == before {
                yield_now().await;
            }
            asking
        }

        async fn next(&self) -> u32 {
            let number = self.reads.fetch_add(1, Ordering::Relaxed);
            self.begun.notify_one();
            self.may_end.notified().await;
            number
        }
    }

    #[tokio::test]
    async fn all_who_ask_while_one_reads_share_the_next_read() {
        let source = Arc::new(Source::default());
        let first = source.ask().await;
        source.begun.notified().await;
        let mut crowd = Vec::new();
        for _ in 0..100 {
            crowd.push(source.ask().await);
        }
        source.may_end.notify_one();
        assert_eq!(first.await.unwrap(), 0);
        source.begun.notified().await;
        source.may_end.notify_one();
        for asking in crowd {
            assert_eq!(asking.await.unwrap(), 1, "what was read before they asked");
        }
    }

    #[tokio::test]
    async fn another_one_reads_when_the_first_stops_waiting() {
        let source = Arc::new(Source::default());
        let first = source.ask().await;
        source.begun.notified().await;
        let second = source.ask().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        source.begun.notified().await;
        source.may_end.notify_one();
        assert_eq!(second.await.unwrap(), 1);
    }
}
