//! The swap at the mint: only then is an order paid.

use super::provision::ProvisionError;
use super::refunds::Liability;
use super::unknown::too_many;
use super::unpaid_launch::UnpaidLaunch;
use super::{OrderService, StepError};
use crate::backend::store::LeaseUpdate;
use crate::backend::wallet::{ReceiveError, Resolution, ResolveMode};
use crate::limits;
use crate::model::order::{Order, OrderState, State};
use crate::model::order_state::{Paid, Unpaid};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::Sat;
use crate::protocol::Response;

impl OrderService {
    /// decided → redeeming → provisioning, refused or payment-unknown.
    pub(super) async fn receive<'a>(
        &'a self,
        order: &mut Order,
        mut unpaid: Unpaid,
        launch: &mut Option<UnpaidLaunch<'a>>,
    ) -> Result<(), StepError> {
        if !self.may_begin(order, &unpaid).await {
            return self.refuse(order, too_many(), unpaid.into()).await;
        }
        // Few may run unpaid: held until it is known whether this one is paid for.
        match self.launch_unpaid(order, &mut unpaid).await {
            Ok(launched) => *launch = launched,
            Err(ProvisionError::Step(error)) => return Err(error),
            Err(ProvisionError::Cluster(error)) => {
                return self.refuse(order, error.into(), unpaid.into()).await;
            }
        }
        let redeeming = OrderState::Redeeming(unpaid.clone());
        self.transition(order, redeeming, LeaseUpdate::Keep).await?;
        self.swap(order, unpaid).await
    }

    /// Whether few enough payments at the mint are unknown to begin this one. The limits are lower
    /// for tokens that may be forged, which anybody can send in any number, than for proven ones.
    async fn may_begin(&self, order: &Order, unpaid: &Unpaid) -> bool {
        let mint = &order.token_info.mint;
        let unknown = self.unknown.count(mint);
        if unknown < limits::UNKNOWN_UNPROVEN {
            return true;
        }
        if unknown >= limits::UNKNOWN_AT_MINT {
            return false;
        }
        if self.backends.wallet.is_proven(&unpaid.token, &order.token_info).await {
            return true;
        }
        let Some(customer) = order.limited_customer() else { return false };
        unknown < limits::UNKNOWN_OF_TENANTS
            && self.unknown.count_of(mint, &customer) < limits::UNKNOWN_OF_ONE
            && self.has_pods(&customer).await.unwrap_or(false)
    }

    /// Requests the swap, and stores its result.
    async fn swap(&self, order: &mut Order, mut unpaid: Unpaid) -> Result<(), StepError> {
        match self.backends.wallet.receive(&order.id, &unpaid.token, &order.token_info).await {
            Ok(net) => self.paid(order, unpaid, None, net).await,
            Err(ReceiveError::Refused(refusal)) => self.refuse(order, refusal, unpaid.into()).await,
            Err(ReceiveError::Unknown(error)) => {
                tracing::warn!(%error, "the mint's answer was lost");
                // Only then does it keep its port. It is stored: after a restart the mint's keys
                // may not be known.
                unpaid.proven = unpaid.proven
                    || self.backends.wallet.is_proven(&unpaid.token, &order.token_info).await;
                let unknown = OrderState::PaymentUnknown { unpaid, abandoned: None };
                self.transition(order, unknown, LeaseUpdate::Keep).await
            }
        }
    }

    async fn paid(
        &self,
        order: &mut Order,
        unpaid: Unpaid,
        abandoned: Option<Refusal>,
        net: Sat,
    ) -> Result<(), StepError> {
        let Unpaid { agreement, task, launched, .. } = unpaid;
        let promised = agreement.payment.net;
        let paid = Paid { redeemed: net, agreement, task, launched };
        let refusal = match abandoned {
            None if net >= promised => return self.start_provisioning(order, paid).await,
            None => Refusal::new(
                ErrorType::MintError,
                format!("the mint gave {net} for a token that it had valued at {promised}"),
            ),
            Some(refusal) => refusal,
        };
        // It came too late, or the mint gave less than it had quoted: it is refunded. Neither is a
        // fault of ours: a mint could otherwise have us pay what it keeps.
        tracing::warn!(%net, %promised, "the payment is not what was decided on; it goes back");
        self.start_refund(order, paid, refusal, Liability::Others).await
    }

    /// redeeming or payment-unknown, found after a crash or a lost answer → whatever is true.
    pub(super) async fn resolve(
        &self,
        order: &mut Order,
        unpaid: Unpaid,
        abandoned: Option<Refusal>,
    ) -> Result<(), StepError> {
        let mode = match abandoned {
            None => ResolveMode::Repeat,
            Some(_) => ResolveMode::CheckOnly,
        };
        match self.backends.wallet.resolve(&order.id, &order.token_info, mode).await {
            Resolution::Received(net) => self.paid(order, unpaid, abandoned, net).await,
            Resolution::NotSpent => match abandoned {
                Some(_) => self.refuse(order, not_taken(), unpaid.into()).await,
                None => self.swap(order, unpaid).await,
            },
            Resolution::SpentElsewhere => {
                let refusal =
                    Refusal::new(ErrorType::TokenAlreadySpent, "the token was spent elsewhere");
                self.refuse(order, refusal, unpaid.into()).await
            }
            Resolution::Unknown(error) if order.state() == State::Redeeming => {
                tracing::warn!(%error, "it is not known yet whether the token was taken");
                // The restart before is not its customer's doing: it keeps its port.
                let unpaid = Unpaid { proven: true, ..unpaid };
                let unknown = OrderState::PaymentUnknown { unpaid, abandoned };
                self.transition(order, unknown, LeaseUpdate::Keep).await
            }
            Resolution::Unknown(error) => Err(StepError::Retry(error.into())),
        }
    }

    /// It is unknown whether the token was taken, and the port is needed: the order will not be
    /// provisioned any more. Nothing is sent that could still take the token: once the mint answers,
    /// and no earlier request can be on its way, it is either still good, or refunded.
    pub(super) async fn abandon_payment(
        &self,
        order: &mut Order,
        mut unpaid: Unpaid,
    ) -> Result<(), StepError> {
        let message = "the mint does not answer whether it has taken your token: if it has not, the token is still good; if it has, you get what it \
            gave, as a new token, as soon as it answers";
        let refusal = Refusal::new(ErrorType::MintNetworkError, message);
        tracing::warn!("the payment stays unknown for long; the port is released");
        let released = self.release_lease(order, &refusal).await?;
        unpaid.launched = false;
        let abandoned = OrderState::PaymentUnknown { unpaid, abandoned: Some(refusal.clone()) };
        self.transition(order, abandoned, released.as_ref().into()).await?;
        self.unknown.release_port(order);
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

/// The end of an abandoned payment that the mint has not taken.
fn not_taken() -> Refusal {
    Refusal::new(
        ErrorType::MintNetworkError,
        "the mint did not answer in time whether it had taken your token; it has not, and the \
         token is still good: try again later, or pay with a token of another mint",
    )
}
