//! Liveness and readiness, as the service and a gateway in a process of its own report them.

use crate::limits;
use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;
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

impl Readiness {
    /// With its status: a probe looks at nothing else.
    pub(crate) fn of(
        unready_reasons: &[&'static str],
        warnings: impl IntoIterator<Item = &'static str>,
    ) -> (StatusCode, Json<Self>) {
        let ready = unready_reasons.is_empty();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let unready_reasons = unready_reasons.iter().copied().map(str::to_owned).collect();
        let warnings = warnings.into_iter().map(str::to_owned).collect();
        (status, Json(Self { ready, unready_reasons, warnings }))
    }
}

/// When readiness was checked last, and what was found.
#[derive(Default)]
pub(crate) struct ReadinessCache(Mutex<Option<(Instant, Vec<&'static str>)>>);

impl ReadinessCache {
    /// What was found a moment ago, or is found now.
    pub(crate) async fn get(
        &self,
        find: impl Future<Output = Vec<&'static str>>,
    ) -> Vec<&'static str> {
        // Locked during the check: many probes at once check the cluster once.
        let mut checked = self.0.lock().await;
        match &*checked {
            Some((at, found)) if at.elapsed() < limits::READY_AGAIN => found.clone(),
            _ => {
                let found = find.await;
                *checked = Some((Instant::now(), found.clone()));
                found
            }
        }
    }
}
