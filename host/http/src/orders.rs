//! Buying: a new pod, more time, and what became of it.

use crate::App;
use crate::extract::{ApiRequest, PathParam, agreed, is_visible, one};
use crate::limits;
use crate::payment::payment_required;
use crate::problem::{Problem, ProblemBody};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use paygress_core::backend::responder::{ReplyTo, Transport};
use paygress_core::model::order::Purchase;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Customer, OrderId, Seconds};
use paygress_core::orders::{NewOrder, OrderStatus, Submission};
use paygress_core::protocol::{AccessDetails, Request, RequestBody, StopResponse, TopUpResponse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// What comes with every answer to an order.
#[derive(Serialize, ToSchema)]
pub(crate) struct Receipt {
    /// The order: `GET /orders/{id}` gives its answer again.
    order_id: String,
    /// Whoever shows it is this customer: `Authorization: Bearer …`. Only for who showed none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_token: Option<String>,
}

/// A pod that was bought.
#[derive(Serialize, ToSchema)]
pub(crate) struct Spawned {
    #[serde(flatten)]
    details: AccessDetails,
    #[serde(flatten)]
    receipt: Receipt,
}

/// A pod that was extended.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToppedUp {
    #[serde(flatten)]
    details: TopUpResponse,
    #[serde(flatten)]
    receipt: Receipt,
}

/// What an order is answered with. One that is asked for again after its pod was stopped is
/// answered as the stop was.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant, reason = "the schema of what the desk answers")]
pub(crate) enum Answer {
    Spawned(Spawned),
    ToppedUp(ToppedUp),
    Stopped(Stopped),
}

/// A pod that was stopped.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stopped {
    #[serde(flatten)]
    details: StopResponse,
    #[serde(flatten)]
    receipt: Receipt,
}

/// A top-up as it is written.
#[derive(Deserialize, ToSchema)]
pub(crate) struct TopUpFields {
    /// The pod.
    #[schema(max_length = 128)]
    #[allow(dead_code, reason = "the schema of what the desk's reader reads")]
    pod_name: String,
    /// The Cashu token that pays.
    #[allow(dead_code, reason = "the schema of what the desk's reader reads")]
    cashu_token: Option<String>,
    /// What a 402 names the price of; whatever the token pays for is added.
    #[schema(minimum = 1, maximum = 5_256_000)]
    duration_minutes: Option<u64>,
}

/// An order that is on its way.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// How far it is.
    state: String,
    /// The pod that it makes or extends.
    pod_name: String,
    /// What to do now.
    message: String,
    #[serde(flatten)]
    receipt: Receipt,
}

/// An order that is paid for.
pub(crate) struct Order {
    pub(crate) token: Secret,
    pub(crate) purchase: Purchase,
    pub(crate) password: Option<Secret>,
    pub(crate) customer: Customer,
    pub(crate) bearer: Option<Secret>,
    pub(crate) message: String,
}

impl Order {
    fn receipt(&self, id: &OrderId) -> Receipt {
        Receipt {
            order_id: id.0.clone(),
            bearer_token: self.bearer.as_ref().map(|bearer| bearer.expose().to_owned()),
        }
    }

    /// Hands it to the desk. Who hangs up loses nothing: the order goes on.
    pub(crate) async fn submit(&self, app: &App) -> Result<Submission, Problem> {
        let incoming = NewOrder {
            message: self.message.clone(),
            reply_to: ReplyTo {
                door: Transport::Http,
                customer: self.customer.clone(),
                relay: None,
                request: None,
            },
            token: self.token.clone(),
            purchase: self.purchase.clone(),
            password: self.password.clone(),
        };
        let orders = Arc::clone(&app.orders);
        // In a task of its own: this one ends with its connection.
        let submitted = tokio::spawn(async move { orders.submit(incoming).await }).await;
        let ticket = submitted.map_err(|_| {
            Refusal::new(ErrorType::InternalError, "try again with the same token")
        })??;
        tracing::info!(order = %ticket.order(), customer = %self.customer, "order taken");
        Ok(ticket)
    }

    /// Its answer, or where to find it when that takes longer than who waits has patience for.
    async fn answer(
        &self,
        app: &App,
        ticket: Submission,
        patience: Duration,
    ) -> Result<Response, Problem> {
        let id = ticket.order().clone();
        let answered = async {
            match ticket.answer().await {
                Some(answer) => Ok(answer),
                None => app.orders.wait_response(&id, &self.customer).await,
            }
        };
        let answer = if patience.is_zero() {
            None
        } else {
            tokio::time::timeout(patience, answered).await.ok()
        };
        let receipt = self.receipt(&id);
        match answer {
            Some(Ok(answer)) => Ok(told(answer, &receipt)?.into_response()),
            // Whatever is wrong, who paid knows what to ask for.
            Some(Err(refusal)) => Err(Problem::from(refusal).with(json!(receipt))),
            None => self.accepted(app, &id).await.map_err(|problem| problem.with(json!(receipt))),
        }
    }

    /// The order is on its way, once it is known that its token was taken; or it is over already.
    async fn accepted(&self, app: &App, id: &OrderId) -> Result<Response, Problem> {
        on_its_way(self.wait_settled(app, id).await?, &self.receipt(id))
    }

    /// How far it is, once it is known whether its token was taken; or as far as it is when that
    /// takes too long.
    pub(crate) async fn wait_settled(
        &self,
        app: &App,
        id: &OrderId,
    ) -> Result<OrderStatus, Problem> {
        match tokio::time::timeout(limits::TAKEN, app.orders.wait_settled(id, &self.customer)).await
        {
            Ok(status) => Ok(status?),
            Err(_) => Ok(app.orders.order(id, &self.customer).await?),
        }
    }
}

/// An answer with its receipt.
fn told(answer: Value, receipt: &Receipt) -> Result<Json<Value>, Problem> {
    match answer.get("error_type") {
        Some(_) => Err(Problem::of_answer(&answer).with(json!(receipt))),
        None => Ok(Json(with_receipt(answer, receipt))),
    }
}

fn with_receipt(mut answer: Value, receipt: &Receipt) -> Value {
    if let (Some(fields), Value::Object(receipt)) = (answer.as_object_mut(), json!(receipt)) {
        fields.extend(receipt);
    }
    answer
}

fn on_its_way(status: OrderStatus, receipt: &Receipt) -> Result<Response, Problem> {
    if let Some(answer) = status.answer {
        return Ok(told(answer, receipt)?.into_response());
    }
    let location = format!("/orders/{}", status.id);
    let message = format!(
        "the order is on its way; ask for {location}, or watch /pods/{}/events",
        status.pod
    );
    let body =
        json!({ "state": status.state.as_str(), "pod_name": status.pod, "message": message });
    let mut response = (StatusCode::ACCEPTED, Json(with_receipt(body, receipt))).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// How long who asks wants to wait (RFC 7240).
fn patience(headers: &HeaderMap) -> Result<Duration, Problem> {
    let Some(text) = one(headers, "prefer")? else { return Ok(limits::WAIT) };
    let mut wait = limits::WAIT;
    for preference in text.split([',', ';']).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            return Ok(Duration::ZERO);
        }
        if let Some(seconds) =
            preference.strip_prefix("wait=").and_then(|seconds| seconds.parse().ok())
        {
            wait = wait.min(Duration::from_secs(seconds));
        }
    }
    Ok(wait)
}

/// The id of the message that an order is: the same key is the same order.
fn message(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(key) = one(headers, "idempotency-key")? else {
        return Ok(format!("http:{}", OrderId::random()));
    };
    if !is_visible(key, &limits::KEY_CHARS) {
        let (least, most) = (limits::KEY_CHARS.start(), limits::KEY_CHARS.end());
        return Err(Problem::invalid(&format!(
            "an Idempotency-Key has {least} to {most} visible characters; a UUID is a good one"
        )));
    }
    Ok(format!("http:{}", hex::encode(Sha256::digest(key))))
}

/// Buys, or says what it costs.
async fn buy(
    app: &App,
    asked: &ApiRequest,
    token: Option<Secret>,
    wanted: Option<Seconds>,
    what: (Purchase, Option<Secret>),
) -> Result<Response, Problem> {
    let (purchase, password) = what;
    let token = agreed(token, asked.token.clone())?;
    let Some(token) = token else {
        return Err(payment_required(app, asked, &purchase, wanted).await?);
    };
    if token.expose().len() > paygress_core::limits::TOKEN_BYTES {
        return Err(Refusal::new(
            ErrorType::InvalidToken,
            "the token is too long; send fewer, larger proofs",
        )
        .into());
    }
    let (customer, bearer) = asked.buyer(app, &token);
    let (message, patience) = (message(&asked.headers)?, patience(&asked.headers)?);
    let order = Order { token, purchase, password, customer, bearer, message };
    let ticket = order.submit(app).await?;
    order.answer(app, ticket, patience).await
}

/// An empty body is an order without wishes.
fn text(asked: &ApiRequest) -> &str {
    if asked.body.trim().is_empty() { "{}" } else { &asked.body }
}

/// Buy a pod
///
/// The token stands in the body, in `X-Cashu` or in `Authorization: Cashu`. Without one the answer
/// is 402 and says what it costs (NUT-24, NUT-18). Waits until the pod takes logins; `Prefer:
/// respond-async` does not. The same token again, or the same
/// `Idempotency-Key`, is the same order and gets the same answer: send a bearer token of your own
/// if somebody else may know the token.
#[utoipa::path(post, path = "/spawn-pod", tag = "customer", request_body = RequestBody,
    params(("X-Cashu" = Option<String>, Header, description = "The token that pays"),
        ("Idempotency-Key" = Option<String>, Header, description = "16 to 128 characters; the same key is the same order"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`, or `wait=` and seconds")),
    responses((status = 200, description = "The pod takes logins", body = Answer), (status = 202, description = "It is paid for and being made", body = Accepted),
        (status = 402, description = "What it costs", body = crate::payment::PaymentRequired, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security((), ("bearer" = []), ("nip98" = []), ("cashu" = [])))]
pub(crate) async fn spawn(
    State(app): State<Arc<App>>,
    asked: ApiRequest,
) -> Result<Response, Problem> {
    match Request::parse(text(&asked))? {
        Request::Buy { token, purchase: purchase @ Purchase::Spawn { wanted, .. }, password } => {
            buy(&app, &asked, token, wanted, (purchase, password)).await
        }
        _ => Err(Problem::invalid("this buys new pods; leave pod_name out, or go to /top-up-pod")),
    }
}

/// Extend a pod
///
/// As `/spawn-pod`, for a pod that is there. Show the bearer token or sign with the key that bought
/// it; whether others may extend it is for the operator's policy to say.
#[utoipa::path(post, path = "/top-up-pod", tag = "customer", request_body = TopUpFields,
    params(("X-Cashu" = Option<String>, Header, description = "The token that pays"),
        ("Idempotency-Key" = Option<String>, Header, description = "16 to 128 characters; the same key is the same order"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`, or `wait=` and seconds")),
    responses((status = 200, description = "It lives longer", body = Answer), (status = 202, description = "It is paid for and being extended", body = Accepted),
        (status = 402, description = "What it costs", body = crate::payment::PaymentRequired, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security((), ("bearer" = []), ("nip98" = []), ("cashu" = [])))]
pub(crate) async fn top_up(
    State(app): State<Arc<App>>,
    asked: ApiRequest,
) -> Result<Response, Problem> {
    let (token, pod) = match Request::parse(text(&asked))? {
        Request::Buy { token, purchase: Purchase::TopUp { pod }, .. } => (token, pod),
        // A pod without a token, where more time is sold, is an order that is not paid for yet.
        Request::Status { pod } => (None, pod),
        _ => return Err(Problem::invalid("this extends pods; say which with pod_name")),
    };
    let minutes = serde_json::from_str::<TopUpFields>(text(&asked))
        .ok()
        .and_then(|fields| fields.duration_minutes);
    let wanted = minutes.map(|minutes| Seconds(minutes.saturating_mul(60)));
    buy(&app, &asked, token, wanted, (Purchase::TopUp { pod }, None)).await
}

/// What became of an order
///
/// The answer that the order got or will get, for the customer who gave it.
#[utoipa::path(get, path = "/orders/{id}", tag = "customer", params(("id" = String, Path, description = "The order's id")),
    responses((status = 200, description = "Its answer", body = Answer), (status = 202, description = "It is on its way", body = Accepted),
        (status = "default", description = "A problem; also the order's own", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn order(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam,
    asked: ApiRequest,
) -> Result<Response, Problem> {
    let id = OrderId(id);
    let status = app.orders.order(&id, asked.customer()?).await?;
    on_its_way(status, &Receipt { order_id: id.0, bearer_token: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_prefers_not_to_wait_does_not() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(
                header::HeaderName::from_static("prefer"),
                HeaderValue::from_str(text).unwrap(),
            )]);
            patience(&headers).unwrap()
        };
        assert_eq!(patience(&HeaderMap::new()).unwrap(), limits::WAIT);
        assert_eq!(
            (of("respond-async"), of("foo; wait=5")),
            (Duration::ZERO, Duration::from_secs(5))
        );
        assert_eq!((of("wait=99999999"), of("wait=-1")), (limits::WAIT, limits::WAIT));
    }

    #[test]
    fn the_same_key_is_the_same_message() {
        let of = |text: &'static str| {
            message(&HeaderMap::from_iter([(
                header::HeaderName::from_static("idempotency-key"),
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(of("0123456789abcdef").unwrap(), of("0123456789abcdef").unwrap());
        assert_ne!(message(&HeaderMap::new()).unwrap(), message(&HeaderMap::new()).unwrap());
        assert!(of("1").is_err() && of("with spaces in it!").is_err());
    }
}
