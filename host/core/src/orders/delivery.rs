//! The delivery of the response to an order.
//!
//! Whoever has paid gets it at once. Responses that nobody has paid for are bounded: so many are sent
//! at the same time, so many wait for that or for their next attempt, and further ones wait in the
//! ledger, until a resume loop finds a place for them.

use super::OrderService;
use super::unpaid_deliveries::DeliveryPlace;
use super::worker::{backoff, wait};
use crate::backend::responder::SendError;
use crate::limits;
use crate::model::ids::OrderId;
use crate::model::order::{Order, State};
use crate::model::reply_to::ReplyTo;
use crate::model::units::UnixTime;
use crate::protocol::Response;

/// What a delivery needs of its order: the token and what was decided hold memory.
struct Delivery {
    order: OrderId,
    state: State,
    reply_to: ReplyTo,
    /// Since when there is something to deliver.
    since: UnixTime,
    answer: Response,
}

impl Delivery {
    fn new(order: Order, answer: Response) -> Self {
        let since = order.state.refund().map_or(order.created_at, |refund| refund.made_at);
        let state = order.state();
        Self { order: order.id, state, reply_to: order.reply_to, since, answer }
    }
}

impl OrderService {
    /// Sends the response. If nobody takes it, or too many wait that nobody has paid for, it is sent
    /// by a later resume loop.
    pub(super) async fn send(&self, order: Order, answer: Response) {
        let delivery = Delivery::new(order, answer);
        // Who has paid does not wait for those who have not.
        let place = match delivery.answer.is_paid() {
            true => None,
            false => match self.delivering.claim() {
                Some(place) => Some(place),
                None => {
                    tracing::debug!(
                        "too many responses wait; one that nobody paid for is sent later"
                    );
                    return;
                }
            },
        };
        let (mut delays, mut attempts) = (backoff(), 0..limits::DELIVERY_ATTEMPTS);
        while let Err(error) = self.attempt(&delivery, place.as_ref()).await {
            tracing::warn!(
                error = error.as_dyn(),
                "the response was not delivered and will be sent again"
            );
            if UnixTime::now().since(delivery.since) > limits::DELIVERY_TIMEOUT {
                tracing::error!("the response is undeliverable; it is not sent any more");
                break;
            }
            if attempts.next().is_none() {
                return;
            }
            wait(&mut delays).await;
        }
        match self.backends.ledger.delivered(&delivery.order, delivery.state).await {
            Ok(()) => tracing::info!("response delivered"),
            Err(error) => {
                tracing::warn!(%error, "the delivery could not be recorded; the response is sent again")
            }
        }
    }

    /// One attempt. While it pauses before the next one, other responses are sent.
    async fn attempt(
        &self,
        delivery: &Delivery,
        place: Option<&DeliveryPlace<'_>>,
    ) -> Result<(), SendError> {
        let _permit = match place {
            Some(place) => place.acquire().await,
            None => None,
        };
        self.backends.responder.send(&delivery.reply_to, &delivery.answer).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::unpaid_deliveries::UnpaidDeliveries;
    use super::*;
    use crate::testing;
    use tokio::sync::SemaphorePermit;

    /// The right to send this response, if there is one at once.
    async fn acquire<'a>(place: &'a DeliveryPlace<'_>) -> Option<SemaphorePermit<'a>> {
        tokio::select! {
            biased;
            permit = place.acquire() => permit,
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn of_many_responses_that_nobody_paid_for_few_are_sent_and_so_many_wait() {
        let deliveries = UnpaidDeliveries::default();
        let mut places: Vec<_> = (0..5_000).filter_map(|_| deliveries.claim()).collect();
        assert!(deliveries.is_full());
        let mut sending = Vec::new();
        for place in &places {
            sending.extend(acquire(place).await);
        }
        println!(
            "of 5,000 responses {} are kept, and {} sent at once",
            places.len(),
            sending.len()
        );
        assert_eq!(places.len(), limits::DELIVERIES_WAITING);
        assert_eq!(sending.len(), limits::DELIVERIES_AT_ONCE);
        // One that pauses lets the next one be sent, and keeps its place.
        drop(sending.pop());
        assert!(acquire(places.last().unwrap()).await.is_some());
        assert!(deliveries.claim().is_none());
        drop(sending);
        places.pop();
        assert!(!deliveries.is_full() && deliveries.claim().is_some());
    }

    #[test]
    fn a_refund_is_to_be_delivered_since_it_was_made() {
        let order = testing::order(testing::spawn(), State::Refunded).unwrap();
        let refused = testing::order(testing::spawn(), State::Refused).unwrap();
        let refusal = order.state.refusal().unwrap().clone();
        let since = |order| Delivery::new(order, Response::from(&refusal)).since;
        assert_eq!(since(order), testing::refund().made_at);
        let created_at = refused.created_at;
        assert_eq!(since(refused), created_at);
    }
}
