//! The process groups of everything that sessions have started: it outlives its connection, as with
//! OpenSSH, and ends with the server.

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// From SIGHUP to SIGKILL.
const KILL_GRACE: Duration = Duration::from_millis(500);
/// How often it is looked whether they have gone.
const POLL: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(crate) struct Groups(Mutex<HashSet<Pid>>);

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashSet<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a group, and forgets those without a process: their numbers may be given again.
    pub(crate) fn add(&self, group: Pid) {
        let mut groups = self.lock();
        groups.retain(|group| is_alive(*group));
        groups.insert(group);
    }

    /// The leader of this group has been waited for.
    pub(crate) fn leader_ended(&self, group: Pid) {
        if !is_alive(group) {
            self.lock().remove(&group);
        }
    }

    /// SIGHUP, as when a terminal is closed; SIGKILL to what is left.
    pub(crate) async fn end(&self) {
        let groups: Vec<Pid> = self.lock().drain().collect();
        signal(&groups, Signal::HUP);
        let gone = async {
            while groups.iter().any(|group| is_alive(*group)) {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(KILL_GRACE, gone).await;
        signal(&groups, Signal::KILL);
    }
}

fn signal(groups: &[Pid], signal: Signal) {
    for group in groups {
        let _ = kill_process_group(*group, signal);
    }
}

fn is_alive(group: Pid) -> bool {
    // Another error than "no such process" is one about a process.
    test_kill_process_group(group) != Err(rustix::io::Errno::SRCH)
}
