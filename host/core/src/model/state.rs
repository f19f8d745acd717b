//! The states of an order, by name.

use serde::{Deserialize, Serialize};

/// How far an order has come. Each state is in the ledger before the effect that it announces.
///
/// ```text
/// received ─▶ decided ─▶ redeeming ─▶ provisioning ─▶ active ─▶ ended
///     │          │         │    │               │         │ (unused time)
///     ▼          ▼         │    ▼               ▼         ▼
///   refused ◀──────────────┘  payment-unknown  refund-pending ─▶ refunded
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
    /// The money is ours. Of earlier versions, which wrote it before they wrote `Provisioning`.
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

    /// Whether the order is being decided or paid: few run at once at each mint.
    #[must_use]
    pub fn needs_slot(self) -> bool {
        matches!(self, Self::Received | Self::Decided | Self::Redeeming)
    }

    /// Whether the money is still the customer's, or it is not known whose.
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
