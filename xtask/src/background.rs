//! Steps that run beside others.

use anyhow::{Result, bail};
use std::thread::JoinHandle;

/// A step that runs beside others, and never longer than they: dropped, since another step has failed,
/// it is waited for. What it runs would go on otherwise, while the directories that it uses are
/// removed.
#[must_use = "dropped, it is waited for"]
pub(crate) struct BackgroundStep {
    name: &'static str,
    /// None once it was waited for.
    thread: Option<JoinHandle<Result<()>>>,
}

impl BackgroundStep {
    /// Starts it. Its failure is printed at once.
    pub(crate) fn start(
        name: &'static str,
        work: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Self {
        let work = move || work().inspect_err(|error| eprintln!("── {name}: {error:#}"));
        Self { name, thread: Some(std::thread::spawn(work)) }
    }

    /// Waits for it, and fails if it does.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| bail!("{} panicked", self.name))
    }
}

impl Drop for BackgroundStep {
    fn drop(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            println!("── {}: waiting for its end, since another step has failed", self.name);
        }
        // The failure of the other step is the first one; this one is printed.
        let _ = self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Ends after the function below has failed.
    fn step(failed: Receiver<()>, ended: &Arc<AtomicBool>) -> BackgroundStep {
        let ended = Arc::clone(ended);
        BackgroundStep::start("a step of a test", move || {
            let _ = failed.recv();
            ended.store(true, Ordering::Relaxed);
            bail!("the second")
        })
    }

    fn fail(beside: BackgroundStep, failing: Sender<()>) -> Result<()> {
        let _beside = beside;
        let _failing = failing;
        bail!("the first")
    }

    #[test]
    fn a_step_has_ended_when_another_one_has_failed() {
        let (ended, (failing, failed)) = (Arc::default(), channel());
        let error = fail(step(failed, &ended), failing).unwrap_err();
        assert!(ended.load(Ordering::Relaxed));
        assert_eq!(error.to_string(), "the first");
    }

    #[test]
    fn the_failure_of_a_step_is_its_end() {
        let (failing, failed) = channel();
        drop(failing);
        let error = step(failed, &Arc::default()).finish().unwrap_err();
        assert_eq!(error.to_string(), "the second");
        let panicking = BackgroundStep::start("a panic", || panic!("of a test"));
        assert_eq!(panicking.finish().unwrap_err().to_string(), "a panic panicked");
    }
}
