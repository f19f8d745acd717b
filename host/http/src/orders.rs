//! Buying: a new pod, more time, and the status of an order.

use crate::extract::{ApiRequest, PathParam, header_items, idempotency_key, single_token};
use crate::limits;
use crate::order_handle::OrderHandle;
use crate::paid_order::{
    Accepted, CustomerSource, OrderResponse, PaidOrder, in_progress, message_id,
};
use crate::payment::{PaymentRequired, payment_required};
use crate::problem::{Problem, ProblemBody};
use crate::state::App;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use paygress_core::model::order::Purchase;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Seconds;
use paygress_core::orders::order_named;
use paygress_core::protocol::{Request, RequestBody};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// A top-up.
#[derive(Deserialize, ToSchema)]
#[schema(as = TopUpFields)]
pub(crate) struct TopUpBody {
    /// The pod.
    #[schema(max_length = 128)]
    #[allow(dead_code, reason = "the schema of what `Request::parse` reads")]
    pod_name: String,
    /// The Cashu token that pays.
    #[allow(dead_code, reason = "the schema of what `Request::parse` reads")]
    cashu_token: Option<String>,
    /// The time that a 402 names the price of. A token buys as much as it pays for.
    #[schema(minimum = 1, maximum = 5_256_000)]
    #[allow(dead_code, reason = "the schema of what `RequestBody::read` reads")]
    duration_minutes: Option<u64>,
}

/// What is bought.
struct Bought {
    purchase: Purchase,
    password: Option<Secret>,
    wanted: Option<Seconds>,
}

/// How long the client wants to wait (RFC 7240). What is not understood is ignored, and the first of
/// several counts.
fn preferred_wait(headers: &HeaderMap) -> Duration {
    let mut wait = None;
    for preference in header_items(headers, "prefer").flat_map(|item| item.split(';')) {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if name.eq_ignore_ascii_case("respond-async") {
            return Duration::ZERO;
        }
        if name.eq_ignore_ascii_case("wait") {
            wait = wait.or_else(|| value.parse().ok().map(Duration::from_secs));
        }
    }
    wait.unwrap_or(limits::WAIT).min(limits::WAIT)
}

/// Buys, or responds with the price.
async fn buy(
    app: &App,
    request: ApiRequest,
    token: Option<Secret>,
    bought: Bought,
) -> Result<Response, Problem> {
    let Bought { purchase, password, wanted } = bought;
    let token = single_token(token, request.token.clone())?;
    let Some(token) = token else {
        return payment_required(app, &request, &purchase, wanted).await;
    };
    if token.expose().len() > paygress_core::limits::TOKEN_BYTES {
        return Err(Refusal::new(
            ErrorType::InvalidToken,
            "the token is too long; send fewer, larger proofs",
        )
        .into());
    }
    let key = idempotency_key(&request.headers)?;
    let (customer, bearer) = request.buyer(app, key);
    let message = message_id(key)?;
    let wait = preferred_wait(&request.headers);
    let network = request.network;
    let customer_source = CustomerSource::Credential;
    let order = PaidOrder {
        token,
        purchase,
        password,
        customer,
        customer_source,
        bearer,
        message,
        network,
    };
    // It may wait for minutes, and its body and head are large.
    drop(request);
    let (buyer, submission) = order.submit(app).await?;
    buyer.respond(app, submission, wait).await
}

/// An empty body is an order without options.
fn body_of(request: &ApiRequest) -> &str {
    if request.body.trim().is_empty() { "{}" } else { &request.body }
}

/// Buy a pod
///
/// The token stands in the body, in `X-Cashu` or in `Authorization: Cashu`. Without one the
/// response is 402 and says what it costs (NUT-24, NUT-18). Waits until the pod takes logins;
/// `Prefer: respond-async` does not. The same token again is the same order, and gets the same
/// response with the credential of the first request: its bearer token, NIP-98 key or
/// `Idempotency-Key`. Without one of these it gets the order's state only, since others have seen
/// the token.
#[utoipa::path(post, path = "/spawn-pod", tag = "customer", request_body = RequestBody,
    params(("X-Cashu" = Option<String>, Header, description = "The token that pays"),
        ("Idempotency-Key" = Option<String>, Header, description = "16 to 128 random characters; the same key is the same order, and who has it gets its response again: keep it like a password"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`, or `wait=` and seconds; a list, in one line or several")),
    responses((status = 200, description = "The pod takes logins", body = OrderResponse), (status = 202, description = "It is paid for and being made", body = Accepted),
        (status = 402, description = "What it costs", body = PaymentRequired, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security((), ("bearer" = []), ("nip98" = []), ("cashu" = [])))]
pub(crate) async fn spawn(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    match Request::parse(body_of(&request))? {
        Request::Buy {
            token,
            purchase: purchase @ Purchase::Spawn { wanted, .. },
            password,
            ..
        } => {
            let bought = Bought { purchase, password, wanted };
            buy(&app, request, token, bought).await
        }
        _ => Err(Problem::invalid("this buys new pods; leave pod_name out, or use /top-up-pod")),
    }
}

/// Extend a pod
///
/// As `/spawn-pod`, for an existing pod. Send the bearer token or the signature of the customer who
/// bought it; whether others may extend it is decided by the operator's policy.
#[utoipa::path(post, path = "/top-up-pod", tag = "customer", request_body = TopUpBody,
    params(("X-Cashu" = Option<String>, Header, description = "The token that pays"),
        ("Idempotency-Key" = Option<String>, Header, description = "16 to 128 random characters; the same key is the same order, and who has it gets its response again: keep it like a password"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`, or `wait=` and seconds; a list, in one line or several")),
    responses((status = 200, description = "It lives longer", body = OrderResponse), (status = 202, description = "It is paid for and being extended", body = Accepted),
        (status = 402, description = "What it costs", body = PaymentRequired, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security((), ("bearer" = []), ("nip98" = []), ("cashu" = [])))]
pub(crate) async fn top_up(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let (token, pod) = match Request::parse(body_of(&request))? {
        Request::Buy { token, purchase: Purchase::TopUp { pod }, .. } => (token, pod),
        // A pod without a token, where more time is sold, is an order that is not paid for yet.
        Request::Status { pod } => (None, pod),
        _ => return Err(Problem::invalid("this extends pods; say which with pod_name")),
    };
    let wanted = RequestBody::read(body_of(&request))?.wanted();
    let bought = Bought { purchase: Purchase::TopUp { pod }, password: None, wanted };
    buy(&app, request, token, bought).await
}

/// Status of an order
///
/// The response that the order got or will get, for the customer who placed it.
#[utoipa::path(get, path = "/orders/{id}", tag = "customer", params(("id" = String, Path, description = "The order's id")),
    responses((status = 200, description = "Its response", body = OrderResponse), (status = 202, description = "It is in progress", body = Accepted),
        (status = "default", description = "A problem; also the order's own", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn order(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let id = order_named(id)?;
    let status = app.orders.order(&id, request.customer()?).await?;
    in_progress(status, OrderHandle::new(&id, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    #[test]
    fn a_client_that_prefers_not_to_wait_does_not() {
        for (lines, expected) in [
            (&[][..], limits::WAIT),
            (&["respond-async"], Duration::ZERO),
            (&["foo; wait=5"], Duration::from_secs(5)),
            (&["wait=99999999"], limits::WAIT),
            (&["wait=-1"], limits::WAIT),
            (&["wait=20", "respond-async"], Duration::ZERO),
            (&["return=minimal", "wait=20"], Duration::from_secs(20)),
            (&["return=minimal, Wait = \"20\""], Duration::from_secs(20)),
            (&["wait=20, wait=5"], Duration::from_secs(20)),
            (&["x=\", respond-async\"", "wait=5"], Duration::from_secs(5)),
        ] {
            let line = |text: &&str| {
                (HeaderName::from_static("prefer"), HeaderValue::from_str(text).unwrap())
            };
            let headers = HeaderMap::from_iter(lines.iter().map(line));
            assert_eq!(preferred_wait(&headers), expected, "{lines:?}");
        }
    }
}
