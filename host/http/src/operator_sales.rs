//! What is sold, as the operator decides.

use crate::extract::ApiRequest;
use crate::problem::{Problem, ProblemBody};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use paygress_core::model::sales::Sales;
use paygress_core::protocol::from_json;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// What is sold.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SalesView {
    /// `open`: all; `paused`: more time, and no new pods; `draining`: nothing.
    sales: Sales,
}

/// What is sold now
#[utoipa::path(get, path = "/operator/sales", tag = "operator",
    responses((status = 200, description = "What is sold", body = SalesView),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn sales(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Json<SalesView>, Problem> {
    request.operator(&app)?;
    Ok(Json(SalesView { sales: app.orders.sales().await? }))
}

/// Pause, drain or resume sales
///
/// For all replicas, and beyond a restart. What is not sold is refused before its token is verified.
#[utoipa::path(post, path = "/operator/sales", tag = "operator", request_body = SalesView,
    responses((status = 200, description = "It is so from now on", body = SalesView),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("operator" = [])))]
pub(crate) async fn set_sales(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Json<SalesView>, Problem> {
    request.operator(&app)?;
    let wanted: SalesView = from_json(&request.body, r#"{"sales": "paused"}"#)?;
    app.orders.set_sales(wanted.sales).await?;
    Ok(Json(wanted))
}
