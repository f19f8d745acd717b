use crate::support::{advance, message_id, open, order, sell, top_up};
use paygress_core::backend::store::{LeaseUpdate, Ledger, LedgerError, OpenOutcome, Repetition};
use paygress_core::model::ids::{LeaseId, OrderId};
use paygress_core::model::order::{Order, State};
use paygress_core::model::units::UnixTime;
use paygress_core::testing;
use std::collections::HashSet;
use std::sync::Arc;

async fn is_duplicate_of(ledger: &dyn Ledger, new: &Order, first: &Order) -> bool {
    let outcome = ledger.open(new, Repetition::ByContent).await.unwrap();
    matches!(outcome, OpenOutcome::Duplicate(known) if known.id == first.id)
}

pub(crate) async fn a_proof_pays_for_one_order_until_a_refusal_releases_it(
    ledger: Arc<dyn Ledger>,
) {
    let mut first = order("m1", &["y1", "y2"]);
    open(&*ledger, &first).await;
    let overlapping = order("m2", &["y2", "y3"]);
    let outcome = ledger.open(&overlapping, Repetition::ByContent).await.unwrap();
    assert!(matches!(outcome, OpenOutcome::ProofConflict(other) if other.id == first.id));
    assert!(ledger.order(&overlapping.id).await.unwrap().is_none(), "nothing of it was written");
    open(&*ledger, &order("m3", &["y3"])).await;
    advance(&*ledger, &mut first, &[State::Refused]).await;
    open(&*ledger, &order("m4", &["y1", "y2"])).await;
}

pub(crate) async fn a_message_makes_one_order(ledger: Arc<dyn Ledger>) {
    let first = order("m1", &["y1", "y2"]);
    open(&*ledger, &first).await;
    assert!(is_duplicate_of(&*ledger, &order("m1", &["y9"]), &first).await);
}

pub(crate) async fn a_transition_needs_the_state_that_was_seen(ledger: Arc<dyn Ledger>) {
    let mut current = order("s1", &["s"]);
    open(&*ledger, &current).await;
    let mut outdated = current.clone();
    advance(&*ledger, &mut current, &[State::Decided, State::Redeeming]).await;
    outdated.state = testing::order_state(&outdated.purchase, State::Decided);
    let result = ledger.transition(&outdated, State::Received, LeaseUpdate::Keep).await;
    assert!(matches!(result, Err(LedgerError::Conflict { .. })));
    assert_eq!(ledger.order(&current.id).await.unwrap().unwrap().state(), State::Redeeming);
}

pub(crate) async fn a_top_up_is_found_by_its_lease_from_its_decision_on(ledger: Arc<dyn Ledger>) {
    let (_, lease) = sell(&*ledger, "s1", 40_000, 500).await;
    let mut top_up = top_up(&lease, "s2");
    open(&*ledger, &top_up).await;
    for (state, orders) in [(State::Received, 1), (State::Decided, 2), (State::Redeeming, 2)] {
        advance(&*ledger, &mut top_up, &[state]).await;
        assert_eq!(ledger.orders_of(&lease.id).await.unwrap().len(), orders, "{state:?}");
    }
    advance(&*ledger, &mut top_up, &[State::Refused]).await;
    assert_eq!(ledger.orders_of(&lease.id).await.unwrap().len(), 1);
}

pub(crate) async fn the_order_of_a_pod_is_found_among_those_that_extend_it(
    ledger: Arc<dyn Ledger>,
) {
    let (spawn, lease) = sell(&*ledger, "s1", 40_000, 500).await;
    for message in ["s2", "s3"] {
        let mut top_up = top_up(&lease, message);
        // By a clock that was set back.
        top_up.created_at = UnixTime(1);
        open(&*ledger, &top_up).await;
        advance(&*ledger, &mut top_up, &[State::Active]).await;
    }
    assert_eq!(ledger.spawn_order(&lease.id).await.unwrap(), Some(spawn));
    let other = LeaseId::of(&OrderId::random());
    assert_eq!(ledger.spawn_order(&other).await.unwrap(), None);
}

pub(crate) async fn what_is_written_is_read_and_secrets_are_not_serialised(
    ledger: Arc<dyn Ledger>,
) {
    for state in State::ALL {
        let name = state.as_str();
        let mut written = order(name, &[name]);
        open(&*ledger, &written).await;
        advance(&*ledger, &mut written, &[state]).await;
        assert_eq!(ledger.order(&written.id).await.unwrap().unwrap(), written, "{name}");
        let json = serde_json::to_string(&written).unwrap();
        assert!(!json.contains("cashuB") && !json.contains("hunter22"), "{json}");
    }
}

pub(crate) async fn unfinished_orders_need_work_or_a_response(ledger: Arc<dyn Ledger>) {
    let unfinished = async || {
        let orders = ledger.unfinished().await.unwrap();
        orders.into_iter().map(|order| order.id).collect::<HashSet<_>>()
    };
    let mut in_progress = order("u1", &["u1"]);
    let mut refused = order("u2", &["u2"]);
    let mut refunding = order("u3", &["u3"]);
    for order in [&in_progress, &refused, &refunding] {
        open(&*ledger, order).await;
    }
    advance(&*ledger, &mut in_progress, &[State::Decided]).await;
    advance(&*ledger, &mut refused, &[State::Refused]).await;
    advance(&*ledger, &mut refunding, &[State::RefundPending]).await;
    ledger.delivered(&refunding.id, refunding.state()).await.unwrap();
    let (in_progress, refused, refunding) = (in_progress.id, refused.id, refunding.id);
    let all = [in_progress.clone(), refused.clone(), refunding.clone()];
    assert_eq!(unfinished().await, all.into());
    ledger.delivered(&refused, State::Refused).await.unwrap();
    assert_eq!(unfinished().await, [in_progress, refunding].into());
}

pub(crate) async fn a_refused_request_may_be_repeated_under_a_chosen_id(ledger: Arc<dyn Ledger>) {
    let request = || order("h1", &["h1"]);
    let again = async |request: &Order| ledger.open(request, Repetition::ByChosenId).await.unwrap();
    let is_duplicate = |outcome: OpenOutcome, of: &Order| matches!(outcome, OpenOutcome::Duplicate(known) if known.id == of.id);
    let mut first = request();
    assert_eq!(again(&first).await, OpenOutcome::Created);
    assert!(is_duplicate(again(&request()).await, &first));
    advance(&*ledger, &mut first, &[State::Refused]).await;
    ledger.delivered(&first.id, first.state()).await.unwrap();
    let second = request();
    assert_eq!(again(&second).await, OpenOutcome::Created);
    let kept = ledger.order(&first.id).await.unwrap().unwrap();
    assert_eq!(
        (kept.message, kept.delivered),
        (message_id(&format!("h1:{}", first.id)), true),
        "and the first one is still there"
    );
    assert!(is_duplicate(again(&request()).await, &second));
}

pub(crate) async fn a_refused_message_may_not_be_repeated(ledger: Arc<dyn Ledger>) {
    let mut message = order("n1", &["n1"]);
    open(&*ledger, &message).await;
    advance(&*ledger, &mut message, &[State::Refused]).await;
    assert!(is_duplicate_of(&*ledger, &order("n1", &["n1"]), &message).await);
}

pub(crate) async fn of_orders_at_the_same_time_one_gets_the_proof(ledger: Arc<dyn Ledger>) {
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let order = order(&format!("many{n}"), &["contended"]);
                ledger.open(&order, Repetition::ByContent).await.unwrap()
            })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        created += usize::from(task.await.unwrap() == OpenOutcome::Created);
    }
    assert_eq!(created, 1);
}
