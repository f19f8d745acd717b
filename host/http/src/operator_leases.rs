//! The operator's search over leases, and the end of one.

use crate::extract::{ApiRequest, PathParam, Query};
use crate::limits;
use crate::operator::LeaseView;
use crate::problem::{Problem, ProblemBody};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use paygress_core::backend::store::{LeasePlace, LeaseStates};
use paygress_core::model::ids::{Customer, LeaseId, PublicKey};
use paygress_core::model::lease::EndReason;
use paygress_core::model::units::UnixTime;
use paygress_core::orders::{EndedLease, FoundLeases, LeaseQuery, pod_named};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Leases by how far they are.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WantedState {
    /// Not over.
    #[default]
    Current,
    Ended,
    All,
}

impl From<WantedState> for LeaseStates {
    fn from(state: WantedState) -> Self {
        match state {
            WantedState::Current => Self::Current,
            WantedState::Ended => Self::Ended,
            WantedState::All => Self::All,
        }
    }
}

/// The query of `/operator/leases`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseParams {
    /// Which: `current` (not over), `ended` or `all`.
    #[serde(default)]
    #[param(inline)]
    state: WantedState,
    /// The id of a tier.
    tier: Option<String>,
    /// A customer, whole: a public key in hex or as an npub, or `bearer:` and the hash of a bearer
    /// token.
    customer: Option<String>,
    /// A part of the pod's name, its npub, its image, its port or its customer.
    q: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// So many at most.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u64>,
}

impl LeaseParams {
    /// The query of the order service; the first parameter that is wrong is named.
    fn query(self) -> Result<LeaseQuery, Problem> {
        let Self { state, tier, customer, q, after, limit } = self;
        Ok(LeaseQuery {
            states: state.into(),
            tier: short("tier", tier)?,
            text: short("q", q)?,
            customer: short("customer", customer)?.as_deref().map(customer_named).transpose()?,
            after: short("after", after)?.as_deref().map(read_place).transpose()?,
            limit: page_length(limit)?,
        })
    }
}

/// A parameter that is there, and no longer than anything that it could name.
fn short(name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    if value.len() > limits::SEARCH_BYTES {
        let most = limits::SEARCH_BYTES;
        return Err(Problem::invalid(&format!("{name} has at most {most} bytes")));
    }
    Ok(Some(value))
}

fn customer_named(text: &str) -> Result<Customer, Problem> {
    let key = PublicKey::from_npub(text).map(Customer::Nostr);
    key.or_else(|| Customer::parse(text).ok()).ok_or_else(|| {
        Problem::invalid(
            "customer must be a public key (64 hex digits, or an npub), or bearer: and a hash of 64",
        )
    })
}

fn page_length(limit: Option<u64>) -> Result<usize, Problem> {
    let Some(limit) = limit else { return Ok(limits::PAGE_LEASES) };
    let most = limits::PAGE_LEASES_MOST;
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| Problem::invalid(&format!("limit must be from 1 to {most}")))
}

fn write_place(LeasePlace { created_at, id }: &LeasePlace) -> String {
    format!("{}.{id}", created_at.0)
}

fn read_place(text: &str) -> Result<LeasePlace, Problem> {
    let place = text.split_once('.').and_then(|(created_at, id)| {
        let (created_at, id) = (created_at.parse().ok()?, LeaseId::parse(id).ok()?);
        Some(LeasePlace { created_at: UnixTime(created_at), id })
    });
    place.ok_or_else(|| Problem::invalid("after must be next of the page before, as it was"))
}

/// A lease that was found.
#[derive(Serialize, ToSchema)]
pub(crate) struct FoundLease {
    #[serde(flatten)]
    lease: LeaseView,
    /// Why it ended, or is ending.
    end_reason: Option<EndReason>,
}

/// A page of leases, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeasesView {
    leases: Vec<FoundLease>,
    /// `after` of the next page; null at the end. A page may be short, or empty, before it.
    next: Option<String>,
}

impl From<&FoundLeases> for LeasesView {
    fn from(found: &FoundLeases) -> Self {
        let leases = found.leases.iter();
        let leases =
            leases.map(|lease| FoundLease { lease: LeaseView::of(lease), end_reason: lease.end });
        Self { leases: leases.collect(), next: found.next.as_ref().map(write_place) }
    }
}

/// Search for leases
///
/// Page by page, the newest first.
#[utoipa::path(get, path = "/operator/leases", tag = "operator", params(LeaseParams),
    responses((status = 200, description = "A page", body = LeasesView),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn leases(
    State(app): State<Arc<App>>,
    params: Result<Query<LeaseParams>, Problem>,
    request: ApiRequest,
) -> Result<Json<LeasesView>, Problem> {
    // Only the operator learns what is wrong with the query.
    request.operator(&app)?;
    let Query(params) = params?;
    Ok(Json(LeasesView::from(&app.orders.find_leases(&params.query()?).await?)))
}

/// A lease that is over.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndedLeaseView {
    pod_name: String,
    /// Why it ended; another reason than `ended-by-operator` if it had ended already.
    end_reason: Option<EndReason>,
    /// What is due to its customers, or was paid back to them, without the mint's fees that the
    /// operator bears: these are added.
    refunded_sats: u64,
}

impl From<EndedLease> for EndedLeaseView {
    fn from(EndedLease { pod_name, end_reason, refunded_sats }: EndedLease) -> Self {
        Self { pod_name: pod_name.into(), end_reason, refunded_sats }
    }
}

/// End a lease
///
/// Before its time. What is left of it is paid back to its customers in full. Repeated, the request
/// gives the same response again.
#[utoipa::path(delete, path = "/operator/leases/{name}", tag = "operator", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "It is over", body = EndedLeaseView),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn end(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    request: ApiRequest,
) -> Result<Json<EndedLeaseView>, Problem> {
    request.operator(&app)?;
    let (orders, pod) = (Arc::clone(&app.orders), pod_named(name)?);
    // In a task of its own: the lease is ended even if the client disconnects.
    let ended = tokio::spawn(async move { orders.end_lease(&pod).await }).await;
    let failed = |_| Problem::internal("the lease could not be ended; try again");
    Ok(Json(ended.map_err(failed)??.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::ids::OrderId;

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is() {
        let place = LeasePlace { created_at: UnixTime(7), id: LeaseId::of(&OrderId::random()) };
        assert_eq!(read_place(&write_place(&place)).unwrap(), place);
        for text in ["", "7", "7.", ".abcdefghij", "-1.abcdefghij", "7.' OR 1=1", "x.abcdefghij"] {
            assert!(read_place(text).is_err(), "{text}");
        }
    }
}
