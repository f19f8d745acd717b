//! The tasks of a connection's channels. They may outlive the connection: what the client has sent
//! before its end still goes to the pod.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::{AbortHandle, JoinSet};

/// They end when the last clone is dropped.
#[derive(Clone, Default)]
pub(super) struct ChannelTasks(Arc<Mutex<JoinSet<()>>>);

impl ChannelTasks {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.lock().spawn(task)
    }

    /// How many have not ended.
    pub(super) fn running(&self) -> usize {
        let mut tasks = self.lock();
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }

    /// Waits until those that there are now have ended. They are ended when this is dropped.
    pub(super) async fn drain(&self) {
        let mut tasks = std::mem::take(&mut *self.lock());
        while tasks.join_next().await.is_some() {}
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
