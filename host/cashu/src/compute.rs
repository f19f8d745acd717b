//! Elliptic-curve operations over many proofs and whatever else blocks, on threads of their own: a
//! token of 500 proofs takes tens of milliseconds, which an async thread must not be held for. What
//! takes no longer than waking another thread is done where it is.

use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use tokio::sync::Semaphore;

/// As many computations as there are CPUs; further callers wait. Otherwise tokens sent by untrusted
/// clients could fill the runtime's blocking threads, which the database needs.
static PERMITS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))));

/// A text of this length has at most some twenty proofs, and the token of an order mostly fewer than
/// five.
const SHORT_TEXT: usize = 1 << 10;
/// Signing for so many proofs, or reading so many points, takes less than a millisecond.
const FEW_PROOFS: usize = 8;

/// How much work there is: reading a token, or signing for its proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Less than a millisecond.
    Small,
    Large,
}

impl Effort {
    pub(crate) fn of_text(text: &str) -> Self {
        if text.len() <= SHORT_TEXT { Self::Small } else { Self::Large }
    }

    pub(crate) fn of_proofs(proofs: usize) -> Self {
        if proofs <= FEW_PROOFS { Self::Small } else { Self::Large }
    }
}

/// Runs `work` on a blocking thread if it is large, and else on this one.
pub(crate) async fn compute_sized<T: Send + 'static>(
    effort: Effort,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match effort {
        Effort::Small => work(),
        Effort::Large => compute(work).await,
    }
}

/// Runs `work` on a blocking thread.
pub(crate) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    compute_with(&PERMITS, work).await
}

/// How much one mint's wallet may compute at a time: half of all, so that what its restores and its
/// tokens need never stops the others'.
pub(crate) struct ComputeShare(Arc<Semaphore>);

impl ComputeShare {
    pub(crate) fn half() -> Self {
        let half = available_parallelism().map_or(1, usize::from).div_euclid(2);
        Self(Arc::new(Semaphore::new(half.max(1))))
    }

    /// As [`compute_sized`].
    pub(crate) async fn compute_sized<T: Send + 'static>(
        &self,
        effort: Effort,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match effort {
            Effort::Small => work(),
            Effort::Large => self.compute(work).await,
        }
    }

    /// As [`compute`].
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.compute_with(&PERMITS, work).await
    }

    async fn compute_with<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let share = Arc::clone(&self.0).acquire_owned().await.ok();
        let shared_work = move || {
            let _share = share;
            work()
        };
        compute_with(permits, shared_work).await
    }
}

async fn compute_with<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    // The semaphore is never closed.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    let permitted_work = move || {
        // Work that has begun goes on when its caller is dropped, and so keeps its permit.
        let _permit = permit;
        work()
    };
    match tokio::task::spawn_blocking(permitted_work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and drops this task too.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn work_runs_on_another_thread_than_the_tasks() {
        let here = std::thread::current().id();
        assert_ne!(compute(|| std::thread::current().id()).await, here);
    }

    #[tokio::test]
    async fn small_work_wakes_no_other_thread() {
        let here = std::thread::current().id();
        let share = ComputeShare::half();
        for (effort, is_here) in [
            (Effort::of_text(&"a".repeat(SHORT_TEXT)), true),
            (Effort::of_text(&"a".repeat(SHORT_TEXT + 1)), false),
            (Effort::of_proofs(FEW_PROOFS), true),
            (Effort::of_proofs(FEW_PROOFS + 1), false),
        ] {
            let by_all = compute_sized(effort, || std::thread::current().id()).await;
            let of_share = share.compute_sized(effort, || std::thread::current().id()).await;
            assert_eq!((by_all == here, of_share == here), (is_here, is_here), "{effort:?}");
        }
    }

    #[tokio::test]
    #[should_panic(expected = "in the work")]
    async fn a_panic_reaches_the_caller() {
        compute(|| panic!("in the work")).await
    }

    #[tokio::test]
    async fn work_keeps_its_permit_when_its_caller_is_dropped() {
        let permits = Arc::new(Semaphore::new(1));
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (finish, may_finish) = std::sync::mpsc::channel::<()>();
        let caller = tokio::spawn({
            let permits = Arc::clone(&permits);
            async move {
                let work = move || {
                    started.send(()).unwrap();
                    may_finish.recv().unwrap();
                };
                compute_with(&permits, work).await;
            }
        });
        has_started.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        let early = compute_with(&permits, || "too early");
        let early = tokio::time::timeout(Duration::from_millis(50), early).await;
        assert!(early.is_err(), "{early:?}");
        finish.send(()).unwrap();
        assert_eq!(compute_with(&permits, || "in time").await, "in time");
    }

    #[tokio::test]
    async fn whoever_uses_up_its_share_leaves_the_other_half() {
        let permits = Arc::new(Semaphore::new(2));
        let busy = Arc::new(ComputeShare(Arc::new(Semaphore::new(1))));
        let (started, has_started) = std::sync::mpsc::channel();
        let (finish, may_finish) = std::sync::mpsc::channel::<()>();
        let may_finish = Arc::new(std::sync::Mutex::new(may_finish));
        let callers: Vec<_> = (0..20)
            .map(|_| {
                let (permits, busy) = (Arc::clone(&permits), Arc::clone(&busy));
                let (started, may_finish) = (started.clone(), Arc::clone(&may_finish));
                tokio::spawn(async move {
                    let work = move || {
                        started.send(()).unwrap();
                        may_finish.lock().unwrap().recv().unwrap();
                    };
                    busy.compute_with(&permits, work).await;
                })
            })
            .collect();
        tokio::task::spawn_blocking(move || has_started.recv().map(|()| has_started))
            .await
            .unwrap()
            .unwrap();
        let other = ComputeShare(Arc::new(Semaphore::new(1)));
        assert_eq!(other.compute_with(&permits, || "goes on").await, "goes on");
        for caller in callers {
            finish.send(()).unwrap();
            drop(caller);
        }
    }
}
