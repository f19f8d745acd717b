//! Receipts: what was decided on an order and from what, signed by the service. They hold what
//! policies see of an order, so no token, password or bearer token.

use crate::model::decision::{Decision, Payment, RefundTerms};
use crate::model::ids::ImageRef;
use crate::model::lease::EndReason;
use crate::model::order_state::RefundFees;
use crate::model::refund_due::{LOSS_TERMS, PartlyUsed, served};
use crate::model::refusal::ErrorType;
use crate::model::units::{Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of a receipt's Nostr event. No relay gets it.
pub const RECEIPT_KIND: u16 = 9_383;
/// The version of [`ReceiptContent`]. Fields may be added to it without another version.
pub const RECEIPT_VERSION: u32 = 1;
/// What nobody but the operator knows of a decision's input, as paths in [`ReceiptOrder`].
pub const OPERATOR_CLAIMS: [&str; 4] = [
    "decision.context.active_leases",
    "decision.context.capacity_leases",
    HISTORY_CLAIM,
    UTILISATION_CLAIM,
];
/// Not among those of receipts of earlier versions, whose contexts have none.
const HISTORY_CLAIM: &str = "decision.context.history";
/// The same of this.
const UTILISATION_CLAIM: &str = "decision.context.utilisation";

/// A receipt: a Nostr event (NIP-01) of kind 9383, signed by the service's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedReceipt {
    /// SHA-256 of the event, in hex.
    pub id: String,
    /// The service's public key, in hex.
    pub pubkey: String,
    /// When it was decided, or refunded.
    pub created_at: u64,
    /// 9383.
    pub kind: u16,
    /// What it is, for people (NIP-31).
    pub tags: Vec<Vec<String>>,
    /// What was decided, as canonical JSON: no space, keys sorted.
    pub content: String,
    /// The Schnorr signature of `id`, in hex.
    pub sig: String,
}

/// What a receipt is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// A pod that was bought.
    Access,
    /// A pod that was extended.
    TopUp,
    /// An order that was paid for and refunded, since nothing was sold.
    Refusal,
    /// A pod that its customer has stopped.
    Stop,
    /// A pod that ended before its time, and not by its customer.
    Lost,
}

/// The content of a [`SignedReceipt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptContent {
    pub version: u32,
    pub answer: ReceiptKind,
    pub pod_name: String,
    /// The pod's public host keys, as in its answer.
    pub ssh_host_keys: Vec<String>,
    /// [`OPERATOR_CLAIMS`].
    pub operator_claims: Vec<String>,
    /// One; of a stop, the customer's for that pod, the newest last.
    pub orders: Vec<ReceiptOrder>,
    /// How many older ones of a stop have no room here.
    pub orders_left_out: u64,
}

impl ReceiptContent {
    /// Whether it names all [`OPERATOR_CLAIMS`] that its orders have.
    #[must_use]
    pub fn names_claims(&self) -> bool {
        let is_named = |claim: &str| self.operator_claims.iter().any(|own| own == claim);
        let is_absent = |claim: &str| {
            let mut contexts = self.orders.iter().map(|order| &order.decision.context);
            match claim {
                HISTORY_CLAIM => contexts.all(|context| context.history.is_none()),
                UTILISATION_CLAIM => contexts.all(|context| context.utilisation.is_none()),
                _ => false,
            }
        };
        OPERATOR_CLAIMS.iter().all(|claim| is_named(claim) || is_absent(claim))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptOrder {
    /// What the token was worth.
    pub payment: Payment,
    /// What the mint gave for it.
    pub redeemed: Sat,
    /// The policies, what they saw, and what they returned.
    pub decision: Decision,
    /// The admitted image; none for a top-up.
    pub image: Option<ImageRef>,
    /// What a stop gives back; none: nothing.
    pub stop_terms: Option<RefundTerms>,
    /// Until when the pod lives, or was to live, through this order.
    pub expires_at: Option<UnixTime>,
    /// Why nothing was sold, or why the pod ended, if the customer did not end it.
    pub refusal: Option<ErrorType>,
    /// Why the pod ended, or never ran, where `refusal` is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Until when the pod was served, if it ended by a fault of the service: what was paid for after
    /// that is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_until: Option<UnixTime>,
    /// How much of the time was used when the pod ended, where unused time is paid back. Receipts of
    /// what earlier versions ended do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Seconds>,
    pub refund: Option<ReceiptRefund>,
}

impl ReceiptOrder {
    /// How much of the time was used. Of the order that made a pod which we lost it follows from the
    /// pod's times. None where neither is in the receipt.
    #[must_use]
    pub fn time_used(&self) -> Option<Seconds> {
        let Decision { order, grant, .. } = &self.decision;
        match (self.served_until, self.expires_at) {
            (Some(until), Some(expires_at)) if order.extends.is_none() => {
                Some(served(expires_at, grant.seconds, until).min(grant.seconds))
            }
            _ => self.used,
        }
    }

    /// What must be due of it in a receipt of this kind. None where that does not follow from the
    /// receipt: the time that was used, or the terms of a stop, are not in it.
    #[must_use]
    pub fn refund_due(&self, answer: ReceiptKind) -> Option<Sat> {
        if answer == ReceiptKind::Refusal {
            return Some(self.redeemed);
        }
        let (terms, fees) = match self.served_until {
            // It is the same where the customer bears them, since then nothing under a sat is due.
            Some(_) => (LOSS_TERMS, RefundFees::Operator),
            None => (self.stop_terms?, RefundFees::Customer),
        };
        let (gross, redeemed) = (self.payment.gross, self.redeemed);
        let (granted, used) = (self.decision.grant.seconds, self.time_used()?);
        Some(PartlyUsed { gross, redeemed, granted, used }.refund_due(terms, fees).0)
    }
}

/// A refund in a receipt, without its token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRefund {
    /// What was to go back.
    pub due: Sat,
    /// What the token is worth, before the mint's fee on receiving it.
    pub amount: Sat,
    /// What making it cost the customer.
    pub fee: Sat,
    pub made_at: UnixTime,
}
