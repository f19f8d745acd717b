use crate::support::{advance, customer, open, order};
use paygress_core::backend::policy::CustomerHistory;
use paygress_core::backend::store::{DecisionStore, LeaseUpdate, Ledger};
use paygress_core::limits;
use paygress_core::model::ids::OrderId;
use paygress_core::model::order::{Order, OrderState, State};
use paygress_core::model::order_state::RefundCause;
use paygress_core::model::units::{Sat, Seconds, UnixTime};
use paygress_core::testing;
use std::sync::Arc;

pub(crate) const NOW: UnixTime = UnixTime(1_000_000);

/// An order of customer `c` that arrived so many seconds ago; it pays 10 sat for 600 s.
pub(crate) fn order_before(name: &str, ago: u64) -> Order {
    Order { created_at: NOW.minus(Seconds(ago)), ..order(name, &[name]) }
}

/// The same in this state.
async fn placed(ledger: &dyn Ledger, name: &str, ago: u64, state: State) -> Order {
    let mut order = order_before(name, ago);
    open(ledger, &order).await;
    if state != State::Received {
        advance(ledger, &mut order, &[state]).await;
    }
    order
}

/// Of customer `c`.
pub(crate) async fn history_of(
    ledger: &dyn DecisionStore,
    besides: Option<&OrderId>,
    now: UnixTime,
) -> CustomerHistory {
    let basis = ledger.decision_basis(Some(&customer("c")), besides, now).await.unwrap();
    basis.customer.unwrap().history
}

async fn history(ledger: &dyn Ledger, besides: Option<&Order>) -> CustomerHistory {
    history_of(ledger, besides.map(|order| &order.id), NOW).await
}

/// Of orders that all arrived in the last day: the first `first`, and so much for so long.
pub(crate) fn of_today(orders: u32, first: u64, sat: u64, seconds: u64) -> CustomerHistory {
    CustomerHistory {
        orders,
        first_ago: Some(Seconds(first)),
        last_day_paid: Sat(sat),
        last_day_bought: Seconds(seconds),
        last_day_first_ago: Some(Seconds(first)),
        last_day_undecided: 0,
    }
}

pub(crate) async fn a_customer_without_orders_has_an_empty_history(ledger: Arc<dyn Ledger>) {
    assert_eq!(history(&*ledger, None).await, CustomerHistory::default());
    let only = placed(&*ledger, "h1", 5, State::Received).await;
    assert_eq!(history(&*ledger, Some(&only)).await, CustomerHistory::default());
}

/// Or a budget would be spent twice.
pub(crate) async fn orders_at_the_same_time_count_for_each_other(ledger: Arc<dyn Ledger>) {
    let mut first = placed(&*ledger, "h1", 5, State::Received).await;
    let second = placed(&*ledger, "h2", 3, State::Received).await;
    let undecided = |history: CustomerHistory| CustomerHistory { last_day_undecided: 1, ..history };
    assert_eq!(history(&*ledger, Some(&first)).await, undecided(of_today(1, 3, 10, 0)));
    assert_eq!(history(&*ledger, Some(&second)).await, undecided(of_today(1, 5, 10, 0)));
    let under_way = [State::Decided, State::Redeeming, State::Provisioning, State::Active];
    for state in under_way {
        advance(&*ledger, &mut first, &[state]).await;
        assert_eq!(history(&*ledger, Some(&second)).await, of_today(1, 5, 10, 600), "{state:?}");
    }
    assert_eq!(history(&*ledger, None).await, undecided(of_today(2, 5, 20, 600)));
}

/// Or forged tokens would fill the history of whomever their sender names.
pub(crate) async fn whom_a_payer_names_has_no_order_before_it_is_paid_for(ledger: Arc<dyn Ledger>) {
    let mut order = order_before("h1", 5);
    order.reply_to = order.reply_to.named_by_payer();
    open(&*ledger, &order).await;
    assert_eq!(history(&*ledger, None).await, CustomerHistory::default());
    for state in [State::Decided, State::Redeeming] {
        advance(&*ledger, &mut order, &[state]).await;
        assert_eq!(history(&*ledger, None).await, CustomerHistory::default(), "{state:?}");
    }
    for state in [State::Provisioning, State::Active] {
        advance(&*ledger, &mut order, &[state]).await;
        assert_eq!(history(&*ledger, None).await, of_today(1, 5, 10, 600), "{state:?}");
    }
}

pub(crate) async fn what_comes_to_nothing_does_not_count(ledger: Arc<dyn Ledger>) {
    for (name, state) in
        [("h1", State::Refused), ("h2", State::RefundPending), ("h3", State::Refunded)]
    {
        let mut order = placed(&*ledger, name, 5, State::Decided).await;
        assert_eq!(history(&*ledger, None).await, of_today(1, 5, 10, 600));
        advance(&*ledger, &mut order, &[state]).await;
        assert_eq!(history(&*ledger, None).await, CustomerHistory::default(), "{state:?}");
    }
}

pub(crate) async fn what_was_refunded_of_an_order_does_not_count(ledger: Arc<dyn Ledger>) {
    let mut order = placed(&*ledger, "h1", 5, State::Active).await;
    let (due, expires_at) = (Sat(4), UnixTime(700));
    let (refusal, added, served_until) = (None, None, None);
    let cause = RefundCause::LeaseEnded { due, expires_at, refusal, added, served_until };
    let sale = testing::paid(&order.purchase).into();
    order.state = OrderState::RefundPending { sale, cause, password: None };
    ledger.transition(&order, State::Active, LeaseUpdate::Keep).await.unwrap();
    assert_eq!(history(&*ledger, None).await, of_today(1, 5, 6, 360));
}

pub(crate) async fn the_sums_are_those_of_the_last_day(ledger: Arc<dyn Ledger>) {
    for (name, ago) in [("h1", 86_399), ("h2", 86_400), ("h3", 900_000), ("h4", 0)] {
        placed(&*ledger, name, ago, State::Ended).await;
    }
    let expected = CustomerHistory {
        orders: 4,
        first_ago: Some(Seconds(900_000)),
        last_day_paid: Sat(20),
        last_day_bought: Seconds(1_200),
        last_day_first_ago: Some(Seconds(86_399)),
        last_day_undecided: 0,
    };
    assert_eq!(history(&*ledger, None).await, expected);
}

pub(crate) async fn no_more_than_so_many_orders_are_counted(ledger: Arc<dyn Ledger>) {
    for number in 0..=limits::HISTORY_ORDERS {
        placed(&*ledger, &format!("h{number}"), 900_000, State::Ended).await;
    }
    let counted = history(&*ledger, None).await;
    assert_eq!((counted.orders, counted.last_day_paid), (limits::HISTORY_ORDERS, Sat(0)));
}

pub(crate) async fn orders_of_others_do_not_count(ledger: Arc<dyn Ledger>) {
    for (name, other) in [("h1", Some(customer("d"))), ("h2", None)] {
        let mut order = order_before(name, 5);
        order.reply_to.customer = other;
        open(&*ledger, &order).await;
        advance(&*ledger, &mut order, &[State::Active]).await;
    }
    assert_eq!(history(&*ledger, None).await, CustomerHistory::default());
}
