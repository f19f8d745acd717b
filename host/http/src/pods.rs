//! Offers, and the customer's pods.

use crate::extract::{ApiRequest, PathParam};
use crate::identity::Caller;
use crate::limits;
use crate::operator::LeaseView;
use crate::problem::{Problem, ProblemBody, ProblemType};
use crate::sorted_json::SortedJson;
use crate::state::App;
use axum::Json;
use axum::extract::State;
use paygress_core::orders::pod_named;
use paygress_core::protocol::{self, AccessDetails, OfferContent, StatusResponse, StopResponse};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The customer's pods; or, for the operator, everybody's.
#[derive(Serialize, ToSchema)]
pub(crate) struct Pods {
    /// The pods.
    pods: Vec<PodEntry>,
}

/// One pod.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum PodEntry {
    /// As its customer sees it.
    Own(Box<StatusResponse>),
    /// As the operator sees it.
    Operator(LeaseView),
}

/// What is for sale
#[utoipa::path(get, path = "/offers", tag = "customer",
    responses((status = 200, description = "What is for sale", body = OfferContent),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")))]
pub(crate) async fn offers(State(app): State<Arc<App>>) -> Result<Json<OfferContent>, Problem> {
    let catalog = app.orders.offers().await.map_err(paygress_core::Refusal::from)?;
    Ok(Json(protocol::offer(&catalog)))
}

/// The customer's pods
///
/// Those that are not over or have a refund that is not redeemed, of the bearer token or the
/// signature's key. With the operator's token: everybody's, without logins.
#[utoipa::path(get, path = "/pods", tag = "customer",
    responses((status = 200, description = "The pods", body = Pods),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = []), ("operator" = [])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<SortedJson<Pods>, Problem> {
    if request.caller == Caller::Operator {
        let leases = app.orders.leases().await?;
        let pods = leases.iter().map(|lease| PodEntry::Operator(LeaseView::of(lease))).collect();
        return Ok(SortedJson(Pods { pods }));
    }
    let pods = app.orders.pods(request.customer()?).await?;
    let pods = pods.into_iter().map(|pod| PodEntry::Own(Box::new(pod))).collect();
    Ok(SortedJson(Pods { pods }))
}

/// Status of a pod
#[utoipa::path(get, path = "/pods/{name}", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "Its status, with the refunds that are not redeemed", body = StatusResponse),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    request: ApiRequest,
) -> Result<SortedJson<StatusResponse>, Problem> {
    Ok(SortedJson(app.orders.status(&pod_named(name)?, request.customer()?).await?))
}

/// Login of a pod
#[utoipa::path(get, path = "/pods/{name}/access", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "The details that were sent when the pod was ready, with its current end", body = AccessDetails),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn access(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    request: ApiRequest,
) -> Result<SortedJson<AccessDetails>, Problem> {
    Ok(SortedJson(app.orders.access(&pod_named(name)?, request.customer()?).await?))
}

/// Stop a pod
///
/// It ends now; the unused time is paid back where the operator grants it. Repeated, the request
/// gives the same response again.
#[utoipa::path(delete, path = "/pods/{name}", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "It is stopped", body = StopResponse),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn stop(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    request: ApiRequest,
) -> Result<SortedJson<StopResponse>, Problem> {
    let (orders, customer) = (Arc::clone(&app.orders), request.customer()?.clone());
    let pod = pod_named(name)?;
    let busy = || {
        Problem::new(
            ProblemType::TooManyRequests,
            "too many of this customer's pods are being stopped; wait for the responses",
        )
    };
    let permit =
        app.stops_of.try_acquire(customer.clone(), limits::STOPS_OF_ONE).ok_or_else(busy)?;
    // In a task of its own: the pod is stopped even if the client disconnects.
    let stopping = async move {
        let stopped = orders.stop(&pod, &customer).await;
        drop(permit);
        stopped
    };
    let stopped = tokio::spawn(stopping).await;
    let failed = |_| Problem::internal("the pod could not be stopped; try again");
    Ok(SortedJson(stopped.map_err(failed)??))
}
