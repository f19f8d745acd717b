//! Where wallets post their payments to (NUT-18).

use crate::extract::{ApiRequest, Query};
use crate::paid_order::{CustomerSource, PaidOrder, message_id};
use crate::problem::{Problem, ProblemBody};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use paygress_core::model::ids::Customer;
use paygress_core::model::order::State as OrderState;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{
    Request, RequestBody, Response, duration_minutes, http_port, sorted, unpaid,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// The path, which payment requests name.
pub(crate) const PATH: &str = "/pay";

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
    run: Option<String>,
    /// As in `/spawn-pod`.
    #[serde(default, deserialize_with = "http_port")]
    http_port: Option<u64>,
    /// As in `/spawn-pod`.
    http_public: Option<bool>,
    /// As in `/spawn-pod`.
    ssh_username: Option<String>,
    /// As in `/spawn-pod`.
    ssh_public_key: Option<String>,
    /// As in `/spawn-pod`.
    #[serde(default, deserialize_with = "duration_minutes")]
    duration_minutes: Option<u64>,
}

impl PaidFor {
    fn into_request(self, token: &Secret) -> RequestBody {
        let is_top_up = self.pod_name.is_some();
        RequestBody {
            cashu_token: Some(token.expose().to_owned()),
            pod_name: self.pod_name,
            pod_image: self.pod_image,
            tier: self.tier,
            run: self.run,
            http_port: self.http_port,
            http_public: self.http_public,
            ssh_username: self.ssh_username,
            ssh_public_key: self.ssh_public_key,
            duration_minutes: self.duration_minutes.filter(|_| !is_top_up),
            ..RequestBody::default()
        }
    }
}

/// A payment as a wallet posts it (NUT-18).
#[derive(ToSchema)]
#[allow(dead_code, reason = "the types of what the wallet reads")]
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
#[derive(ToSchema)]
#[allow(dead_code, non_snake_case, reason = "the types of what the wallet reads")]
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

/// The response to a wallet.
#[derive(Serialize, ToSchema)]
pub(crate) struct Paid {
    /// The order that was paid for.
    order_id: String,
    /// How far it is.
    state: String,
}

/// Pay as a wallet
///
/// Where wallets post the payment of a payment request (NUT-18), wallets in web pages too: this path
/// takes requests of any origin. The pod belongs to the bearer token's customer, not to the wallet.
#[utoipa::path(post, path = "/pay", tag = "wallet", params(PaidFor), request_body = PaymentPayload,
    responses((status = 200, description = "The payment was taken", body = Paid),
        (status = "default", description = "A problem; the payment was not taken", body = ProblemBody, content_type = "application/problem+json")))]
pub(crate) async fn pay(
    State(app): State<Arc<App>>,
    Query(paid_for): Query<PaidFor>,
    request: ApiRequest,
) -> Result<Json<Paid>, Problem> {
    let Ok(customer @ Customer::Bearer(_)) = Customer::parse(&paid_for.customer) else {
        return Err(Problem::invalid(
            "for must be bearer: and the SHA-256 of a bearer token, in hex",
        ));
    };
    let token = app.orders.token_from_payload(&request.body).await?;
    // One parser for orders, whatever they come in.
    let body = sorted(&paid_for.into_request(&token)).to_string();
    drop(token);
    let Request::Buy { token: Some(token), purchase, password, .. } = Request::parse(&body)? else {
        return Err(unpaid().into());
    };
    drop(body);
    let order = PaidOrder {
        token,
        purchase,
        password,
        customer,
        customer_source: CustomerSource::Payer,
        bearer: None,
        message: message_id(None)?,
        network: request.network,
    };
    // It may wait for its mint, and its body is large.
    drop(request);
    let (buyer, submission) = order.submit(&app).await?;
    let id = submission.order().clone();
    let status = buyer.wait_settled(&app, &id).await?;
    match (status.state, status.response) {
        (OrderState::Refused, Some(Response::Error(error))) => Err(Problem::of_response(&error)),
        (state, _) if state.is_awaiting_payment() => {
            let message =
                "it is not known yet whether the payment was taken; post the same again in a while";
            Err(Refusal::new(ErrorType::TokenPending, message).into())
        }
        // What follows, a refund too, is for the customer to know, not for the wallet.
        (state, _) => Ok(Json(Paid { order_id: id.into(), state: state.as_str().to_owned() })),
    }
}
