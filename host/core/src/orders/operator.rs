//! The operator's view of the whole service. No secret is in it.

use super::login_times::LoginTimes;
use super::{OrderService, unreadable};
use crate::backend::capacity::Utilisation;
use crate::backend::policy::SlotStats;
use crate::backend::store::{HourlyLeases, HourlyRevenue, StateCount};
use crate::backend::wallet::MintReport;
use crate::model::order::Lease;
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::UnixTime;
use crate::readiness::{UnreadyReason, unready_backends};
use std::sync::PoisonError;

/// The operator's view of everything at once. No secret is in it.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The pods that can be leased at the same time.
    pub capacity: u32,
    /// The ports that are taken.
    pub ports_in_use: u32,
    /// How full the nodes are that pods may use, as decisions see it; none: they are not watched.
    pub utilisation: Option<Utilisation>,
    /// The leases that are not over.
    pub leases: Vec<Lease>,
    /// What was taken, hour by hour.
    pub revenue: Vec<HourlyRevenue>,
    /// The orders in each state.
    pub count_by_state: Vec<StateCount>,
    /// How the policies do.
    pub policies: Vec<SlotStats>,
    /// How the mints are.
    pub mints: Vec<MintReport>,
    /// How long orders for pods took.
    pub login_times: LoginTimes,
    /// Whether the disks have room for new orders.
    pub has_disk_room: bool,
    /// What probe pods have shown to be wrong, or that the first has not ended, and what the gateway
    /// lacks.
    pub warnings: Vec<&'static str>,
}

/// What was, hour by hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Hours without income are left out.
    pub revenue: Vec<HourlyRevenue>,
    /// Every hour.
    pub leases: Vec<HourlyLeases>,
}

const HOUR: u64 = 3_600;

impl OrderService {
    /// The history from the hour of this time on, from the ledger.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn history(&self, since: UnixTime) -> Result<History, Refusal> {
        let (ledger, failed) = (&self.backends.ledger, |error| unreadable(&error));
        let since = UnixTime(since.0.saturating_sub(since.0.checked_rem(HOUR).unwrap_or(0)));
        let revenue = ledger.revenue(since).await.map_err(failed)?;
        let leases = ledger.hourly_leases(since, UnixTime::now()).await.map_err(failed)?;
        Ok(History { revenue, leases })
    }

    /// The pods that can be leased at the same time.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn lease_capacity(&self) -> Result<u32, Refusal> {
        let ports_in_use =
            self.backends.ledger.ports_in_use().await.map_err(|error| unreadable(&error))?;
        let free = self.free_capacity().await?;
        Ok(self.capacity_leases(ports_in_use, free.as_deref()))
    }

    /// The leases that are not over, for the operator.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn leases(&self) -> Result<Vec<Lease>, Refusal> {
        self.backends.ledger.live_leases(None).await.map_err(|error| unreadable(&error))
    }

    /// Everything at once, for the operator; revenue since then.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn overview(&self, since: UnixTime) -> Result<Overview, Refusal> {
        let ledger = &self.backends.ledger;
        let failed = |error| unreadable(&error);
        let mints = self.backends.wallet.report().await.map_err(|error| {
            tracing::error!(%error, "the mints' report failed");
            Refusal::new(ErrorType::InternalError, "the wallet cannot be read")
        })?;
        let ports_in_use = ledger.ports_in_use().await.map_err(failed)?;
        let free = self.free_capacity().await?;
        let login_times = self.login_times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_disk_room = self.has_room().await;
        let sales_warning = self.sales().await?.warning();
        let warnings = [
            sales_warning,
            self.probe_unready_reason(),
            self.probe_warning(),
            self.network_warning(),
            self.gateway_unready_reason().map(UnreadyReason::as_str),
            self.gateway_warning(),
        ];
        let warnings = warnings.into_iter().flatten().collect();
        Ok(Overview {
            capacity: self.capacity_leases(ports_in_use, free.as_deref()),
            ports_in_use,
            utilisation: free.as_ref().and_then(|free| free.node_utilisation(None)),
            leases: self.leases().await?,
            revenue: ledger.revenue(since).await.map_err(failed)?,
            count_by_state: ledger.count_by_state().await.map_err(failed)?,
            policies: self.backends.policy.report(),
            mints,
            login_times,
            has_disk_room,
            warnings,
        })
    }

    /// Why the service is not ready; empty when it is.
    pub async fn unready_reasons(&self) -> Vec<&'static str> {
        let backends =
            unready_backends(&*self.backends.ledger, &*self.backends.cluster.health).await;
        let mut unready_reasons: Vec<&'static str> =
            backends.into_iter().map(UnreadyReason::as_str).collect();
        if self.backends.cluster.capacity.is_capacity_pending() {
            unready_reasons.push(
                "the cluster's nodes, pods and quotas are not listed yet: new orders are not checked against what is left",
            );
        }
        unready_reasons.extend(self.probe_unready_reason());
        unready_reasons.extend(self.gateway_unready_reason().map(UnreadyReason::as_str));
        if !self.has_room().await {
            unready_reasons.push("a disk is nearly full: new orders are refused");
        }
        unready_reasons
    }
}
