//! Receipts of answers. They are made of what an order stores, anew each time: a repeated answer has
//! the same receipt, and nothing is stored twice.

use super::OrderService;
use crate::backend::receipt::ReceiptSigner;
use crate::limits;
use crate::model::host_key::HostKey;
use crate::model::ids::Customer;
use crate::model::order::{Lease, Order, OrderState, State};
use crate::model::order_state::{RefundCause, Task};
use crate::model::units::UnixTime;
use crate::protocol::{
    AccessDetails, OPERATOR_CLAIMS, RECEIPT_VERSION, ReceiptContent, ReceiptKind, ReceiptOrder,
    ReceiptRefund, Response, SignedReceipt, StopResponse, sorted,
};
use serde::Serialize;
use std::error::Error;
use std::sync::Arc;

impl OrderService {
    /// Has answers carry receipts, and offers name the policies. The first signer stays.
    pub fn set_receipts(&self, signer: Arc<dyn ReceiptSigner>) {
        let _ = self.receipts.set(signer);
    }

    pub(super) fn signs_receipts(&self) -> bool {
        self.receipts.get().is_some()
    }

    /// The response with the receipt of its order, if something was paid for.
    pub(super) fn add_receipt(
        &self,
        response: Response,
        order: &Order,
        lease: Option<&Lease>,
    ) -> Response {
        let is_wanted = self.signs_receipts() && has_room(&response);
        let Some(kind) = receipt_kind(&order.state).filter(|_| is_wanted) else {
            return response;
        };
        let is_sold = matches!(kind, ReceiptKind::Access | ReceiptKind::TopUp);
        let lease = lease.filter(|_| is_sold);
        let host_keys = lease.map(|lease| lease.host_keys.as_slice()).unwrap_or_default();
        response.with_receipt(self.receipt(kind, &[order], host_keys))
    }

    /// The login details of a pod with the receipt of the order that bought it.
    pub(super) fn add_access_receipt(
        &self,
        details: AccessDetails,
        orders: &[Order],
        lease: &Lease,
    ) -> AccessDetails {
        let is_access = |order: &&Order| receipt_kind(&order.state) == Some(ReceiptKind::Access);
        let bought = orders.iter().find(is_access).filter(|_| has_room(&details));
        let receipt = bought
            .and_then(|order| self.receipt(ReceiptKind::Access, &[order], &lease.host_keys))
            .map(Box::new);
        AccessDetails { receipt, ..details }
    }

    /// The response to a stop with the receipt of this customer's orders for the pod.
    pub(super) fn add_stop_receipt(
        &self,
        stopped: StopResponse,
        orders: &[Order],
        customer: &Customer,
    ) -> StopResponse {
        if !has_room(&stopped) {
            return stopped;
        }
        let is_over = |order: &&Order| {
            order.customer() == Some(customer)
                && matches!(order.state(), State::Refunded | State::Ended)
        };
        let own: Vec<&Order> = orders.iter().filter(is_over).collect();
        let receipt = self.receipt(ReceiptKind::Stop, &own, &[]).map(Box::new);
        StopResponse { receipt, ..stopped }
    }

    /// None where receipts are off, where nothing was paid for, and where one order alone is longer
    /// than a receipt may be.
    fn receipt(
        &self,
        answer: ReceiptKind,
        orders: &[&Order],
        host_keys: &[HostKey],
    ) -> Option<SignedReceipt> {
        let signer = self.receipts.get()?;
        let at = orders.iter().filter_map(|order| signed_at(&order.state)).max()?;
        let older = orders.len().saturating_sub(limits::RECEIPT_ORDERS);
        let mut content = ReceiptContent {
            version: RECEIPT_VERSION,
            answer,
            pod_name: orders.last()?.pod().into(),
            ssh_host_keys: host_keys.iter().map(HostKey::to_string).collect(),
            operator_claims: OPERATOR_CLAIMS.map(str::to_owned).into(),
            orders: (orders.iter().skip(older))
                .filter_map(|order| self.receipt_order(&order.state))
                .collect(),
            orders_left_out: u64::try_from(older).unwrap_or(u64::MAX),
        };
        let text = loop {
            let text = sorted(&content).to_string();
            if text.len() <= limits::RECEIPT_BYTES {
                break text;
            }
            if content.orders.len() <= 1 {
                tracing::warn!(bytes = text.len(), "an order is too long for a receipt");
                return None;
            }
            content.orders.remove(0);
            content.orders_left_out = content.orders_left_out.saturating_add(1);
        };
        match signer.sign(text, at) {
            Ok(receipt) => Some(receipt),
            Err(error) => {
                let error: &dyn Error = &error;
                tracing::error!(error, "an answer has no receipt");
                None
            }
        }
    }

    fn receipt_order(&self, state: &OrderState) -> Option<ReceiptOrder> {
        let agreement = state.agreement()?;
        let sold_on = agreement.decision.refund;
        Some(ReceiptOrder {
            payment: agreement.payment.clone(),
            redeemed: state.redeemed()?,
            decision: agreement.decision.clone(),
            image: state.planned_pod().map(|planned| planned.decision.placement.image.clone()),
            stop_terms: self.settings.refund_on_stop.map(|host| sold_on.unwrap_or(host)),
            expires_at: state.expires_at(),
            refusal: state.refusal().map(|refusal| refusal.code),
            end_reason: state.refusal().and_then(|refusal| refusal.end_reason),
            served_until: state.served_until(),
            used: state.used(),
            refund: state.refund().map(|refund| ReceiptRefund {
                due: state.refund_due().unwrap_or_default(),
                amount: refund.amount,
                fee: refund.fee,
                made_at: refund.made_at,
            }),
        })
    }
}

/// Whether a receipt may be added to an answer: what was bought, and refunds, come first.
fn has_room(answer: &impl Serialize) -> bool {
    sorted(answer).to_string().len() <= limits::RECEIPT_BESIDE_BYTES
}

/// The kind of receipt for this order. None for an order that is not paid for or not decided for
/// good, whose time is over, or that extends another customer's pod. A pod takes logins from when its
/// end is known, a moment before its order is active: if its end cannot be set, its order is still
/// refunded, and has the receipt of a refusal then.
fn receipt_kind(state: &OrderState) -> Option<ReceiptKind> {
    if state.agreement().is_some_and(|it| it.decision.order.extends_of_another()) {
        return None;
    }
    match state {
        OrderState::Provisioning { paid, expires_at: Some(_) } => match paid.task {
            Task::Spawn { .. } => Some(ReceiptKind::Access),
            Task::TopUp { .. } => None,
        },
        OrderState::Active { paid, .. } => Some(match paid.task {
            Task::Spawn { .. } => ReceiptKind::Access,
            Task::TopUp { .. } => ReceiptKind::TopUp,
        }),
        OrderState::Refunded { cause, .. } => Some(match cause {
            RefundCause::NotProvisioned { .. } => ReceiptKind::Refusal,
            RefundCause::LeaseEnded { refusal: Some(_), .. } => ReceiptKind::Lost,
            RefundCause::LeaseEnded { refusal: None, .. } => ReceiptKind::Stop,
        }),
        _ => None,
    }
}

/// When what the receipt is of was decided: the same each time that it is made.
fn signed_at(state: &OrderState) -> Option<UnixTime> {
    let decided_at = state.agreement()?.decision.context.now;
    Some(state.refund().map_or(decided_at, |refund| refund.made_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::LeaseView;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::model::order::Purchase;
    use crate::testing;

    fn kinds(purchase: &Purchase) -> Vec<(State, ReceiptKind)> {
        let kind = |state: &State| {
            let kind = receipt_kind(&testing::order_state(purchase, *state))?;
            Some((*state, kind))
        };
        [
            State::Received,
            State::Decided,
            State::Redeeming,
            State::PaymentUnknown,
            State::Paid,
            State::Provisioning,
            State::Active,
            State::Ended,
            State::Refused,
            State::RefundPending,
            State::Refunded,
        ]
        .iter()
        .filter_map(kind)
        .collect()
    }

    #[test]
    fn only_answers_to_paid_orders_have_receipts() {
        let sold = [(State::Active, ReceiptKind::Access), (State::Refunded, ReceiptKind::Refusal)];
        assert_eq!(kinds(&testing::spawn()), sold);
        let top_up = Purchase::TopUp { pod: LeaseId::of(&OrderId::random()).pod_name() };
        let extended =
            [(State::Active, ReceiptKind::TopUp), (State::Refunded, ReceiptKind::Refusal)];
        assert_eq!(kinds(&top_up), extended);
        let ready = |purchase: &Purchase| {
            let (paid, expires_at) = (testing::paid(purchase), Some(UnixTime(700)));
            receipt_kind(&OrderState::Provisioning { paid, expires_at })
        };
        assert_eq!(ready(&testing::spawn()), Some(ReceiptKind::Access), "it takes logins");
        assert_eq!(ready(&top_up), None);
    }

    #[test]
    fn who_extends_a_pod_of_another_learns_nothing_of_it() {
        let lease = testing::lease(LeaseId::of(&OrderId::random()), 1, 700);
        let purchase = Purchase::TopUp { pod: lease.pod() };
        for (owned_by_customer, expected) in [(true, Some(ReceiptKind::TopUp)), (false, None)] {
            let view = LeaseView { owned_by_customer, ..lease.view(None, UnixTime(2)) };
            let mut paid = testing::paid(&purchase);
            paid.agreement.decision.order.extends = Some(view);
            let state = OrderState::Active { paid, expires_at: UnixTime(700) };
            assert_eq!(receipt_kind(&state), expected);
        }
    }
}
