use crate::support::{advance, lease_of, move_to, open, order, top_up};
use paygress_core::backend::store::{HourlyRevenue, LeaseUpdate, Ledger, StateCount};
use paygress_core::model::order::{LeaseState, Order, OrderState, State};
use paygress_core::model::order_state::{Refund, RefundCause};
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::testing;
use std::collections::HashSet;
use std::sync::Arc;

/// Three orders whose refunds were made: two in one hour, one in another.
async fn refunded_orders(ledger: &dyn Ledger) {
    for (n, at) in [(1, 7_200), (2, 7_300), (3, 90_000)] {
        let mut order = order(&format!("t{n}"), &[&format!("t{n}")]);
        order.created_at = UnixTime(at);
        open(ledger, &order).await;
        let mut paid = testing::paid(&order.purchase);
        paid.redeemed = Sat(10 * n);
        let (due, expires_at) = (Sat(4), UnixTime(700));
        let cause = RefundCause::LeaseEnded { due, expires_at, refusal: None };
        let refund = Refund { amount: Sat(3), fee: Sat(1), ..testing::refund() };
        order.state = OrderState::Refunded { sale: paid.into(), cause, refund };
        ledger.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
    }
}

pub(crate) async fn revenue_is_net_and_by_the_hour(ledger: Arc<dyn Ledger>) {
    refunded_orders(&*ledger).await;
    let hour =
        |from, orders, earned| HourlyRevenue { from: UnixTime(from), orders, earned: Sat(earned) };
    assert_eq!(
        ledger.revenue(UnixTime(7_000)).await.unwrap(),
        [hour(7_200, 2, 22), hour(90_000, 1, 26)]
    );
    assert_eq!(ledger.revenue(UnixTime(8_000)).await.unwrap(), [hour(90_000, 1, 26)]);
}

pub(crate) async fn orders_are_counted_by_state(ledger: Arc<dyn Ledger>) {
    refunded_orders(&*ledger).await;
    let counts = ledger.count_by_state().await.unwrap();
    assert_eq!(counts, [StateCount { state: State::Refunded, orders: 3 }]);
}

/// An order of long ago that was refused.
async fn refused(ledger: &dyn Ledger, message: &str) -> Order {
    let mut order = order(message, &[message]);
    order.created_at = UnixTime(7);
    open(ledger, &order).await;
    advance(ledger, &mut order, &[State::Refused]).await;
    order
}

pub(crate) async fn pages_hold_every_order_once_oldest_first(ledger: Arc<dyn Ledger>) {
    for n in 0..7 {
        open(&*ledger, &order(&format!("p{n}"), &[&format!("p{n}")])).await;
    }
    let oldest = refused(&*ledger, "o1").await;
    let mut all: Vec<Order> = Vec::new();
    loop {
        let page = ledger.page(all.last().map(|order| &order.id), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 3);
        all.extend(page);
    }
    let ids: HashSet<_> = all.iter().map(|order| &order.id).collect();
    assert_eq!((ids.len(), all.len(), &all[0].id), (8, 8, &oldest.id));
}

pub(crate) async fn refused_orders_are_forgotten_once_their_response_is_delivered(
    ledger: Arc<dyn Ledger>,
) {
    let old = refused(&*ledger, "o1").await;
    assert_eq!(ledger.forget_refused(UnixTime(8)).await.unwrap(), 0, "it is not delivered");
    ledger.delivered(&old.id, old.state()).await.unwrap();
    assert_eq!(ledger.forget_refused(UnixTime(8)).await.unwrap(), 1);
    assert_eq!(ledger.order(&old.id).await.unwrap(), None);
}

/// The lease belongs to the orders that have paid for it, too.
pub(crate) async fn a_refused_top_up_does_not_take_the_lease_with_it(ledger: Arc<dyn Ledger>) {
    let mut sold = order("o2", &["o2"]);
    let mut ended = lease_of(&sold, 41_999, 500);
    ended.state = LeaseState::Ended;
    open(&*ledger, &sold).await;
    move_to(&*ledger, &mut sold, State::Decided, LeaseUpdate::Put(&ended)).await;
    let mut refused = top_up(&ended, "o3");
    refused.created_at = UnixTime(7);
    open(&*ledger, &refused).await;
    advance(&*ledger, &mut refused, &[State::Refused]).await;
    ledger.delivered(&refused.id, refused.state()).await.unwrap();
    assert_eq!(ledger.forget_refused(UnixTime(8)).await.unwrap(), 1);
    assert_eq!(ledger.lease(&ended.pod()).await.unwrap(), Some(ended));
}
