//! Looking at what is for sale and what was bought, and stopping it.

use crate::App;
use crate::extract::{ApiRequest, PathParam};
use crate::identity::Caller;
use crate::limits;
use crate::operator::LeaseView;
use crate::problem::{Fault, Problem, ProblemBody};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use paygress_core::model::units::PodName;
use paygress_core::protocol::{self, AccessDetails, OfferContent, StatusResponse, StopResponse};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

/// The customer's pods; or, for the operator, everybody's.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "the schema of what is put together below")]
pub(crate) struct Pods {
    /// The pods.
    pods: Vec<PodEntry>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant, reason = "the schema of what is put together below")]
pub(crate) enum PodEntry {
    /// As its customer sees it.
    Own(StatusResponse),
    /// As the operator sees it.
    Operator(LeaseView),
}

/// What is for sale
#[utoipa::path(get, path = "/offers", tag = "customer",
    responses((status = 200, description = "What is for sale", body = OfferContent),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")))]
pub(crate) async fn offers(State(app): State<Arc<App>>) -> Result<Json<OfferContent>, Problem> {
    let window = app.orders.offers().await.map_err(paygress_core::Refusal::from)?;
    Ok(Json(protocol::offer(&window.offers, &window.mints, window.lock.as_deref())))
}

/// The customer's pods
///
/// Those that are not over or have a refund that nobody has redeemed, of whoever shows a bearer
/// token or signs. With the operator's token: everybody's, without logins.
#[utoipa::path(get, path = "/pods", tag = "customer",
    responses((status = 200, description = "The pods", body = Pods),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = []), ("operator" = [])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    asked: ApiRequest,
) -> Result<Json<Value>, Problem> {
    if asked.caller == Caller::Operator {
        let leases = app.orders.leases().await?;
        let views: Vec<LeaseView> = leases.iter().map(LeaseView::of).collect();
        return Ok(Json(json!({ "pods": views })));
    }
    Ok(Json(json!({ "pods": app.orders.pods(asked.customer()?).await? })))
}

/// How a pod is
#[utoipa::path(get, path = "/pods/{name}", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "How it is, with the refunds that wait", body = StatusResponse),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    asked: ApiRequest,
) -> Result<Json<Value>, Problem> {
    Ok(Json(app.orders.status(&PodName(name), asked.customer()?).await?))
}

/// How to get in, again
#[utoipa::path(get, path = "/pods/{name}/access", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "What was told when the pod was ready, with its end as it is now", body = AccessDetails),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn access(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    asked: ApiRequest,
) -> Result<Json<Value>, Problem> {
    Ok(Json(app.orders.access(&PodName(name), asked.customer()?).await?))
}

/// Stop a pod
///
/// It ends now; the unused time is paid back where the operator grants it. Asked again it gives the
/// same answer again.
#[utoipa::path(delete, path = "/pods/{name}", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "It is stopped", body = StopResponse),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn stop(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    asked: ApiRequest,
) -> Result<Json<Value>, Problem> {
    let (orders, customer) = (Arc::clone(&app.orders), asked.customer()?.clone());
    let busy = || {
        Problem::new(
            Fault::TooManyRequests,
            "this customer's pods are being stopped already; wait for the answers",
        )
    };
    let place = app.stops_of.take(customer.clone(), limits::STOPS_OF_ONE).ok_or_else(busy)?;
    // In a task of its own: who hangs up has stopped it all the same.
    let stopping = async move {
        let stopped = orders.stop(&PodName(name), &customer).await;
        drop(place);
        stopped
    };
    let stopped = tokio::spawn(stopping).await;
    let again =
        |_| paygress_core::Refusal::new(paygress_core::ErrorType::InternalError, "ask again");
    Ok(Json(stopped.map_err(again)??))
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "operator", responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// Whether it is ready
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether orders are served.
    ready: bool,
    /// What keeps it from that.
    unready_reasons: Vec<String>,
}

/// Whether it can serve
#[utoipa::path(get, path = "/readyz", tag = "operator",
    responses((status = 200, description = "It can", body = Readiness), (status = 503, description = "It cannot, and why", body = Readiness)))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Readiness>) {
    // Held while it is asked: however many want to know, the cluster is asked once.
    let mut known = app.ready.lock().await;
    let unready_reasons = match &*known {
        Some((at, unready_reasons)) if at.elapsed() < limits::READY_AGAIN => {
            unready_reasons.clone()
        }
        _ => {
            let found = app.orders.unready_reasons().await;
            *known = Some((Instant::now(), found.clone()));
            found
        }
    };
    drop(known);
    let unready_reasons: Vec<String> = unready_reasons.into_iter().map(str::to_owned).collect();
    let status =
        if unready_reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: unready_reasons.is_empty(), unready_reasons }))
}
