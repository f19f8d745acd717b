//! Liveness and readiness.

use crate::limits;
use crate::state::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

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
    /// Why they are not.
    #[serde(rename = "ailments")]
    unready_reasons: Vec<String>,
    /// What else the operator should know of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Whether it can serve
#[utoipa::path(get, path = "/readyz", tag = "operator",
    responses((status = 200, description = "It can", body = Readiness), (status = 503, description = "It cannot, and why", body = Readiness)))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Readiness>) {
    let unready_reasons = unready_reasons(&app).await;
    let unready_reasons: Vec<String> = unready_reasons.into_iter().map(str::to_owned).collect();
    let status =
        if unready_reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let warnings = app.orders.probe_warning().into_iter().chain(app.orders.network_warning());
    let warnings = warnings.map(str::to_owned).collect();
    (status, Json(Readiness { ready: unready_reasons.is_empty(), unready_reasons, warnings }))
}

/// Why orders are not served, as it was found a moment ago.
pub(crate) async fn unready_reasons(app: &App) -> Vec<&'static str> {
    // Locked during the check: many probes at once check the cluster once.
    let mut checked = app.ready.lock().await;
    match &*checked {
        Some((at, unready_reasons)) if at.elapsed() < limits::READY_AGAIN => {
            unready_reasons.clone()
        }
        _ => {
            let found = app.orders.unready_reasons().await;
            *checked = Some((Instant::now(), found.clone()));
            found
        }
    }
}
