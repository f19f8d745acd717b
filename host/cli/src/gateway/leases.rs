//! Leases as the store has them: their logins, and when they end.

use async_trait::async_trait;
use paygress_core::Ledger;
use paygress_core::model::ids::PodName;
use paygress_core::model::order::{Lease, LeaseState};
use paygress_gateway::{LeaseAccess, LeaseLogin, LookupError};
use paygress_sshd::parse_keys;
use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the leases are read while there are sessions: other processes end leases too.
const POLL: Duration = Duration::from_secs(2);

/// The live leases when they were read last.
#[derive(Default)]
struct Seen {
    /// When that was begun.
    at: Option<Instant>,
    live: HashSet<PodName>,
}

/// The leases of a store. It stores nothing: a password is what the store keeps of it until the pod
/// ends, as for the web terminal.
pub(super) struct StoredLeases {
    ledger: Arc<dyn Ledger>,
    seen: watch::Sender<Seen>,
}

impl StoredLeases {
    pub(super) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, seen: watch::Sender::new(Seen::default()) }
    }

    /// Keeps looking which leases are live, also whenever this process has ended one.
    pub(super) async fn watch(&self, mut ends: Option<watch::Receiver<()>>) {
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

    /// What is not known now changes nothing.
    async fn read_all(&self) {
        let at = Instant::now();
        match self.ledger.live_leases(None).await {
            Ok(leases) => {
                let live = leases.iter().filter(|lease| is_live(lease)).map(Lease::pod).collect();
                self.seen.send_replace(Seen { at: Some(at), live });
            }
            Err(error) => tracing::warn!(%error, "the gateway cannot read the leases now"),
        }
    }

    async fn live_lease(&self, pod: &PodName) -> Result<Option<Lease>, LookupError> {
        let lease = self.ledger.lease(pod).await.map_err(LookupError::new)?;
        Ok(lease.filter(is_live))
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

#[async_trait]
impl LeaseAccess for StoredLeases {
    async fn login(&self, pod: &PodName) -> Result<Option<LeaseLogin>, LookupError> {
        let Some(lease) = self.live_lease(pod).await? else { return Ok(None) };
        let orders = self.ledger.orders_of(&lease.id).await.map_err(LookupError::new)?;
        let Some(login) = orders.iter().find_map(|order| order.state.login().cloned()) else {
            return Ok(None);
        };
        // The pod's server has read the same text.
        let keys = parse_keys(login.public_key.as_deref().unwrap_or_default()).unwrap_or_default();
        Ok(Some(LeaseLogin::new(lease.login_port(), keys, login.password)))
    }

    async fn is_live(&self, pod: &PodName) -> Result<bool, LookupError> {
        Ok(self.live_lease(pod).await?.is_some())
    }

    async fn ended(&self, pod: &PodName) {
        let (mut seen, since) = (self.seen.subscribe(), Instant::now());
        if matches!(self.is_live(pod).await, Ok(false)) {
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
