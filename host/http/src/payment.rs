//! What an order costs: 402 with a payment request (NUT-24), and one with a target (NUT-18) for
//! wallets that scan it.

use crate::extract::ApiRequest;
use crate::identity::fresh_bearer;
use crate::pay;
use crate::problem::{Problem, ProblemBody};
use crate::state::App;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use paygress_core::backend::capacity::Tier;
use paygress_core::backend::wallet::PaymentRequest;
use paygress_core::model::http_port::HttpPort;
use paygress_core::model::ids::Customer;
use paygress_core::model::order::Purchase;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Seconds;
use paygress_core::orders::PriceEstimate;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;

/// All but the unreserved characters of RFC 3986.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

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
    /// The tier; left out, as CPU and memory are, of another customer's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    tier: Option<String>,
    /// What it buys.
    duration_seconds: u64,
    /// CPU, in thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u32)]
    cpu_millicores: Option<u32>,
    /// Memory, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u32)]
    memory_mb: Option<u32>,
    /// The exact price: so many thousandths of a sat…
    price_msats: u64,
    /// …for so many seconds.
    price_seconds: u64,
    /// A payment request (NUT-18) with a target: a wallet pays it, and the pod belongs to the
    /// bearer token's customer.
    payment_request: String,
    /// Its bearer has the pod that `payment_request` buys. Only if the request carried none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_token: Option<String>,
}

impl Price {
    fn new(
        estimate: PriceEstimate,
        mints: Vec<String>,
        payment_request: String,
        bearer: Option<&Secret>,
    ) -> Self {
        let resources = estimate.tier.as_ref().map(|tier| tier.resources);
        Self {
            amount: estimate.amount.0,
            unit: "sat".to_owned(),
            mints,
            tier: estimate.tier.map(|tier| tier.id.into()),
            duration_seconds: estimate.seconds.0,
            cpu_millicores: resources.map(|resources| resources.cpu_millicores),
            memory_mb: resources.map(|resources| resources.memory_mib),
            price_msats: estimate.price.msat.0,
            price_seconds: estimate.price.seconds.0,
            payment_request,
            bearer_token: bearer.map(|bearer| bearer.expose().to_owned()),
        }
    }
}

/// The URL that a wallet posts its payment to: it names the order.
fn target(app: &App, purchase: &Purchase, customer: &Customer) -> String {
    let mut query: Vec<(&str, String)> = vec![("for", customer.to_string())];
    match purchase {
        Purchase::TopUp { pod } => query.push(("pod_name", pod.to_string())),
        Purchase::Spawn { image, tier, username, public_key, wanted, run, http } => {
            query.push(("ssh_username", username.to_string()));
            query.extend(image.iter().map(|image| ("pod_image", image.clone())));
            query.extend(tier.iter().map(|tier| ("tier", tier.clone())));
            query.extend((!run.is_ssh()).then(|| ("run", run.as_str().to_owned())));
            query.extend(http.iter().map(|http| ("http_port", http.port().to_string())));
            let is_public = http.is_some_and(HttpPort::is_public);
            query.extend(is_public.then(|| ("http_public", "true".to_owned())));
            query.extend(public_key.iter().map(|key| ("ssh_public_key", key.clone())));
            query.extend(
                wanted
                    .iter()
                    .map(|wanted| ("duration_minutes", wanted.0.div_euclid(60).to_string())),
            );
        }
    }
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", query_value(value))).collect();
    format!("{}{}?{}", app.public_url, pay::PATH, pairs.join("&"))
}

fn query_value(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, QUERY_VALUE)
}

/// The 402 of an order that is not paid for.
pub(crate) async fn payment_required(
    app: &App,
    request: &ApiRequest,
    purchase: &Purchase,
    wanted: Option<Seconds>,
) -> Result<Response, Problem> {
    let (customer, bearer) = request.customer_or(fresh_bearer);
    let estimate = app.orders.price(purchase, wanted, Some(&customer)).await?;
    let mints: Vec<String> = app.orders.mints().into_iter().map(String::from).collect();
    let minutes = estimate.seconds.0.div_ceil(60);
    let bought = match (purchase, &estimate.tier) {
        (Purchase::TopUp { pod }, _) => format!("{minutes} min more for {pod}"),
        (Purchase::Spawn { .. }, Some(Tier { id, .. })) => {
            format!("{minutes} min of an SSH pod, tier {id}")
        }
        (Purchase::Spawn { .. }, None) => format!("{minutes} min of an SSH pod"),
    };
    let in_band = app.orders.payment_request(&PaymentRequest {
        amount: estimate.amount,
        description: None,
        target: None,
    });
    let described = Some(format!("{}: {bought}", app.settings.name));
    // Only a bearer token's customer can be named there: nobody becomes the owner of what they did
    // not sign for.
    let target = matches!(customer, Customer::Bearer(_)).then(|| target(app, purchase, &customer));
    let payment_request = app.orders.payment_request(&PaymentRequest {
        amount: estimate.amount,
        description: described,
        target,
    });
    let message = format!(
        "{bought}: {} after the mint's input fee. Send a token of {} in X-Cashu, in Authorization: Cashu, or as cashu_token in the body; \
         or have a wallet pay payment_request",
        estimate.amount,
        mints.join(" or ")
    );
    let price = Price::new(estimate, mints, payment_request, bearer.as_ref());
    let mut problem = Problem::payment_required(&message);
    if let Ok(request) = HeaderValue::from_str(&in_band) {
        problem = problem.header(HeaderName::from_static("x-cashu"), request);
    }
    Ok(problem.into_response_as(|problem| PaymentRequired { problem, price }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_query_cannot_become_another_one() {
        let encoded = query_value("a/b:1&tier=x y+%\u{e9}-._~").to_string();
        assert_eq!(encoded, "a%2Fb%3A1%26tier%3Dx%20y%2B%25%C3%A9-._~");
    }
}
