//! What a wallet is asked for: 402 with a payment request (NUT-24), the same as a request with a
//! target (NUT-18) for wallets that scan it, where those post to, and `/auth`.

use crate::App;
use crate::extract::{ApiRequest, Query, agreed};
use crate::identity::{Caller, customer_of, derived_bearer, fresh_bearer, is_bearer_customer};
use crate::orders::Order;
use crate::problem::{Problem, ProblemBody};
use axum::Json;
use axum::extract::State as Shared;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use paygress_core::backend::wallet::PaymentRequest;
use paygress_core::model::order::{Purchase, State};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Customer, OrderId, Seconds};
use paygress_core::protocol::{Request, unpaid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// What is for sale and what it costs, for people, programs and wallets.
#[derive(Serialize, ToSchema)]
pub(crate) struct PaymentRequired {
    #[serde(flatten)]
    problem: ProblemBody,
    #[serde(flatten)]
    price: Price,
}

/// A price.
#[derive(Serialize, ToSchema)]
pub(crate) struct Price {
    /// What must be left of the payment after the mint's input fee.
    amount: u64,
    /// `sat`.
    unit: String,
    /// The mints whose tokens are accepted.
    mints: Vec<String>,
    /// The tier.
    tier: String,
    /// What it buys.
    duration_seconds: u64,
    /// CPU, in thousandths of a core.
    cpu_millicores: u32,
    /// Memory, in MiB.
    memory_mb: u32,
    /// The exact price: so many thousandths of a sat…
    price_msats: u64,
    /// …for so many seconds.
    price_seconds: u64,
    /// A payment request (NUT-18) with a target: a wallet that is shown it pays, and the pod is the
    /// bearer token's.
    payment_request: String,
    /// Whoever shows it has the pod that `payment_request` buys. Only for who showed none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_token: Option<String>,
}

/// Where a wallet posts its payment to: the order that it pays for.
fn target(app: &App, purchase: &Purchase, customer: &Customer) -> String {
    let mut query: Vec<(&str, String)> = vec![("for", customer.0.clone())];
    match purchase {
        Purchase::TopUp { pod } => query.push(("pod_name", pod.0.clone())),
        Purchase::Spawn { image, tier, username, public_key, wanted } => {
            query.push(("ssh_username", username.clone()));
            query.extend(image.iter().map(|image| ("pod_image", image.clone())));
            query.extend(tier.iter().map(|tier| ("tier", tier.clone())));
            query.extend(public_key.iter().map(|key| ("ssh_public_key", key.clone())));
            query.extend(
                wanted
                    .iter()
                    .map(|wanted| ("duration_minutes", wanted.0.div_euclid(60).to_string())),
            );
        }
    }
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    format!("{}/pay?{}", app.public_url, pairs.join("&"))
}

/// A value as it stands in a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => {
                escaped.push('%');
                escaped.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    escaped
}

/// The 402 of an order that is not paid for.
pub(crate) async fn payment_required(
    app: &App,
    asked: &ApiRequest,
    purchase: &Purchase,
    wanted: Option<Seconds>,
) -> Result<Problem, Problem> {
    let (customer, bearer) = asked.customer_or(fresh_bearer);
    let tag = app.orders.price(purchase, wanted, &customer).await?;
    let window = app.orders.mints();
    let mints: Vec<String> = window.into_iter().map(|mint| mint.0).collect();
    let minutes = tag.seconds.0.div_ceil(60);
    let bought = match purchase {
        Purchase::Spawn { .. } => format!("{minutes} min of an SSH pod, tier {}", tag.tier),
        Purchase::TopUp { pod } => format!("{minutes} min more for {pod}"),
    };
    let in_band = app.orders.payment_request(&PaymentRequest {
        amount: tag.amount,
        description: None,
        target: None,
    });
    let described = Some(format!("{}: {bought}", app.settings.name));
    // Only a bearer token's customer can be named there: nobody is made the owner of what he did
    // not sign for.
    let target = is_bearer_customer(&customer.0).then(|| target(app, purchase, &customer));
    let payment_request = app.orders.payment_request(&PaymentRequest {
        amount: tag.amount,
        description: described,
        target,
    });
    let message = format!(
        "{bought}: {} after the mint's input fee. Send a token of {} in X-Cashu, in Authorization: Cashu, or as cashu_token in the body; \
         or have a wallet pay payment_request",
        tag.amount,
        mints.join(" or ")
    );
    let price = Price {
        amount: tag.amount.0,
        unit: "sat".to_owned(),
        mints,
        tier: tag.tier,
        duration_seconds: tag.seconds.0,
        cpu_millicores: tag.resources.cpu_millicores,
        memory_mb: tag.resources.memory_mib,
        price_msats: tag.price.msat.0,
        price_seconds: tag.price.seconds.0,
        payment_request,
        bearer_token: bearer.map(|bearer| bearer.expose().to_owned()),
    };
    let mut problem = Problem::payment_required(&message).with(json!(price));
    if let Ok(request) = HeaderValue::from_str(&in_band) {
        problem = problem.header(HeaderName::from_static("x-cashu"), request);
    }
    Ok(problem)
}

/// What a wallet's payment is for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PaidFor {
    /// The customer: `bearer:` and the SHA-256 of the bearer token, in hex.
    #[serde(rename = "for")]
    customer: String,
    /// As in `/top-up-pod`.
    pod_name: Option<String>,
    /// As in `/spawn-pod`.
    pod_image: Option<String>,
    /// As in `/spawn-pod`.
    tier: Option<String>,
    /// As in `/spawn-pod`.
    ssh_username: Option<String>,
    /// As in `/spawn-pod`.
    ssh_public_key: Option<String>,
    /// As in `/spawn-pod`.
    duration_minutes: Option<u64>,
}

/// A payment as a wallet posts it (NUT-18).
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "the schema of what the till reads")]
pub(crate) struct PaymentPayload {
    /// The payment request's id.
    id: Option<String>,
    /// Anything.
    memo: Option<String>,
    /// The mint.
    mint: String,
    /// `sat`.
    unit: String,
    /// The proofs (NUT-00).
    proofs: Vec<ProofPayload>,
}

/// A proof (NUT-00).
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, non_snake_case, reason = "the schema of what the till reads")]
pub(crate) struct ProofPayload {
    /// In the unit.
    amount: u64,
    /// The keyset's id.
    id: String,
    /// The secret.
    secret: String,
    /// The mint's signature.
    C: String,
}

/// What a wallet is told.
#[derive(Serialize, ToSchema)]
pub(crate) struct Paid {
    /// The order that was paid for.
    order_id: String,
    /// How far it is.
    state: String,
}

/// Pay as a wallet
///
/// Where wallets post what a payment request asks for (NUT-18). The pod is shown to who has the
/// bearer token, not to the wallet.
#[utoipa::path(post, path = "/pay", tag = "wallet", params(PaidFor), request_body = PaymentPayload,
    responses((status = 200, description = "The payment was taken", body = Paid),
        (status = "default", description = "A problem; the payment was not taken", body = ProblemBody, content_type = "application/problem+json")))]
pub(crate) async fn pay(
    Shared(app): Shared<Arc<App>>,
    Query(paid_for): Query<PaidFor>,
    asked: ApiRequest,
) -> Result<Json<Paid>, Problem> {
    if !is_bearer_customer(&paid_for.customer) {
        return Err(Problem::invalid(
            "for must be bearer: and the SHA-256 of a bearer token, in hex",
        ));
    }
    let token = app.orders.token_from_payload(&asked.body).await?;
    // One reader for orders, wherever they come from.
    let wishes = [
        ("pod_name", paid_for.pod_name),
        ("pod_image", paid_for.pod_image),
        ("tier", paid_for.tier),
        ("ssh_username", paid_for.ssh_username),
        ("ssh_public_key", paid_for.ssh_public_key),
    ];
    let mut fields: Map<String, Value> = wishes
        .into_iter()
        .filter_map(|(name, wish)| Some((name.to_owned(), wish?.into())))
        .collect();
    if let (Some(minutes), false) = (paid_for.duration_minutes, fields.contains_key("pod_name")) {
        fields.insert("duration_minutes".to_owned(), minutes.into());
    }
    fields.insert("cashu_token".to_owned(), token.expose().into());
    let Request::Buy { token: Some(token), purchase, password } =
        Request::parse(&Value::Object(fields).to_string())?
    else {
        return Err(unpaid().into());
    };
    let customer = Customer(paid_for.customer);
    let order = Order {
        token,
        purchase,
        password,
        customer,
        bearer: None,
        message: format!("http:{}", OrderId::random()),
    };
    let ticket = order.submit(&app).await?;
    let id = ticket.order().clone();
    let status = order.wait_settled(&app, &id).await?;
    match (status.state, status.answer) {
        (State::Refused, Some(answer)) => Err(Problem::of_answer(&answer)),
        (state, _) if state.is_awaiting_payment() => {
            let told =
                "it is not known yet whether the payment was taken; post the same again in a while";
            Err(paygress_core::Refusal::new(ErrorType::TokenPending, told).into())
        }
        // What became of it after that, a refund too, is its customer's to know, not the wallet's.
        (state, _) => Ok(Json(Paid { order_id: id.0, state: state.as_str().to_owned() })),
    }
}

/// What `/auth` is asked.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuthQuery {
    /// A Cashu token; better in `X-Cashu` or `Authorization: Cashu`, which no access log keeps.
    token: Option<String>,
    /// What it must buy; left out: the operator's minimum.
    #[param(minimum = 1, maximum = 5_256_000)]
    duration_minutes: Option<u64>,
}

/// Whether a token is good
///
/// For a gate that asks before it lets through, as nginx's `auth_request` does: 200 when the token
/// would buy so much time now, or has bought a pod that still runs; 401 without one, 403 when it is
/// not good. Nothing is taken, and nothing else is ever answered. The token must carry its DLEQ
/// proofs (NUT-12).
#[utoipa::path(get, path = "/auth", tag = "customer", params(AuthQuery, ("X-Cashu" = Option<String>, Header, description = "The token")),
    responses((status = 200, description = "Let it through"),
        (status = 401, description = "There is no token, or no credential", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "It is not good", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security((), ("bearer" = []), ("nip98" = []), ("cashu" = [])))]
pub(crate) async fn auth(
    Shared(app): Shared<Arc<App>>,
    query: Result<Query<AuthQuery>, Problem>,
    asked: Result<ApiRequest, Problem>,
) -> Response {
    let denied = |problem: Problem| {
        let status = if problem.status() == StatusCode::UNAUTHORIZED {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::FORBIDDEN
        };
        problem.with_status(status).into_response()
    };
    let (query, asked) = match (query, asked) {
        (Ok(Query(query)), Ok(asked)) => (query, asked),
        (Err(problem), _) | (_, Err(problem)) => return denied(problem),
    };
    match allowed(&app, query, &asked).await {
        Ok(told) => {
            ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], told).into_response()
        }
        Err(problem) => denied(problem),
    }
}

async fn allowed(
    app: &App,
    query: AuthQuery,
    asked: &ApiRequest,
) -> Result<[(HeaderName, HeaderValue); 1], Problem> {
    let told = |what: &'static str| {
        [(HeaderName::from_static("x-paygress-auth"), HeaderValue::from_static(what))]
    };
    let token = agreed(query.token.map(|token| Secret::new(token.trim())), asked.token.clone())?;
    let token = token.filter(|token| !token.expose().is_empty());
    let (customer, token) = match (&asked.caller, token) {
        (Caller::Customer(customer), token) => (customer.clone(), token),
        (_, Some(token)) => {
            (customer_of(&derived_bearer(&app.settings.bearer_key, &token)), Some(token))
        }
        (_, None) => {
            return Err(Problem::unauthorized(
                "there is no token; put it into X-Cashu, Authorization: Cashu, or token",
            ));
        }
    };
    if app.orders.has_pods(&customer).await? {
        return Ok(told("lease"));
    }
    let Some(token) = token else {
        return Err(paygress_core::Refusal::new(
            ErrorType::LeaseExpired,
            "this customer has no pod that lives",
        )
        .into());
    };
    let wanted = match query.duration_minutes {
        Some(minutes) if minutes == 0 || minutes > paygress_core::limits::WANTED_MINUTES => {
            return Err(Problem::invalid("duration_minutes is out of range"));
        }
        minutes => minutes.map(|minutes| Seconds(minutes.saturating_mul(60))),
    };
    app.orders.verify_payment(&token, wanted, &customer).await?;
    Ok(told("token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_query_cannot_become_another_one() {
        assert_eq!(escaped("a/b:1&tier=x y+%\u{e9}"), "a%2Fb%3A1%26tier%3Dx%20y%2B%25%C3%A9");
    }
}
