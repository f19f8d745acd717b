//! The operator's view, without secrets.

use crate::extract::{ApiRequest, Query};
use crate::limits;
use crate::problem::{Problem, ProblemBody};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use paygress_core::backend::policy::SlotStats;
use paygress_core::backend::store::{HourlyLeases, HourlyRevenue};
use paygress_core::backend::wallet::MintReport;
use paygress_core::model::order::Lease;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_core::orders::{History, Overview};
use paygress_core::protocol::PodStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// A lease as the operator sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseView {
    pod_name: String,
    status: PodStatus,
    /// The customer's public key, or the hash of a bearer token.
    customer: String,
    tier: String,
    image: String,
    /// The port of the nodes; 22 for a pod without one.
    port: u16,
    cpu_millicores: u32,
    memory_mb: u32,
    created_at: String,
    expires_at: Option<String>,
}

impl LeaseView {
    pub(crate) fn of(lease: &Lease) -> Self {
        Self {
            pod_name: lease.pod().into(),
            status: lease.state.into(),
            customer: lease.customer.as_ref().map(ToString::to_string).unwrap_or_default(),
            tier: lease.tier.to_string(),
            image: lease.image.to_string(),
            port: lease.login_port(),
            cpu_millicores: lease.resources.cpu_millicores,
            memory_mb: lease.resources.memory_mib,
            created_at: lease.created_at.rfc3339(),
            expires_at: lease.expires_at.map(UnixTime::rfc3339),
        }
    }
}

/// What was taken in an hour.
#[derive(Serialize, ToSchema)]
pub(crate) struct HourView {
    /// When it began (RFC 3339).
    from: String,
    /// Paid orders that came in it.
    orders: u64,
    /// What they brought, less what went back and what that cost: below zero in an hour of faults
    /// whose fees the operator bears.
    earned_sats: i64,
}

/// The calls of a policy since it was loaded.
#[derive(Serialize, ToSchema)]
pub(crate) struct PolicyView {
    slot: String,
    /// SHA-256 of the component.
    digest: String,
    /// When it takes its settings: in `each-call`, or once, for the `snapshot` that calls start from.
    configured: String,
    calls: u64,
    refusals: u64,
    faults: u64,
    /// The median; null without calls, or beyond 100 ms.
    p50_us: Option<u64>,
    /// The 99th percentile.
    p99_us: Option<u64>,
}

/// A mint.
#[derive(Serialize, ToSchema)]
pub(crate) struct MintView {
    mint: String,
    accepted: bool,
    held_sats: u64,
    /// Why its last request failed; null when it did not.
    fault: Option<String>,
    answered_in_ms: Option<u64>,
}

/// Orders in one state.
#[derive(Serialize, ToSchema)]
pub(crate) struct StateView {
    state: String,
    orders: u64,
}

/// The overview.
#[derive(Serialize, ToSchema)]
pub(crate) struct OverviewView {
    /// Now (RFC 3339).
    now: String,
    /// The pods that can be leased at the same time.
    capacity: u32,
    /// The ports that are taken, or the places where pods have no ports.
    ports_in_use: u32,
    leases: Vec<LeaseView>,
    /// Hour by hour, of the last 14 days; hours without income are left out.
    income: Vec<HourView>,
    orders: Vec<StateView>,
    policies: Vec<PolicyView>,
    mints: Vec<MintView>,
    /// What keeps pods from starting, or what they have less than they might.
    warnings: Vec<String>,
}

impl OverviewView {
    fn of(overview: &Overview, now: UnixTime) -> Self {
        let hour = |hour: &HourlyRevenue| HourView {
            from: hour.from.rfc3339(),
            orders: hour.orders,
            earned_sats: hour.earned.0,
        };
        let policy = |report: &SlotStats| PolicyView {
            slot: report.slot.to_string(),
            digest: report.digest.to_string(),
            configured: report.configured.as_str().to_owned(),
            calls: report.calls,
            refusals: report.refusals.values().fold(0, |sum, count| sum.saturating_add(*count)),
            faults: report.faults,
            p50_us: report.percentile_us(50),
            p99_us: report.percentile_us(99),
        };
        let mint = |report: &MintReport| MintView {
            mint: report.mint.to_string(),
            accepted: report.accepted,
            held_sats: report.held.0,
            fault: report.fault.clone(),
            answered_in_ms: report.answered_in_ms,
        };
        Self {
            now: now.rfc3339(),
            capacity: overview.capacity,
            ports_in_use: overview.ports_in_use,
            leases: overview.leases.iter().map(LeaseView::of).collect(),
            income: overview.revenue.iter().map(hour).collect(),
            orders: overview
                .count_by_state
                .iter()
                .map(|count| StateView {
                    state: count.state.as_str().to_owned(),
                    orders: count.orders,
                })
                .collect(),
            policies: overview.policies.iter().map(policy).collect(),
            mints: overview.mints.iter().map(mint).collect(),
            warnings: overview.warnings.iter().map(|warning| (*warning).to_owned()).collect(),
        }
    }
}

/// Overview
#[utoipa::path(get, path = "/operator/overview", tag = "operator",
    responses((status = 200, description = "Leases, income, policies, mints", body = OverviewView),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn overview(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Json<OverviewView>, Problem> {
    request.operator(&app)?;
    let now = UnixTime::now();
    let overview = app.orders.overview(now.minus(Seconds(limits::CHART_SECONDS))).await?;
    Ok(Json(OverviewView::of(&overview, now)))
}

/// The query of `/operator/history`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryParams {
    /// How far back; left out: 14.
    #[param(minimum = 1, maximum = 90)]
    days: Option<u64>,
}

impl HistoryParams {
    fn seconds(&self) -> Result<Seconds, Problem> {
        let Some(days) = self.days else { return Ok(Seconds(limits::CHART_SECONDS)) };
        let most = limits::HISTORY_DAYS;
        if days == 0 || days > most {
            return Err(Problem::invalid(&format!("days must be from 1 to {most}")));
        }
        Ok(Seconds(days.saturating_mul(DAY)))
    }
}

const DAY: u64 = 86_400;

/// An hour of the history.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryHour {
    /// When it began (RFC 3339).
    from: String,
    /// Paid orders that came in it.
    orders: u64,
    /// What they brought, less what went back and what that cost.
    earned_sats: i64,
    /// Pods that were ordered in it, and have run.
    leases_begun: u64,
    /// Pods that have run at any time of it.
    leases: u64,
}

/// What was, hour by hour.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryView {
    /// Now (RFC 3339).
    now: String,
    /// The pods that could be leased at the same time now; the history of that is not known.
    capacity: u32,
    /// Every hour, the oldest first, from the ledger.
    hours: Vec<HistoryHour>,
}

impl HistoryView {
    fn of(history: &History, capacity: u32, now: UnixTime) -> Self {
        let revenue: BTreeMap<UnixTime, &HourlyRevenue> =
            history.revenue.iter().map(|hour| (hour.from, hour)).collect();
        let hour = |leases: &HourlyLeases| {
            let revenue = revenue.get(&leases.from);
            HistoryHour {
                from: leases.from.rfc3339(),
                orders: revenue.map_or(0, |hour| hour.orders),
                earned_sats: revenue.map_or(0, |hour| hour.earned.0),
                leases_begun: leases.begun,
                leases: leases.running,
            }
        };
        Self { now: now.rfc3339(), capacity, hours: history.leases.iter().map(hour).collect() }
    }
}

/// History
///
/// Orders, money and pods of each hour of the last days.
#[utoipa::path(get, path = "/operator/history", tag = "operator", params(HistoryParams),
    responses((status = 200, description = "Every hour", body = HistoryView),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn history(
    State(app): State<Arc<App>>,
    params: Result<Query<HistoryParams>, Problem>,
    request: ApiRequest,
) -> Result<Json<HistoryView>, Problem> {
    request.operator(&app)?;
    let Query(params) = params?;
    let now = UnixTime::now();
    let history = app.orders.history(now.minus(params.seconds()?)).await?;
    let capacity = app.orders.lease_capacity().await?;
    Ok(Json(HistoryView::of(&history, capacity, now)))
}
