//! Which leases are live, for the gateway and the HTTP ports of pods: they cut customers off when a
//! lease ends.

use crate::backend::store::{Ledger, LedgerError};
use crate::model::ids::PodName;
use crate::model::order::{Lease, LeaseState};
use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the leases are read while somebody waits for an end: other processes end leases too.
const POLL: Duration = Duration::from_secs(2);

/// The live leases when they were read last.
#[derive(Default)]
struct Seen {
    /// When the reading began.
    at: Option<Instant>,
    live: HashSet<PodName>,
}

/// The live leases of a store.
pub struct LiveLeases {
    ledger: Arc<dyn Ledger>,
    seen: watch::Sender<Seen>,
}

impl LiveLeases {
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, seen: watch::Sender::new(Seen::default()) }
    }

    /// Keeps looking which leases are live, also whenever this process has ended one.
    pub async fn watch(&self, mut ends: Option<watch::Receiver<()>>) {
        loop {
            if self.seen.receiver_count() > 0 {
                self.read_all().await;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = next_end(&mut ends) => {}
            }
        }
    }

    /// If the store does not answer, the leases stay as they were read last.
    async fn read_all(&self) {
        let at = Instant::now();
        match self.ledger.live_leases(None).await {
            Ok(leases) => {
                let live = leases.iter().filter(|lease| is_live(lease)).map(Lease::pod).collect();
                self.seen.send_replace(Seen { at: Some(at), live });
            }
            Err(error) => tracing::warn!(%error, "the live leases cannot be read now"),
        }
    }

    /// The lease of this pod, if it is live.
    ///
    /// # Errors
    /// The store's.
    pub async fn find(&self, pod: &PodName) -> Result<Option<Lease>, LedgerError> {
        Ok(self.ledger.lease(pod).await?.filter(is_live))
    }

    /// Returns when the lease of this pod has ended, at once if it is not live. A lease of which
    /// nothing is known for a while has not ended. Needs [`watch`](Self::watch) to run.
    pub async fn ended(&self, pod: &PodName) {
        let (mut seen, since) = (self.seen.subscribe(), Instant::now());
        if matches!(self.find(pod).await, Ok(None)) {
            return;
        }
        // What was read before may not have the lease yet.
        let is_over =
            |seen: &Seen| seen.at.is_some_and(|at| at >= since) && !seen.live.contains(pod);
        if seen.wait_for(is_over).await.is_err() {
            pending::<()>().await;
        }
    }
}

fn is_live(lease: &Lease) -> bool {
    lease.state == LeaseState::Live
}

/// Waits for the next end; for ever if there is nobody to report it.
async fn next_end(ends: &mut Option<watch::Receiver<()>>) {
    if let Some(ends) = ends
        && ends.changed().await.is_ok()
    {
        return;
    }
    pending().await
}
