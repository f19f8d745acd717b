//! All routes, behind the middleware.

use crate::state::App;
use crate::{assets, middleware, openapi};
use axum::Router;
use std::sync::Arc;

pub(crate) fn router(app: &Arc<App>) -> Router {
    let (api, _) = openapi::api().split_for_parts();
    middleware::layer(api.merge(assets::routes()), app).with_state(Arc::clone(app))
}
