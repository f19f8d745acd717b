//! Elliptic-curve operations over many proofs, on threads of their own: a token of 500 proofs takes
//! tens of milliseconds, which an async thread must not be held for.

use std::sync::LazyLock;
use std::thread::available_parallelism;
use tokio::sync::Semaphore;

/// As many computations as there are CPUs; further callers wait. Otherwise tokens sent by untrusted
/// clients could fill the runtime's blocking threads, which the database needs.
static PERMITS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, usize::from)));

/// Runs `work` on a blocking thread.
pub(crate) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // The semaphore is never closed.
    let _permit = PERMITS.acquire().await.ok();
    match tokio::task::spawn_blocking(work).await {
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

    #[tokio::test]
    async fn work_runs_on_another_thread_than_the_tasks() {
        let here = std::thread::current().id();
        assert_ne!(compute(|| std::thread::current().id()).await, here);
    }

    #[tokio::test]
    #[should_panic(expected = "in the work")]
    async fn a_panic_reaches_the_caller() {
        compute(|| panic!("in the work")).await
    }
}
