//! Leases as the store has them: their logins, and when they end.

use async_trait::async_trait;
use paygress_core::Ledger;
use paygress_core::live_leases::LiveLeases;
use paygress_core::model::ids::PodName;
use paygress_gateway::{LeaseAccess, LeaseLogin, LookupError};
use paygress_sshd::parse_keys;
use std::sync::Arc;
use tokio::sync::watch;

/// The leases of a store. It stores nothing: a password is what the store keeps of it until the pod
/// ends, as for the web terminal.
pub(super) struct StoredLeases {
    ledger: Arc<dyn Ledger>,
    live: LiveLeases,
}

impl StoredLeases {
    pub(super) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { live: LiveLeases::new(Arc::clone(&ledger)), ledger }
    }

    /// Keeps looking which leases are live, also whenever this process has ended one.
    pub(super) async fn watch(&self, ends: Option<watch::Receiver<()>>) {
        self.live.watch(ends).await;
    }
}

#[async_trait]
impl LeaseAccess for StoredLeases {
    async fn login(&self, pod: &PodName) -> Result<Option<LeaseLogin>, LookupError> {
        let lease = self.live.find(pod).await.map_err(LookupError::new)?;
        let Some(lease) = lease else { return Ok(None) };
        // Whoever names the pod causes this.
        let order = self.ledger.spawn_order(&lease.id).await.map_err(LookupError::new)?;
        let Some(login) = order.and_then(|order| order.state.login().cloned()) else {
            return Ok(None);
        };
        // The pod's server has read the same text.
        let keys = parse_keys(login.public_key.as_deref().unwrap_or_default()).unwrap_or_default();
        Ok(Some(LeaseLogin::new(lease.login_port(), keys, login.password)))
    }

    async fn is_live(&self, pod: &PodName) -> Result<bool, LookupError> {
        Ok(self.live.find(pod).await.map_err(LookupError::new)?.is_some())
    }

    async fn ended(&self, pod: &PodName) {
        self.live.ended(pod).await;
    }
}
