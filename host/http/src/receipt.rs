//! What comes with every response to an order.

use paygress_core::model::ids::OrderId;
use paygress_core::model::secret::Secret;
use serde::Serialize;
use utoipa::ToSchema;

/// What comes with every response to an order.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct Receipt {
    /// The order: `GET /orders/{id}` gives its response again.
    pub(crate) order_id: String,
    /// Its bearer is this customer: `Authorization: Bearer …`. Only if the request carried none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bearer_token: Option<String>,
}

impl Receipt {
    pub(crate) fn new(order: &OrderId, bearer: Option<&Secret>) -> Self {
        let bearer_token = bearer.map(|bearer| bearer.expose().to_owned());
        Self { order_id: order.to_string(), bearer_token }
    }
}
