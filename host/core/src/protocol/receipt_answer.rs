//! Whether a receipt is of the answer that it came with. A receipt is signed, and an answer is not: one
//! that tells something else is no proof of what was bought.

use super::receipt::{ReceiptContent, ReceiptKind, ReceiptOrder};
use super::responses::{AccessDetails, ErrorResponse, Response, TopUpResponse};
use crate::model::ids::{LeaseId, OrderId, PodName, PublicKey};
use crate::model::units::Sat;

/// What of a receipt does not agree with the answer that it came with, as a path in the receipt; none:
/// it agrees.
#[must_use]
pub fn receipt_contradicts(content: &ReceiptContent, answer: &Response) -> Option<&'static str> {
    let order = content.orders.last();
    match answer {
        Response::Access(access) => first_wrong(&of_access(content, order, access)),
        Response::ToppedUp(topped_up) => first_wrong(&of_top_up(content, order, topped_up)),
        Response::Stopped(stopped) => first_wrong(&[
            ("answer", content.answer == ReceiptKind::Stop),
            ("pod_name", content.pod_name == stopped.pod_name),
            ("orders.refund.amount", refunds(content, stopped.refunds.refunded_sats)),
        ]),
        Response::Error(error) => first_wrong(&of_error(content, order, error)),
        Response::Status(_) | Response::Notice(_) => Some("answer"),
    }
}

/// Whether each order of a receipt is this customer's.
#[must_use]
pub fn is_receipt_of(content: &ReceiptContent, customer: &PublicKey) -> bool {
    content.orders.iter().all(|order| order.decision.order.customer == customer.as_str())
}

fn first_wrong(checks: &[(&'static str, bool)]) -> Option<&'static str> {
    checks.iter().find(|(_, agrees)| !agrees).map(|(field, _)| *field)
}

fn of_access(
    content: &ReceiptContent,
    order: Option<&ReceiptOrder>,
    access: &AccessDetails,
) -> [(&'static str, bool); 6] {
    let is = |agrees: &dyn Fn(&ReceiptOrder) -> bool| order.is_some_and(agrees);
    [
        ("answer", content.answer == ReceiptKind::Access),
        ("pod_name", content.pod_name == access.pod_name),
        ("ssh_host_keys", content.ssh_host_keys == access.identity.ssh_host_keys),
        ("orders.decision.order.id", is(&|order| makes(order, &content.pod_name))),
        (
            "orders.decision.quote.tier",
            is(&|order| order.decision.quote.tier.as_str() == access.pod_spec_name),
        ),
        (
            "orders.image",
            is(&|order| {
                order.image.as_ref().is_some_and(|image| image.as_str() == access.pod_image)
            }),
        ),
    ]
}

fn of_top_up(
    content: &ReceiptContent,
    order: Option<&ReceiptOrder>,
    topped_up: &TopUpResponse,
) -> [(&'static str, bool); 4] {
    let is = |agrees: &dyn Fn(&ReceiptOrder) -> bool| order.is_some_and(agrees);
    let extended = topped_up.extended_duration_seconds;
    [
        ("answer", content.answer == ReceiptKind::TopUp),
        ("pod_name", content.pod_name == topped_up.pod_name),
        ("orders.decision.order.extends", is(&|order| extends(order, &content.pod_name))),
        ("orders.decision.grant.seconds", is(&|order| order.decision.grant.seconds.0 == extended)),
    ]
}

fn of_error(
    content: &ReceiptContent,
    order: Option<&ReceiptOrder>,
    error: &ErrorResponse,
) -> [(&'static str, bool); 4] {
    let is = |agrees: &dyn Fn(&ReceiptOrder) -> bool| order.is_some_and(agrees);
    let refunded = error.refund.as_ref().map(|refund| refund.refunded_sats);
    [
        ("answer", matches!(content.answer, ReceiptKind::Refusal | ReceiptKind::Lost)),
        ("pod_name", error.pod_name.as_ref() == Some(&content.pod_name)),
        ("orders.refusal", is(&|order| order.refusal == Some(error.error_type))),
        (
            "orders.refund.amount",
            is(&|order| order.refund.as_ref().map(|refund| refund.amount.0) == refunded),
        ),
    ]
}

/// Whether so much is paid back of the orders; of those that are left out it is not known.
fn refunds(content: &ReceiptContent, sats: u64) -> bool {
    let refunds = content.orders.iter().filter_map(|order| order.refund.as_ref());
    let shown = refunds.map(|refund| refund.amount).fold(Sat(0), Sat::plus).0;
    shown == sats || (shown < sats && content.orders_left_out > 0)
}

/// Whether this order made this pod, whose name follows from the order's id.
fn makes(order: &ReceiptOrder, pod_name: &str) -> bool {
    OrderId::parse(order.decision.order.id.as_str())
        .is_ok_and(|id| LeaseId::of(&id).pod_name().as_str() == pod_name)
}

fn extends(order: &ReceiptOrder, pod_name: &str) -> bool {
    let lease = PodName::parse(pod_name).ok().and_then(|pod| pod.lease());
    let extended = order.decision.order.extends.as_ref();
    lease.is_some_and(|lease| extended.is_some_and(|extended| extended.id == lease.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lease::Lease;
    use crate::model::refusal::{ErrorType, Refusal};
    use crate::model::units::{Seconds, UnixTime};
    use crate::protocol::{ReceiptRefund, Refund, access, stopped, topped_up};
    use crate::testing;

    type Change = fn(&mut ReceiptContent);

    /// It agrees; after each change this field does not.
    fn assert_named(content: &ReceiptContent, answer: &Response, changes: &[(&str, Change)]) {
        assert_eq!(receipt_contradicts(content, answer), None);
        for (field, change) in changes {
            let mut other = content.clone();
            change(&mut other);
            assert_eq!(receipt_contradicts(&other, answer), Some(*field));
        }
    }

    /// A receipt of this kind, and the lease of its order.
    fn receipt(answer: ReceiptKind) -> (ReceiptContent, Lease) {
        let id = OrderId::random();
        let mut lease = testing::lease(LeaseId::of(&id), 1, 700);
        lease.image = testing::image("image:1");
        let mut agreement = testing::agreement();
        let ordered = &mut agreement.decision.order;
        ordered.id = id.to_string();
        ordered.customer = customer().as_str().to_owned();
        ordered.extends = Some(lease.view(None, UnixTime(2)));
        let order = ReceiptOrder {
            image: Some(lease.image.clone()),
            expires_at: Some(UnixTime(700)),
            ..testing::receipt_order(agreement)
        };
        (testing::receipt(answer, lease.pod().as_str(), vec![order]), lease)
    }

    fn customer() -> PublicKey {
        PublicKey::from_bytes([7; 32])
    }

    const OTHER_ANSWER: (&str, Change) = ("answer", |content| content.answer = ReceiptKind::Stop);
    const OTHER_POD: (&str, Change) = ("pod_name", |content| content.pod_name.push('a'));

    #[test]
    fn a_receipt_of_another_pod_image_or_tier_is_named() {
        let (content, lease) = receipt(ReceiptKind::Access);
        let answer = Response::from(access(&lease, None, UnixTime(700), "host", None));
        assert_named(
            &content,
            &answer,
            &[
                OTHER_ANSWER,
                OTHER_POD,
                ("ssh_host_keys", |content| content.ssh_host_keys.push("another".to_owned())),
                ("orders.decision.order.id", |content| {
                    content.orders[0].decision.order.id = OrderId::random().to_string();
                }),
                ("orders.decision.order.id", |content| content.orders.clear()),
                ("orders.decision.quote.tier", |content| {
                    content.orders[0].decision.quote.tier = testing::tier("large");
                }),
                ("orders.image", |content| content.orders[0].image = None),
            ],
        );
    }

    #[test]
    fn a_receipt_of_another_extension_is_named() {
        let (content, lease) = receipt(ReceiptKind::TopUp);
        let seconds = content.orders[0].decision.grant.seconds;
        let answer = topped_up(&lease.pod(), seconds, UnixTime(700), None);
        assert_named(
            &content,
            &answer,
            &[
                OTHER_ANSWER,
                OTHER_POD,
                ("orders.decision.order.extends", |content| {
                    content.orders[0].decision.order.extends = None;
                }),
                ("orders.decision.grant.seconds", |content| {
                    content.orders[0].decision.grant.seconds = Seconds(7);
                }),
            ],
        );
    }

    #[test]
    fn a_receipt_of_another_refund_is_named() {
        let (mut content, lease) = receipt(ReceiptKind::Lost);
        content.orders[0].refusal = Some(ErrorType::BackendError);
        content.orders[0].refund = Some(refund_of(9));
        let refusal = Refusal::new(ErrorType::BackendError, "a test");
        let mut error = ErrorResponse::from(&refusal);
        error.pod_name = Some(lease.pod().into());
        error.refund = Some(Refund { refund_token: None, refunded_sats: 9, refund_fee_sats: 0 });
        assert_named(
            &content,
            &Response::Error(error),
            &[
                OTHER_ANSWER,
                OTHER_POD,
                ("orders.refusal", |content| content.orders[0].refusal = None),
                ("orders.refund.amount", |content| content.orders[0].refund = None),
            ],
        );
        let (content, lease) = receipt(ReceiptKind::Stop);
        let answer = Response::from(stopped(&lease.pod(), &[], None));
        let lost: (&str, Change) = ("answer", |content| content.answer = ReceiptKind::Lost);
        // The answer pays nothing back.
        let paid: (&str, Change) = ("orders.refund.amount", |content| {
            content.orders[0].refund = Some(refund_of(9));
        });
        assert_named(&content, &answer, &[lost, OTHER_POD, paid]);
    }

    #[test]
    fn a_receipt_of_a_stop_has_what_is_paid_back_but_for_orders_that_are_left_out() {
        let (mut content, _) = receipt(ReceiptKind::Stop);
        content.orders[0].refund = Some(refund_of(9));
        for (left_out, sats, agrees) in
            [(0, 9, true), (0, 8, false), (0, 10, false), (1, 10, true), (1, 8, false)]
        {
            content.orders_left_out = left_out;
            assert_eq!(refunds(&content, sats), agrees, "{left_out} {sats}");
        }
    }

    fn refund_of(sats: u64) -> ReceiptRefund {
        ReceiptRefund { due: Sat(sats), amount: Sat(sats), fee: Sat(0), made_at: UnixTime(3) }
    }

    #[test]
    fn a_receipt_of_another_customer_is_not_this_ones() {
        let (mut content, _) = receipt(ReceiptKind::Access);
        assert!(is_receipt_of(&content, &customer()));
        assert!(!is_receipt_of(&content, &PublicKey::from_bytes([8; 32])));
        let mut other = content.orders[0].clone();
        other.decision.order.customer = String::new();
        content.orders.push(other);
        assert!(!is_receipt_of(&content, &customer()));
    }
}
