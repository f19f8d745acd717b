//! What a client needs to ask for its order again: the id, and the bearer token if it had none.

use paygress_core::model::ids::OrderId;
use paygress_core::model::secret::Secret;
use serde::Serialize;
use utoipa::ToSchema;

// Its schema has the name of version 0.1.0. What the service signs is `SignedReceipt` of the core.
/// What comes with every response to an order.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(crate) struct OrderHandle {
    /// The order: `GET /orders/{id}` gives its response again.
    pub(crate) order_id: String,
    /// Its bearer is this customer: `Authorization: Bearer …`. Only if the request carried none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bearer_token: Option<String>,
}

impl OrderHandle {
    pub(crate) fn new(order: &OrderId, bearer: Option<&Secret>) -> Self {
        let bearer_token = bearer.map(|bearer| bearer.expose().to_owned());
        Self { order_id: order.to_string(), bearer_token }
    }
}
