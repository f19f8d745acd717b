//! The gateway, as answers and metrics show it, and what it learns of leases.

use super::OrderService;
use crate::backend::gateway::{GatewayCounts, GatewayInfo};
use crate::model::gateway::GatewayWays;
use crate::model::order::{Lease, Order};
use crate::model::secret::Secret;
use crate::model::units::UnixTime;
use crate::protocol::{self, AccessDetails, PodHttp, StatusResponse};
use crate::readiness::UnreadyReason;
use std::sync::Arc;
use tokio::sync::watch;

impl OrderService {
    /// Has answers name the ways of this gateway. The first one stays.
    pub fn set_gateway(&self, gateway: Arc<dyn GatewayInfo>) {
        let _ = self.gateway.set(gateway);
    }

    /// What the gateway has counted; none where there is none in this process.
    #[must_use]
    pub fn gateway_counts(&self) -> Option<GatewayCounts> {
        self.gateway.get()?.counts()
    }

    pub(super) fn gateway_unready_reason(&self) -> Option<UnreadyReason> {
        self.gateway.get()?.unready_reason()
    }

    /// What customers do not have of the gateway in this process, for the operator.
    #[must_use]
    pub fn gateway_warning(&self) -> Option<&'static str> {
        self.gateway.get()?.warning()
    }

    /// Notifies when a lease was ended by this process. Others end leases too.
    #[must_use]
    pub fn lease_ends(&self) -> watch::Receiver<()> {
        self.lease_ends.subscribe()
    }

    pub(super) fn gateway_ways(&self) -> GatewayWays {
        self.gateway.get().map(|gateway| gateway.ways()).unwrap_or_default()
    }

    /// The pod is ready, and lives until then.
    pub(super) fn access_details(
        &self,
        lease: &Lease,
        password: Option<&Secret>,
        expires_at: UnixTime,
        note: Option<&str>,
    ) -> AccessDetails {
        let host = &self.settings.ssh_host;
        AccessDetails {
            access: protocol::access_ways(lease, host, &self.gateway_ways()),
            http: PodHttp { http_url: self.http_url(lease), http_login_url: None },
            ..protocol::access(lease, password, expires_at, host, note)
        }
    }

    /// The state of a pod now, with the refunds of these orders.
    pub(super) fn status_of(&self, lease: &Lease, orders: &[&Order]) -> StatusResponse {
        let host = &self.settings.ssh_host;
        StatusResponse {
            access: protocol::access_ways(lease, host, &self.gateway_ways()),
            http: PodHttp { http_url: self.http_url(lease), http_login_url: None },
            ..protocol::status(lease, orders, host, UnixTime::now())
        }
    }
}
