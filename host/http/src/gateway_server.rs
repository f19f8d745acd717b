//! Health and metrics of a gateway in a process of its own. The service's HTTP server has the same,
//! made by the same code.

use crate::gateway_metrics::encode_gateway;
use crate::health::{Readiness, ReadinessCache, healthz};
use crate::http_server::Error;
use crate::identity::{same, scheme_and_rest};
use crate::metric_families::{gauges, openmetrics, registry};
use crate::overflow::no_place;
use crate::problem::{Problem, ProblemType};
use crate::request_metrics::Labels;
use crate::server;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use paygress_core::backend::gateway::{GatewayCounts, GatewayHealth};
use paygress_core::listen_addresses;
use paygress_core::model::secret::Secret;
use paygress_core::readiness::UnreadyReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct GatewayServerSettings {
    /// Where to listen.
    pub bind: SocketAddr,
    /// The operator's bearer token; none: there are no metrics.
    pub operator_token: Option<Secret>,
}

struct GatewayState {
    health: Arc<dyn GatewayHealth>,
    operator_token: Option<Secret>,
    ready: ReadinessCache,
}

impl GatewayState {
    async fn unready_reasons(&self) -> Vec<&'static str> {
        let health = Arc::clone(&self.health);
        let find = async move {
            let reasons = health.unready_reasons().await;
            reasons.into_iter().map(UnreadyReason::as_str).collect()
        };
        self.ready.get(find).await
    }

    /// Fails unless the request has the operator's token.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.operator_token else { return Err(Problem::operator_disabled()) };
        let header = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
        let is_operator = header
            .map(scheme_and_rest)
            .is_some_and(|(scheme, rest)| scheme == "bearer" && same(token, rest));
        if is_operator { Ok(()) } else { Err(Problem::operator_only()) }
    }
}

/// The server: listening, and not yet serving.
pub struct GatewayServer {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<GatewayState>,
}

impl GatewayServer {
    /// Listens. Nobody is served yet.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bind(
        settings: GatewayServerSettings,
        health: Arc<dyn GatewayHealth>,
    ) -> Result<Self, Error> {
        let GatewayServerSettings { bind, operator_token } = settings;
        let failed = |source| Error::BindGateway { address: bind, source };
        let listener = TcpListener::bind(&listen_addresses(bind)[..]).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let ready = ReadinessCache::default();
        let state = Arc::new(GatewayState { health, operator_token, ready });
        Ok(Self { listener, address, state })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        tracing::info!(address = %self.address, "health and metrics of the gateway are served");
        let not_found = || async {
            Problem::new(ProblemType::NoSuchPage, "there are /healthz, /readyz and /metrics")
        };
        let router = probes().route("/metrics", get(metrics)).fallback(not_found);
        let router: Router = router.with_state(Arc::clone(&self.state));
        let overflow = overflow_router(self.state);
        server::serve(&self.listener, &router, &overflow, &[]).await;
    }
}

fn probes() -> Router<Arc<GatewayState>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// What is answered on connections without a place.
fn overflow_router(state: Arc<GatewayState>) -> Router {
    probes().fallback(no_place).method_not_allowed_fallback(no_place).with_state(state)
}

async fn readyz(State(state): State<Arc<GatewayState>>) -> (StatusCode, Json<Readiness>) {
    Readiness::of(&state.unready_reasons().await, state.health.warnings())
}

async fn metrics(
    State(state): State<Arc<GatewayState>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.authenticate(&headers)?;
    let is_ready = state.unready_reasons().await.is_empty();
    let counts = state.health.counts();
    let mut registry = registry();
    registry.register_collector(Box::new(Snapshot { is_ready, counts }));
    openmetrics(&registry)
}

#[derive(Debug)]
struct Snapshot {
    is_ready: bool,
    counts: GatewayCounts,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Whether the gateway takes customers to their pods, as /readyz says";
        let ready = [(Labels::new(), u64::from(self.is_ready))];
        gauges(&mut encoder, "gateway_ready", help, &ready)?;
        encode_gateway(&mut encoder, &self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use axum::body::Body;
    use axum::http::Request;
    use tower_service::Service;

    struct Nothing;

    #[async_trait]
    impl GatewayHealth for Nothing {
        async fn unready_reasons(&self) -> Vec<UnreadyReason> {
            Vec::new()
        }

        fn warnings(&self) -> Vec<&'static str> {
            Vec::new()
        }

        fn counts(&self) -> GatewayCounts {
            GatewayCounts::default()
        }
    }

    fn status(token: Option<&str>, header: Option<&str>) -> StatusCode {
        let operator_token = token.map(Secret::new);
        let ready = ReadinessCache::default();
        let state = GatewayState { health: Arc::new(Nothing), operator_token, ready };
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(header::AUTHORIZATION, header.parse().unwrap());
        }
        match state.authenticate(&headers) {
            Ok(()) => StatusCode::OK,
            Err(problem) => axum::response::IntoResponse::into_response(problem).status(),
        }
    }

    #[tokio::test]
    async fn without_a_place_a_probe_is_answered_and_all_else_refused() {
        let ready = ReadinessCache::default();
        let state = GatewayState { health: Arc::new(Nothing), operator_token: None, ready };
        let mut router = overflow_router(Arc::new(state));
        for (method, path, expected) in [
            ("GET", "/healthz", StatusCode::OK),
            ("GET", "/readyz", StatusCode::OK),
            ("POST", "/healthz", StatusCode::SERVICE_UNAVAILABLE),
            ("GET", "/metrics", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let request = Request::builder().method(method).uri(path);
            let answer = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), expected, "{method} {path}");
        }
    }

    #[test]
    fn metrics_need_the_operators_token() {
        let token = Some("a token of the operator");
        for (header, expected) in [
            (Some("Bearer a token of the operator"), StatusCode::OK),
            (Some("bearer  a token of the operator "), StatusCode::OK),
            (Some("Bearer another"), StatusCode::UNAUTHORIZED),
            (Some("Basic a token of the operator"), StatusCode::UNAUTHORIZED),
            (Some("Bearer"), StatusCode::UNAUTHORIZED),
            (None, StatusCode::UNAUTHORIZED),
        ] {
            assert_eq!(status(token, header), expected, "{header:?}");
        }
        assert_eq!(status(None, Some("Bearer ")), StatusCode::NOT_FOUND);
    }
}
