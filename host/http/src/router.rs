//! All routes, behind the middleware.

use crate::overflow::no_place;
use crate::sites::at_own_host;
use crate::state::App;
use crate::{assets, health, middleware, openapi, readiness};
use axum::Router;
use axum::routing::get;
use paygress_core::model::apps_domain::AppsDomain;
use std::sync::Arc;

pub(crate) fn router(app: &Arc<App>) -> Router {
    let (api, _) = openapi::api().split_for_parts();
    middleware::layer(api.merge(assets::routes()), app).with_state(Arc::clone(app))
}

/// What is answered on connections without a place.
pub(crate) fn overflow_router(app: &Arc<App>, apps: Option<&AppsDomain>) -> Router {
    let probes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(readiness::readyz))
        .fallback(no_place)
        .method_not_allowed_fallback(no_place);
    let probes = middleware::unlimited(probes, app).with_state(Arc::clone(app));
    match apps {
        Some(domain) => at_own_host(probes, domain.clone()),
        None => probes,
    }
}
