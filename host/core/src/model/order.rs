//! Orders: what is kept of a sale, and the states that it goes through.

pub use crate::model::decision::OrderView;
pub use crate::model::lease::{Lease, LeaseState};

use crate::model::decision::{Decision, LeaseView, Payment, PodDecision, PolicyTrace};
use crate::model::login::Login;
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::reply_to::ReplyTo;
use crate::model::secret::Secret;
use crate::model::token::{RefundToken, TokenInfo};
use crate::model::units::{Customer, LeaseId, OrderId, PodName, Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize};

/// How far an order has come. Each state is in the ledger before the effect that it announces.
///
/// ```text
/// received ─▶ decided ─▶ redeeming ─▶ paid ─▶ provisioning ─▶ active ─▶ ended
///     │          │         │    │                  │           │ (unused time)
///     ▼          ▼         │    ▼                  ▼           ▼
///   refused ◀──────────────┘  payment-unknown    refund-pending ─▶ refunded
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Stored; no backend was called yet.
    Received,
    /// Decided and dry-run; nothing is taken yet.
    Decided,
    /// The swap is requested; from here on money may move.
    Redeeming,
    /// The mint's answer was lost.
    PaymentUnknown,
    /// The money is ours.
    Paid,
    /// The cluster is making or extending the pod.
    Provisioning,
    /// The customer can use what was sold.
    Active,
    /// The time is over.
    Ended,
    /// Nothing was taken.
    Refused,
    /// The money must go back.
    RefundPending,
    /// The refund is made and stored.
    Refunded,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Received,
        Self::Decided,
        Self::Redeeming,
        Self::PaymentUnknown,
        Self::Paid,
        Self::Provisioning,
        Self::Active,
        Self::Ended,
        Self::Refused,
        Self::RefundPending,
        Self::Refunded,
    ];

    /// The state's name, as it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Decided => "decided",
            Self::Redeeming => "redeeming",
            Self::PaymentUnknown => "payment-unknown",
            Self::Paid => "paid",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::RefundPending => "refund-pending",
            Self::Refunded => "refunded",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the money is still the customer's, or it is not known whose: few such orders run at
    /// once at each mint.
    #[must_use]
    pub fn is_awaiting_payment(self) -> bool {
        matches!(self, Self::Received | Self::Decided | Self::Redeeming | Self::PaymentUnknown)
    }

    /// Whether nothing is left to do but to send the response.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Active | Self::Ended | Self::Refused | Self::Refunded)
    }
}

/// What is bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purchase {
    /// A new pod.
    Spawn {
        /// The wanted image.
        image: Option<String>,
        /// The wanted tier.
        tier: Option<String>,
        /// The SSH user.
        username: String,
        /// One public key.
        public_key: Option<String>,
        /// The wanted time.
        wanted: Option<Seconds>,
    },
    /// More time.
    TopUp {
        /// The pod to extend.
        pod: PodName,
    },
}

/// How a refund ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundEnd {
    /// The customer has redeemed it.
    Redeemed,
    /// Not redeemed in time: reclaimed by the operator, this net amount.
    #[serde(rename = "taken_back")]
    Reclaimed(Sat),
}

/// The secrets of an order: they are stored in columns of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderSecrets {
    /// The customer's token, until it is redeemed or the order refused.
    pub token: Option<Secret>,
    /// The password of the new pod, until it ends.
    pub password: Option<Secret>,
    /// The refund.
    pub refund_token: Option<Secret>,
}

/// An order, from its receipt to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// The id of the message that brought it: the same message is the same order.
    pub message: String,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// What is bought.
    pub purchase: Purchase,
    /// What the token says.
    #[serde(rename = "facts")]
    pub token_info: TokenInfo,
    /// When it came.
    pub created_at: UnixTime,
    /// How far it is.
    pub state: State,
    /// What the token is worth.
    pub payment: Option<Payment>,
    /// The policy calls of an order that was not granted.
    #[serde(default, rename = "considered", skip_serializing_if = "Option::is_none")]
    pub policy_trace: Option<PolicyTrace>,
    /// What the policies decided.
    pub decision: Option<Decision>,
    /// The lease that it makes or extends.
    pub lease: Option<LeaseId>,
    /// How often the pod was launched.
    pub launches: u32,
    /// What the mint gave for the token.
    pub redeemed: Option<Sat>,
    /// Until when the pod lives through this order.
    pub expires_at: Option<UnixTime>,
    /// Why it was refused or refunded.
    pub refusal: Option<Refusal>,
    /// What must go back; none: all that was redeemed.
    #[serde(default)]
    pub due: Option<Sat>,
    /// What the refund is worth.
    pub refunded: Option<Sat>,
    /// What making the refund cost.
    pub refund_fee: Option<Sat>,
    /// When it was made.
    #[serde(default)]
    pub refunded_at: Option<UnixTime>,
    /// How it ended.
    #[serde(default)]
    pub refund_end: Option<RefundEnd>,
    /// Whether the response was delivered; stored beside the order, not in it.
    #[serde(skip)]
    pub delivered: bool,
    /// Never serialised with the rest.
    #[serde(skip)]
    pub secrets: OrderSecrets,
}

impl Order {
    /// A new order for this, with everything else left out.
    #[must_use]
    pub fn blank(purchase: Purchase) -> Self {
        Self {
            id: OrderId::random(),
            message: String::new(),
            reply_to: ReplyTo::default(),
            purchase,
            token_info: TokenInfo::default(),
            created_at: UnixTime::now(),
            state: State::Received,
            payment: None,
            policy_trace: None,
            decision: None,
            lease: None,
            launches: 0,
            redeemed: None,
            expires_at: None,
            refusal: None,
            due: None,
            refunded: None,
            refund_fee: None,
            refunded_at: None,
            refund_end: None,
            delivered: false,
            secrets: OrderSecrets::default(),
        }
    }

    /// The decision of an order that is past [`State::Decided`].
    ///
    /// # Errors
    /// `internal_error`: the ledger holds an order without the decision that its state promises.
    pub fn decided(&self) -> Result<&Decision, Refusal> {
        self.decision.as_ref().ok_or_else(|| {
            Refusal::new(ErrorType::InternalError, "the order's decision is missing")
        })
    }

    /// The customer who placed the order.
    #[must_use]
    pub fn customer(&self) -> &Customer {
        &self.reply_to.customer
    }

    /// What a policy sees of it.
    #[must_use]
    pub fn view(&self, extended: Option<LeaseView>) -> OrderView {
        let (image, tier, username, wanted) = match &self.purchase {
            Purchase::Spawn { image, tier, username, wanted, .. } => {
                (image.clone(), tier.clone(), username.clone(), *wanted)
            }
            Purchase::TopUp { .. } => (None, None, String::new(), None),
        };
        OrderView {
            id: self.id.0.clone(),
            customer: self.customer().0.clone(),
            extends: extended,
            image,
            tier,
            username,
            wanted,
        }
    }

    /// The login of the pod that it buys; `None` for a top-up, or once the password is wiped.
    #[must_use]
    pub fn login(&self) -> Option<Login> {
        match (&self.purchase, &self.secrets.password) {
            (Purchase::Spawn { username, public_key, .. }, Some(password)) => Some(Login {
                username: username.clone(),
                password: password.clone(),
                public_key: public_key.clone(),
            }),
            _ => None,
        }
    }

    /// Makes a decision of a trace in which every policy granted.
    pub(crate) fn decide(&mut self, pod: Option<PodDecision>) {
        let Some(PolicyTrace {
            digests,
            order,
            context,
            payment,
            quote: Some(quote),
            grant: Some(grant),
            refund,
            ..
        }) = self.policy_trace.take()
        else {
            return;
        };
        self.payment = Some(payment);
        self.decision = Some(Decision { digests, order, context, quote, grant, refund, pod });
    }

    /// The pod that it makes or extends.
    #[must_use]
    pub fn pod(&self) -> PodName {
        match &self.purchase {
            Purchase::TopUp { pod } => pod.clone(),
            Purchase::Spawn { .. } => LeaseId::of(&self.id).pod_name(),
        }
    }

    /// The revenue of it so far: what was received, less what was paid back.
    #[must_use]
    pub fn earned(&self) -> Sat {
        let back = self.refunded.unwrap_or_default().plus(self.refund_fee.unwrap_or_default());
        let kept = self.redeemed.unwrap_or_default().minus(back);
        match self.refund_end {
            Some(RefundEnd::Reclaimed(again)) => kept.plus(again),
            _ => kept,
        }
    }

    /// Notes the refund that gives the money back.
    pub fn record_refund(&mut self, refund: &RefundToken) {
        self.refunded_at = Some(UnixTime::now());
        self.refunded = Some(refund.amount);
        self.refund_fee = Some(refund.fee);
        self.secrets.refund_token = Some(refund.token.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_names_are_their_serialised_names() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("sold"), None);
    }
}
