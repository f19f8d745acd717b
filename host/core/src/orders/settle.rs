//! The swap at the mint: only then is an order paid.

use super::{OrderService, StepError};
use crate::backend::store::LeaseUpdate;
use crate::backend::wallet::{ReceiveError, Resolution};
use crate::limits;
use crate::model::order::{Order, Purchase, State};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::{LeaseId, Sat, Seconds, UnixTime};
use crate::protocol::Response;

impl OrderService {
    /// decided → redeeming → paid, refused or payment-unknown.
    pub(super) async fn receive(&self, order: &mut Order) -> Result<(), StepError> {
        order.state = State::Redeeming;
        self.transition(order, State::Decided, LeaseUpdate::Keep).await?;
        self.swap(order).await
    }

    /// Requests the swap, and stores its result.
    async fn swap(&self, order: &mut Order) -> Result<(), StepError> {
        let from = order.state;
        let Some(token) = order.secrets.token.clone() else {
            return Err(StepError::Retry("the token of an unpaid order is missing".to_owned()));
        };
        match self.backends.wallet.receive(&order.id, &token, &order.token_info).await {
            Ok(net) => self.paid(order, from, net).await,
            Err(ReceiveError::Refused(refusal)) => self.refuse(order, from, refusal).await,
            Err(ReceiveError::Unknown(why)) => {
                tracing::warn!(%why, "the mint's answer was lost");
                order.state = State::PaymentUnknown;
                self.transition(order, from, LeaseUpdate::Keep).await
            }
        }
    }

    async fn paid(&self, order: &mut Order, from: State, net: Sat) -> Result<(), StepError> {
        order.redeemed = Some(net);
        order.secrets.token = None;
        let promised = order.payment.as_ref().map(|payment| payment.net).unwrap_or_default();
        if order.refusal.is_none() && net >= promised {
            order.state = State::Paid;
            return self.transition(order, from, LeaseUpdate::Keep).await;
        }
        // It came too late, or the mint gave less than it had quoted: it is refunded.
        tracing::warn!(%net, %promised, "the payment is not what was decided on; it goes back");
        let less = || {
            Refusal::new(
                ErrorType::MintError,
                format!("the mint gave {net} for a token that it had valued at {promised}"),
            )
        };
        let refusal = order.refusal.take().unwrap_or_else(less);
        self.start_refund(order, from, refusal).await
    }

    /// redeeming or payment-unknown, found after a crash or a lost answer → whatever is true.
    pub(super) async fn resolve(&self, order: &mut Order) -> Result<(), StepError> {
        let from = order.state;
        match self.backends.wallet.resolve(&order.id, &order.token_info).await {
            Resolution::Received(net) => self.paid(order, from, net).await,
            Resolution::NotSpent => match order.refusal.take() {
                Some(refusal) => self.refuse(order, from, refusal).await,
                None => self.swap(order).await,
            },
            Resolution::SpentElsewhere => {
                self.refuse(
                    order,
                    from,
                    Refusal::new(ErrorType::TokenAlreadySpent, "the token was spent elsewhere"),
                )
                .await
            }
            Resolution::Unknown(why) => {
                if order.refusal.is_none()
                    && UnixTime::now().since(order.created_at)
                        > Seconds(limits::PAYMENT_TIMEOUT.as_secs())
                {
                    self.abandon_payment(order).await?;
                }
                Err(StepError::Retry(why.to_string()))
            }
        }
    }

    /// It is unknown whether the token was taken, and the port is needed: the order will not be
    /// provisioned any more. Once the mint answers, the token is either still good, or refunded.
    async fn abandon_payment(&self, order: &mut Order) -> Result<(), StepError> {
        let from = order.state;
        let message = "the mint does not answer whether it has taken your token: if it has not, the token is still good; if it has, you get what it \
            gave, as a new token, as soon as it answers";
        let refusal = Refusal::new(ErrorType::MintNetworkError, message);
        tracing::warn!("the payment stays unknown for long; the port is released");
        if let Purchase::Spawn { .. } = &order.purchase {
            self.backends.ledger.release_port(&LeaseId::of(&order.id)).await?;
        }
        let lease = self.ended_lease(order).await?;
        order.refusal = Some(refusal.clone());
        order.state = State::PaymentUnknown;
        self.transition(order, from, lease.as_ref().map_or(LeaseUpdate::Keep, LeaseUpdate::Put))
            .await?;
        // Once, and lost if nobody takes it: the answer comes when there is one.
        if let Err(error) =
            self.backends.responder.send(&order.reply_to, &Response::from(&refusal)).await
        {
            tracing::warn!(
                error = error.as_dyn(),
                "the notice that the payment is unknown was not delivered"
            );
        }
        Ok(())
    }
}
