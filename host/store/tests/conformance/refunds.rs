use crate::support::{advance, customer, open, order};
use paygress_core::backend::store::{LeaseUpdate, Ledger, LedgerError};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::order::{Order, OrderState, RefundEnd, State};
use paygress_core::model::order_state::RefundOutcome;
use paygress_core::model::units::Sat;
use paygress_core::testing;
use std::sync::Arc;

/// An order whose refund token is made and delivered.
async fn refunded(ledger: &dyn Ledger) -> Order {
    let mut order = order("r1", &["r1"]);
    open(ledger, &order).await;
    advance(ledger, &mut order, &[State::RefundPending, State::Refunded]).await;
    ledger.delivered(&order.id, order.state()).await.unwrap();
    order
}

async fn close(ledger: &dyn Ledger, order: &mut Order) {
    let OrderState::Refunded { refund, .. } = &mut order.state else { panic!("no refund") };
    refund.outcome = RefundOutcome::Ended(RefundEnd::Reclaimed(Sat(3)));
    ledger.close_refund(order).await.unwrap();
}

async fn pending(ledger: &dyn Ledger, of: Option<&str>) -> Vec<OrderId> {
    let orders = ledger.pending_refunds(of.map(customer).as_ref()).await.unwrap();
    orders.into_iter().map(|order| order.id).collect()
}

pub(crate) async fn a_refund_is_pending_until_it_is_closed(ledger: Arc<dyn Ledger>) {
    let mut order = refunded(&*ledger).await;
    assert_eq!(pending(&*ledger, None).await, [order.id.clone()]);
    assert_eq!(pending(&*ledger, Some("c")).await, [order.id.clone()]);
    assert!(pending(&*ledger, Some("d")).await.is_empty());
    close(&*ledger, &mut order).await;
    assert!(pending(&*ledger, None).await.is_empty());
    let stored = ledger.order(&order.id).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.delivered), (order.state, true));
}

pub(crate) async fn a_customer_sees_the_refund_that_is_being_made(ledger: Arc<dyn Ledger>) {
    let mut order = order("r2", &["r2"]);
    open(&*ledger, &order).await;
    advance(&*ledger, &mut order, &[State::RefundPending]).await;
    assert_eq!(pending(&*ledger, Some("c")).await, [order.id]);
    assert!(pending(&*ledger, None).await.is_empty(), "there is no token yet");
}

pub(crate) async fn a_refund_is_closed_once(ledger: Arc<dyn Ledger>) {
    let mut order = refunded(&*ledger).await;
    close(&*ledger, &mut order).await;
    let again = ledger.close_refund(&order).await;
    assert!(matches!(again, Err(LedgerError::Conflict { .. })));
}

pub(crate) async fn what_may_have_to_go_back_at_a_mint_is_known(ledger: Arc<dyn Ledger>) {
    let other = MintUrl::parse("https://mint.invalid/axb").unwrap();
    let mut last = OrderId::random();
    for (n, state) in State::ALL.into_iter().enumerate() {
        for mint in [testing::mint().unwrap(), other.clone()] {
            let name = format!("w{n}{}", mint == other);
            let mut order = order(&name, &[&name]);
            order.token_info.mint = mint;
            open(ledger.as_ref(), &order).await;
            let from = order.state();
            order.state = testing::order_state(&order.purchase, state);
            if state == State::RefundPending {
                last = order.id.clone();
            }
            ledger.transition(&order, from, LeaseUpdate::Keep).await.unwrap();
        }
    }
    // Ten each: decided, redeeming, unknown; paid, provisioning, active. Not the order itself.
    assert_eq!(ledger.owed(&other, Some(&last)).await.unwrap(), Sat(60));
    assert_eq!(ledger.owed(&other, None).await.unwrap(), Sat(70));
    let like_other = MintUrl::parse("https://mint.invalid/a_b").unwrap();
    assert_eq!(ledger.owed(&like_other, None).await.unwrap(), Sat(0));
}
