//! Liveness and readiness, as the service and a gateway in a process of its own report them.

use crate::limits;
use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
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

const CHECK_FAILED: &str = "the check has failed: the log says why";

/// What a check has found, and when.
struct Checked {
    at: Instant,
    found: Vec<&'static str>,
}

/// The last check of readiness.
#[derive(Default)]
pub(crate) struct ReadinessCache(Arc<Mutex<Option<Checked>>>);

impl ReadinessCache {
    /// What was found a moment ago, or is found now. A check that was begun is finished, whether or not
    /// the client is still there: else one who leaves at once has each of their requests checked anew.
    pub(crate) async fn get(
        &self,
        find: impl Future<Output = Vec<&'static str>> + Send + 'static,
    ) -> Vec<&'static str> {
        // Locked during the check: many probes at once check the cluster once.
        let mut checked = Arc::clone(&self.0).lock_owned().await;
        if let Some(Checked { at, found }) = &*checked
            && at.elapsed() < limits::READY_AGAIN
        {
            return found.clone();
        }
        let check = tokio::spawn(async move {
            let found = find.await;
            *checked = Some(Checked { at: Instant::now(), found: found.clone() });
            found
        });
        check.await.unwrap_or_else(|_| vec![CHECK_FAILED])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn who_leaves_during_a_check_causes_no_other() {
        let cache = ReadinessCache::default();
        let (go_on, goes_on) = oneshot::channel::<()>();
        let (begin, mut begun) = oneshot::channel::<()>();
        let find = async move {
            let _ = begin.send(());
            let _ = goes_on.await;
            vec!["found"]
        };
        tokio::select! {
            found = cache.get(find) => panic!("{found:?}"),
            began = &mut begun => began.unwrap(),
        }
        go_on.send(()).unwrap();
        let again = cache.get(async { vec!["checked again"] }).await;
        assert_eq!(again, ["found"]);
    }
}
