//! An order that is paid for: submitted, waited for, answered.

use crate::limits;
use crate::order_handle::OrderHandle;
use crate::problem::Problem;
use crate::responder::TRANSPORT;
use crate::sorted_json::SortedJson;
use crate::state::App;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::Repetition;
use paygress_core::model::ids::{Customer, MessageId, OrderId};
use paygress_core::model::order::Purchase;
use paygress_core::model::secret::Secret;
use paygress_core::orders::{NewOrder, OrderStatus, Submission};
use paygress_core::protocol::{self, AccessDetails, StopResponse, TopUpResponse};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// A pod that was bought.
#[derive(Serialize, ToSchema)]
pub(crate) struct Spawned {
    #[serde(flatten)]
    details: AccessDetails,
    #[serde(flatten)]
    handle: OrderHandle,
}

/// A pod that was extended.
#[derive(Serialize, ToSchema)]
pub(crate) struct ToppedUp {
    #[serde(flatten)]
    details: TopUpResponse,
    #[serde(flatten)]
    handle: OrderHandle,
}

/// A pod that was stopped.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stopped {
    #[serde(flatten)]
    details: StopResponse,
    #[serde(flatten)]
    handle: OrderHandle,
}

/// The response to an order. An order whose pod was stopped since has the response of the stop.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Answer)]
pub(crate) enum OrderResponse {
    Spawned(Box<Spawned>),
    ToppedUp(ToppedUp),
    Stopped(Stopped),
}

impl OrderResponse {
    fn new(response: protocol::Response, handle: OrderHandle) -> Result<Self, Problem> {
        match response {
            protocol::Response::Access(details) => {
                Ok(Self::Spawned(Box::new(Spawned { details, handle })))
            }
            protocol::Response::ToppedUp(details) => {
                Ok(Self::ToppedUp(ToppedUp { details, handle }))
            }
            protocol::Response::Stopped(details) => Ok(Self::Stopped(Stopped { details, handle })),
            protocol::Response::Error(error) => {
                Err(Problem::of_response(&error).with_handle(handle))
            }
            protocol::Response::Status(_) | protocol::Response::Notice(_) => {
                let problem = Problem::internal("the order has the response to another request");
                Err(problem.with_handle(handle))
            }
        }
    }
}

/// An order that is in progress.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// How far it is.
    state: String,
    /// The pod that it makes or extends.
    pod_name: String,
    /// What to do now.
    message: String,
    #[serde(flatten)]
    handle: OrderHandle,
}

/// Who says whose order it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CustomerSource {
    /// A credential of the customer's own, or one that is made for them.
    Credential,
    /// The payment's URL, which anybody can write.
    Payer,
}

pub(crate) struct PaidOrder {
    pub(crate) token: Secret,
    pub(crate) purchase: Purchase,
    pub(crate) password: Option<Secret>,
    pub(crate) customer: Customer,
    pub(crate) customer_source: CustomerSource,
    /// The bearer token that was made for the customer; none if the request carried one.
    pub(crate) bearer: Option<Secret>,
    pub(crate) message: MessageId,
    /// The client's network.
    pub(crate) network: Option<IpAddr>,
}

/// The id of a request with this `Idempotency-Key`; without one, it is an order of its own.
pub(crate) fn message_id(idempotency_key: Option<&str>) -> Result<MessageId, Problem> {
    let id = idempotency_key
        .map_or_else(|| OrderId::random().to_string(), |key| hex::encode(Sha256::digest(key)));
    let failed = |_| Problem::internal("the request cannot be named");
    MessageId::parse(format!("http:{id}")).map_err(failed)
}

/// The customer who waits for an order. The token is not kept meanwhile: the order has it.
pub(crate) struct Buyer {
    customer: Customer,
    bearer: Option<Secret>,
}

impl PaidOrder {
    /// A client that disconnects loses nothing: the order goes on.
    pub(crate) async fn submit(self, app: &App) -> Result<(Buyer, Submission), Problem> {
        let reply_to = ReplyTo {
            transport: TRANSPORT.to_owned(),
            customer: Some(self.customer.clone()),
            // The response waits in the ledger until it is fetched.
            address: BTreeMap::new(),
        };
        let reply_to = match self.customer_source {
            CustomerSource::Credential => reply_to,
            CustomerSource::Payer => reply_to.named_by_payer(),
        };
        let order = NewOrder {
            repetition: Repetition::ByChosenId,
            message: self.message,
            reply_to,
            network: self.network,
            token: self.token,
            purchase: self.purchase,
            password: self.password,
        };
        let orders = Arc::clone(&app.orders);
        // In a task of its own: this one ends with its connection.
        let submitted = tokio::spawn(async move { orders.submit(order).await }).await;
        let failed = |_| Problem::internal("try again with the same token");
        let submission = submitted.map_err(failed)??;
        tracing::info!(order = %submission.order(), customer = %self.customer, "order submitted");
        Ok((Buyer { customer: self.customer, bearer: self.bearer }, submission))
    }
}

impl Buyer {
    fn handle(&self, id: &OrderId) -> OrderHandle {
        OrderHandle::new(id, self.bearer.as_ref())
    }

    /// The response; or where to fetch it, if it takes longer than the client waits.
    pub(crate) async fn respond(
        &self,
        app: &App,
        submission: Submission,
        wait: Duration,
    ) -> Result<Response, Problem> {
        let id = submission.order().clone();
        let response = async {
            match submission.answer().await {
                Some(response) => Ok(response),
                None => app.orders.wait_response(&id, &self.customer).await,
            }
        };
        let response = tokio::select! {
            biased;
            response = response, if !wait.is_zero() => Some(response),
            () = tokio::time::sleep(wait) => None,
            // It goes on, in another process.
            () = app.stopping.lasts(limits::STOP_ORDERS) => None,
        };
        let handle = self.handle(&id);
        match response {
            Some(Ok(response)) => {
                Ok(SortedJson(OrderResponse::new(response, handle)?).into_response())
            }
            // Whatever is wrong, the customer can fetch the order.
            Some(Err(refusal)) => Err(Problem::from(refusal).with_handle(handle)),
            None => self.accepted(app, &id).await.map_err(|problem| problem.with_handle(handle)),
        }
    }

    /// The order is in progress, once it is known that its token was taken; or it is over already.
    async fn accepted(&self, app: &App, id: &OrderId) -> Result<Response, Problem> {
        in_progress(self.wait_settled(app, id).await?, self.handle(id))
    }

    /// The order's status, once it is known whether its token was taken, or that takes too long.
    pub(crate) async fn wait_settled(
        &self,
        app: &App,
        id: &OrderId,
    ) -> Result<OrderStatus, Problem> {
        tokio::select! {
            biased;
            status = app.orders.wait_settled(id, &self.customer) => return Ok(status?),
            () = tokio::time::sleep(limits::TAKEN) => {}
            () = app.stopping.lasts(limits::STOP_ORDERS) => {}
        }
        Ok(app.orders.order(id, &self.customer).await?)
    }
}

/// The order's response, or 202.
pub(crate) fn in_progress(status: OrderStatus, handle: OrderHandle) -> Result<Response, Problem> {
    if let Some(response) = status.response {
        return Ok(SortedJson(OrderResponse::new(response, handle)?).into_response());
    }
    let location = format!("/orders/{}", status.id);
    let message = format!(
        "the order is on its way; ask for {location}, or watch /pods/{}/events",
        status.pod
    );
    let state = status.state.as_str().to_owned();
    let body = Accepted { state, pod_name: status.pod.into(), message, handle };
    let mut response = (StatusCode::ACCEPTED, SortedJson(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_is_the_same_message() {
        let id = |key| message_id(key).unwrap();
        assert_eq!(id(Some("0123456789abcdef")), id(Some("0123456789abcdef")));
        assert_ne!(id(Some("0123456789abcdef")), id(Some("0123456789abcdeg")));
        assert_ne!(id(None), id(None));
    }
}
