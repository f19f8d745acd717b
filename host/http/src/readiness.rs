//! Whether the service can serve.

use crate::health::Readiness;
use crate::state::App;
use crate::stopping;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

/// Whether it can serve
#[utoipa::path(get, path = "/readyz", tag = "operator",
    responses((status = 200, description = "It can", body = Readiness), (status = 503, description = "It cannot, and why", body = Readiness)))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Readiness>) {
    let unready_reasons = unready_reasons(&app).await;
    let orders = &app.orders;
    // That the network lets pods reach others is for the operator alone: anybody may read this.
    let warnings = [orders.probe_warning(), orders.gateway_warning()];
    Readiness::of(&unready_reasons, warnings.into_iter().flatten())
}

/// Why orders are not served, as it was found a moment ago.
pub(crate) async fn unready_reasons(app: &App) -> Vec<&'static str> {
    if app.stopping.is_begun() {
        return vec![stopping::REASON];
    }
    let orders = Arc::clone(&app.orders);
    app.ready.get(async move { orders.unready_reasons().await }).await
}
