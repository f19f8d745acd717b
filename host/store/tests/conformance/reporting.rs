use crate::support::{advance, customer, lease_of, move_to, open, order, top_up};
use paygress_core::backend::store::{
    HourlyLeases, HourlyRevenue, LeasePlace, LeaseStates, LeaseUpdate, Ledger, OpenOutcome,
    RefusedLimits, Repetition, StateCount,
};
use paygress_core::model::order::{Lease, LeaseState, Order, OrderState, State};
use paygress_core::model::order_state::{Refund, RefundCause};
use paygress_core::model::sales::Sales;
use paygress_core::model::units::{Sat, SignedSat, UnixTime};
use paygress_core::testing;
use std::collections::HashSet;
use std::sync::Arc;

const NO_LIMITS: RefusedLimits = RefusedLimits { whole: u32::MAX, most: u32::MAX };

/// Three orders whose refunds were made: two in one hour, one in another.
async fn refunded_orders(ledger: &dyn Ledger) {
    for (n, at) in [(1, 7_200), (2, 7_300), (3, 90_000)] {
        let mut order = order(&format!("t{n}"), &[&format!("t{n}")]);
        order.created_at = UnixTime(at);
        open(ledger, &order).await;
        let mut paid = testing::paid(&order.purchase);
        paid.redeemed = Sat(10 * n);
        let (due, expires_at) = (Sat(4), UnixTime(700));
        let (refusal, added, served_until) = (None, None, None);
        let cause = RefundCause::LeaseEnded { due, expires_at, refusal, added, served_until };
        let refund = Refund { amount: Sat(3), fee: Sat(1), ..testing::refund() };
        order.state = OrderState::Refunded { sale: paid.into(), cause, refund };
        ledger.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
    }
}

pub(crate) async fn revenue_is_net_and_by_the_hour(ledger: Arc<dyn Ledger>) {
    refunded_orders(&*ledger).await;
    let hour = |from, orders, earned| HourlyRevenue {
        from: UnixTime(from),
        orders,
        earned: SignedSat(earned),
    };
    assert_eq!(
        ledger.revenue(UnixTime(7_000)).await.unwrap(),
        [hour(7_200, 2, 22), hour(90_000, 1, 26)]
    );
    assert_eq!(ledger.revenue(UnixTime(8_000)).await.unwrap(), [hour(90_000, 1, 26)]);
}

/// A refund whose fees the operator bears is more than was received.
pub(crate) async fn what_the_operator_bears_is_a_loss(ledger: Arc<dyn Ledger>) {
    for (n, state) in [(1, State::Active), (2, State::Refunded), (3, State::Refunded)] {
        let mut order = order(&format!("b{n}"), &[&format!("b{n}")]);
        order.created_at = UnixTime(if n == 3 { 90_000 } else { 7_200 });
        open(&*ledger, &order).await;
        order.state = testing::order_state(&order.purchase, state);
        if let OrderState::Refunded { refund, cause, .. } = &mut order.state {
            let RefundCause::NotProvisioned { added, .. } = cause else { panic!("another cause") };
            *added = Some(Sat(2));
            *refund =
                Refund { amount: Sat(12), fee: Sat(0), fee_borne: Sat(1), ..testing::refund() };
        }
        ledger.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
        assert_eq!(ledger.order(&order.id).await.unwrap().unwrap().state, order.state);
    }
    let hour = |from, orders, earned| HourlyRevenue {
        from: UnixTime(from),
        orders,
        earned: SignedSat(earned),
    };
    assert_eq!(
        ledger.revenue(UnixTime(0)).await.unwrap(),
        [hour(7_200, 1, 7), hour(90_000, 0, -3)]
    );
}

pub(crate) async fn orders_are_counted_by_state(ledger: Arc<dyn Ledger>) {
    refunded_orders(&*ledger).await;
    let counts = ledger.count_by_state().await.unwrap();
    assert_eq!(counts, [StateCount { state: State::Refunded, orders: 3 }]);
}

pub(crate) async fn what_the_operator_sells_is_stored(ledger: Arc<dyn Ledger>) {
    assert_eq!(ledger.sales().await.unwrap(), Sales::Open, "as long as nothing is decided");
    for sales in [Sales::Paused, Sales::Draining, Sales::Open] {
        ledger.set_sales(sales).await.unwrap();
        assert_eq!(ledger.sales().await.unwrap(), sales);
    }
}

/// A lease that began and ends then.
async fn lived(ledger: &dyn Ledger, n: u16, begun: u64, ends: u64) -> Lease {
    let mut order = order(&format!("l{n}"), &[&format!("l{n}")]);
    open(ledger, &order).await;
    let lease = Lease { created_at: UnixTime(begun), ..lease_of(&order, 41_000 + n, ends) };
    move_to(ledger, &mut order, State::Decided, LeaseUpdate::Put(&lease)).await;
    lease
}

pub(crate) async fn pods_are_counted_in_each_hour_that_they_ran(ledger: Arc<dyn Ledger>) {
    // Two hours and a half from before; a moment; and one that has not ended yet.
    lived(&*ledger, 1, 3_000, 12_000).await;
    lived(&*ledger, 2, 7_300, 7_400).await;
    lived(&*ledger, 3, 11_000, 999_999).await;
    // Before, and never ready.
    lived(&*ledger, 4, 100, 200).await;
    let unready = Lease { expires_at: None, ..lived(&*ledger, 5, 7_500, 1).await };
    ledger.end_lease(&Lease { state: LeaseState::Ended, ..unready }, &[]).await.unwrap();
    let hour = |from, begun, running| HourlyLeases { from: UnixTime(from), begun, running };
    assert_eq!(
        ledger.hourly_leases(UnixTime(7_999), UnixTime(15_000)).await.unwrap(),
        [hour(7_200, 1, 2), hour(10_800, 1, 2), hour(14_400, 0, 1)]
    );
}

pub(crate) async fn a_lease_that_ended_early_is_not_counted_until_its_end(ledger: Arc<dyn Ledger>) {
    let now = UnixTime::now();
    let lease = lived(&*ledger, 1, now.0 - 7_200, now.0 + 999_999).await;
    let ended = Lease { state: LeaseState::Ended, ..lease };
    ledger.end_lease(&ended, &[]).await.unwrap();
    let hours = ledger.hourly_leases(UnixTime(now.0), UnixTime(now.0 + 7_200)).await.unwrap();
    let running: Vec<u64> = hours.iter().map(|hour| hour.running).collect();
    // The clock may have gone over an hour in between.
    assert!(running.first() == Some(&1) && running.last() == Some(&0), "{hours:?}");
}

pub(crate) async fn leases_are_paged_newest_first(ledger: Arc<dyn Ledger>) {
    let mut expected = Vec::new();
    for n in 1..=7 {
        // Some have begun in the same second.
        expected.push(lived(&*ledger, n, 100 + u64::from(n / 2), 1_000).await);
    }
    expected.sort_by_key(|lease| (lease.created_at, lease.id.to_string()));
    expected.reverse();
    let ended = Lease { state: LeaseState::Ended, ..expected[3].clone() };
    ledger.end_lease(&ended, &[]).await.unwrap();
    expected[3] = ended;
    let all = async |states, of: Option<&str>| {
        let of = of.map(customer);
        let (mut leases, mut after) = (Vec::new(), None);
        loop {
            let page = ledger.lease_page(states, of.as_ref(), after.as_ref(), 2).await.unwrap();
            assert!(page.0.len() <= 2);
            leases.extend(page.0);
            after = page.1;
            if after.is_none() {
                return leases;
            }
        }
    };
    assert_eq!(all(LeaseStates::All, None).await, expected);
    assert_eq!(all(LeaseStates::All, Some("c")).await, expected);
    assert_eq!(all(LeaseStates::All, Some("d")).await, []);
    assert_eq!(all(LeaseStates::Ended, None).await, expected[3..4]);
    assert_eq!(all(LeaseStates::Current, Some("c")).await.len(), 6);
    // A place need not be of a lease that is still there.
    let id = crate::support::new_lease_id();
    let gone = LeasePlace { created_at: UnixTime(1), id };
    let (leases, next) = ledger.lease_page(LeaseStates::All, None, Some(&gone), 2).await.unwrap();
    assert_eq!((leases, next), (Vec::new(), None));
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
    assert_eq!(
        ledger.forget_refused(UnixTime(8), NO_LIMITS).await.unwrap(),
        0,
        "it is not delivered"
    );
    ledger.delivered(&old.id, old.state()).await.unwrap();
    assert_eq!(ledger.forget_refused(UnixTime(8), NO_LIMITS).await.unwrap(), 1);
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
    assert_eq!(ledger.forget_refused(UnixTime(8), NO_LIMITS).await.unwrap(), 1);
    assert_eq!(ledger.lease(&ended.pod()).await.unwrap(), Some(ended));
}

pub(crate) async fn the_newest_refused_orders_are_kept_whole_and_the_oldest_forgotten(
    ledger: Arc<dyn Ledger>,
) {
    let mut all = Vec::new();
    for n in 0..6 {
        let mut order = order(&format!("r{n}"), &[&format!("r{n}")]);
        order.created_at = UnixTime(100 + n);
        let mut lease = lease_of(&order, 41_000 + u16::try_from(n).unwrap(), 500);
        lease.state = LeaseState::Ended;
        open(&*ledger, &order).await;
        move_to(&*ledger, &mut order, State::Decided, LeaseUpdate::Put(&lease)).await;
        move_to(&*ledger, &mut order, State::Refused, LeaseUpdate::Keep).await;
        all.push(order);
    }
    let mut extended = lease_of(&all[0], 41_009, 500);
    extended.id = crate::support::new_lease_id();
    let mut top_up = top_up(&extended, "r6");
    top_up.created_at = UnixTime(99);
    open(&*ledger, &top_up).await;
    advance(&*ledger, &mut top_up, &[State::Refused]).await;
    let kept = |whole, most| ledger.forget_refused(UnixTime(0), RefusedLimits { whole, most });
    assert_eq!(kept(2, 20).await.unwrap(), 0);
    for (order, is_whole) in all.iter().zip([false, false, false, false, true, true]) {
        let stored = ledger.order(&order.id).await.unwrap().unwrap();
        assert_eq!(&stored == order, is_whole);
        // What is needed to answer again is there.
        assert_eq!(
            (stored.state.refusal(), stored.customer(), &stored.message, stored.created_at),
            (order.state.refusal(), order.customer(), &order.message, order.created_at)
        );
        assert_eq!(
            (&stored.token_info.mint, stored.token_info.gross, stored.pod()),
            (&order.token_info.mint, order.token_info.gross, order.pod())
        );
        assert_eq!(ledger.lease(&order.pod()).await.unwrap().is_some(), is_whole);
        let again = ledger.open(order, Repetition::ByContent).await.unwrap();
        assert!(matches!(again, OpenOutcome::Duplicate(known) if known.id == order.id));
    }
    let stored = ledger.order(&top_up.id).await.unwrap().unwrap();
    assert_eq!(stored.purchase, top_up.purchase);
    // Those that are shortened are not sent any more: the others are.
    let unfinished = ledger.unfinished().await.unwrap();
    assert_eq!(unfinished.len(), 2, "{unfinished:?}");
    assert_eq!(kept(2, 3).await.unwrap(), 4, "the oldest go first");
    assert!(ledger.order(&all[2].id).await.unwrap().is_none());
    assert_eq!(ledger.order(&all[3].id).await.unwrap().unwrap().created_at, UnixTime(103));
    assert_eq!(ledger.page(None, 100).await.unwrap().len(), 3);
}
