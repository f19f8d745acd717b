//! One read for all who want it before it begins: a crowd costs a database few of them.

use crate::limits;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::time::timeout;

type Answer<T> = watch::Receiver<Option<T>>;

/// Reads of the same, one after the other. Nobody gets what was read before they wanted it, nor waits
/// for more than the read that runs and their own.
pub(crate) struct Coalesced<T>(Arc<Reads<T>>);

struct Reads<T> {
    /// Of the read that has not begun.
    next: Mutex<Option<Answer<T>>>,
    running: tokio::sync::Mutex<()>,
}

impl<T> Default for Coalesced<T> {
    fn default() -> Self {
        Self(Arc::new(Reads { next: Mutex::default(), running: tokio::sync::Mutex::default() }))
    }
}

impl<T: Clone + Send + Sync + 'static> Coalesced<T> {
    /// What is read from now on, by a task of its own: whoever stops waiting, or is not polled, keeps
    /// nobody from it. None if it takes too long, that task has panicked, or the runtime ends.
    pub(crate) async fn read<F>(&self, read: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut answer = self.join(read);
        answer.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn join<F>(&self, read: impl FnOnce() -> F) -> Answer<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = &*next {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        *next = Some(answer.clone());
        let (reads, reading) = (Arc::clone(&self.0), read());
        tokio::spawn(async move {
            let _running = reads.running.lock().await;
            *reads.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if let Ok(read) = timeout(limits::SHARED_READ, reading).await {
                sender.send_replace(Some(read));
            }
        });
        answer
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
        async fn spawn_read(self: &Arc<Self>) -> JoinHandle<Option<u32>> {
            let before = self.wanted.load(Ordering::Relaxed);
            let source = Arc::clone(self);
            let reading = tokio::spawn(async move {
                source.wanted.fetch_add(1, Ordering::Relaxed);
                let next = Arc::clone(&source);
                source.coalesced.read(|| async move { next.next().await }).await
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
        assert_eq!(first.await.unwrap(), Some(0));
        source.begun.notified().await;
        source.may_end.notify_one();
        for reading in crowd {
            assert_eq!(reading.await.unwrap(), Some(1), "what was read before they came");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_never_ends_is_given_up() {
        let source = Arc::new(Source::default());
        let [stuck, next] = [source.spawn_read().await, {
            source.begun.notified().await;
            source.spawn_read().await
        }];
        assert_eq!(stuck.await.unwrap(), None);
        source.may_end.notify_one();
        assert_eq!(next.await.unwrap(), Some(1));
    }

    #[tokio::test]
    async fn whoever_stops_waiting_keeps_nobody_from_the_same_read_and_the_next() {
        let source = Arc::new(Source::default());
        let first = source.spawn_read().await;
        source.begun.notified().await;
        let same = [source.spawn_read().await, source.spawn_read().await];
        let [leaves, stays] = same;
        for gone in [first, leaves] {
            gone.abort();
            assert!(gone.await.unwrap_err().is_cancelled());
        }
        source.may_end.notify_one();
        source.begun.notified().await;
        source.may_end.notify_one();
        assert_eq!(stays.await.unwrap(), Some(1));
    }
}
