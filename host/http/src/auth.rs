//! Whether a token or a customer may pass a proxy.

use crate::extract::{ApiRequest, Query, single_token};
use crate::identity::Caller;
use crate::problem::{Problem, ProblemBody};
use crate::state::App;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::Seconds;
use paygress_core::protocol::{duration_minutes, token_text};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// The query of `/auth`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuthQuery {
    /// A Cashu token; better in `X-Cashu` or `Authorization: Cashu`, which no access log keeps.
    token: Option<String>,
    /// What it must buy; left out: the operator's minimum.
    #[serde(default, deserialize_with = "duration_minutes")]
    #[param(minimum = 1, maximum = 5_256_000)]
    duration_minutes: Option<u64>,
}

/// Check a token
///
/// For a proxy that authorizes requests with a subrequest, as nginx's `auth_request` does: 200 when
/// the token would buy so much time now, or the customer of the bearer token or the signature has a
/// pod that still runs; 401 without any of these, 403 when it is not good. Nothing is taken, and there is no other status. The token must carry
/// its DLEQ proofs (NUT-12).
#[utoipa::path(get, path = "/auth", tag = "customer", params(AuthQuery, ("X-Cashu" = Option<String>, Header, description = "The token")),
    responses((status = 200, description = "Authorized"),
        (status = 401, description = "There is no token and no credential", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "Not authorized", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security((), ("bearer" = []), ("nip98" = []), ("cashu" = [])))]
pub(crate) async fn auth(
    State(app): State<Arc<App>>,
    query: Result<Query<AuthQuery>, Problem>,
    request: Result<ApiRequest, Problem>,
) -> Response {
    let denied = |problem: Problem| {
        let status = if problem.status() == StatusCode::UNAUTHORIZED {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::FORBIDDEN
        };
        problem.with_status(status).into_response()
    };
    let (query, request) = match (query, request) {
        (Ok(Query(query)), Ok(request)) => (query, request),
        (Err(problem), _) | (_, Err(problem)) => return denied(problem),
    };
    match authorize(&app, query, &request).await {
        Ok(reason) => {
            let reason = HeaderValue::from_static(reason.as_str());
            let headers = [
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (HeaderName::from_static("x-paygress-auth"), reason),
            ];
            headers.into_response()
        }
        Err(problem) => denied(problem),
    }
}

/// Why a request is authorized.
#[derive(Clone, Copy, Debug)]
enum Reason {
    /// The customer has a pod.
    Lease,
    /// The token would buy one.
    Token,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Token => "token",
        }
    }
}

async fn authorize(app: &App, query: AuthQuery, request: &ApiRequest) -> Result<Reason, Problem> {
    let in_query = query.token.as_deref().map(token_text);
    let token = single_token(in_query, request.token.clone())?;
    let token = token.filter(|token| !token.expose().is_empty());
    let customer = match (&request.caller, &token) {
        (Caller::Customer(customer), _) => Some(customer),
        // A token that has bought a pod opens nothing: others have seen it, its mint at least.
        (_, Some(_)) => None,
        (_, None) => {
            return Err(Problem::unauthorized(
                "there is no credential; put a Cashu token into X-Cashu, Authorization: Cashu, or token, \
                 or a pod's bearer token into Authorization: Bearer",
            ));
        }
    };
    if let Some(customer) = customer
        && app.orders.has_pods(customer).await?
    {
        return Ok(Reason::Lease);
    }
    let Some(token) = token else {
        return Err(
            Refusal::new(ErrorType::LeaseExpired, "this customer has no running pod").into()
        );
    };
    let wanted = query.duration_minutes.map(|minutes| Seconds(minutes.saturating_mul(60)));
    app.orders.verify_payment(&token, wanted, customer).await?;
    Ok(Reason::Token)
}
