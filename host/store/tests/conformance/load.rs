//! What a flood of orders that pay nothing, and of messages, costs in bytes.

use crate::support::{open, order};
use paygress_core::backend::store::{
    LeaseUpdate, MessageLog, OrderStore, RefusedLimits, Reporting,
};
use paygress_core::limits;
use paygress_core::model::order::{OrderState, State};
use paygress_core::model::order_state::DecisionProgress;
use paygress_core::model::units::UnixTime;
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;

const ORDERS: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_refused_orders_take_a_few_megabytes() {
    // What is measured is the size.
    let directory = fast_directory().unwrap();
    let file = directory.path().join("ledger.sqlite");
    let store = SqlStore::sqlite(&file).await.unwrap();
    let kept = RefusedLimits { whole: limits::REFUSED_WHOLE, most: limits::REFUSED_MOST };
    let mut size_of_whole = 0;
    for n in 0..ORDERS {
        let mut order = order(&format!("{n:064x}"), &[&format!("{n}")]);
        order.created_at = UnixTime(1_000 + n);
        open(&store, &order).await;
        // As of a forged token: it was decided, and refused by the mint.
        let unpaid = testing::unpaid(&order.purchase);
        let mut progress = DecisionProgress::from(unpaid);
        if let DecisionProgress::Agreement { planned: Some(planned), .. } = &mut progress {
            planned.decision.rendered.pod_template_json = "x".repeat(3_000);
        }
        let OrderState::Refused { refusal, .. } =
            testing::order_state(&order.purchase, State::Refused)
        else {
            unreachable!("it is refused")
        };
        order.state = OrderState::Refused { refusal, progress };
        store.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
        if n % u64::from(limits::REFUSED_CHECK_EVERY) == 0 {
            store.forget_refused(UnixTime(0), kept).await.unwrap();
        }
        if n == 0 {
            size_of_whole = serde_json::to_string(&order).unwrap().len();
        }
    }
    store.forget_refused(UnixTime(0), kept).await.unwrap();
    let stored = store.count_by_state().await.unwrap()[0].orders;
    drop(store);
    let bytes = std::fs::metadata(&file).unwrap().len();
    println!(
        "{ORDERS} refused orders of {size_of_whole} bytes: {stored} are kept, in a file of {bytes} \
         bytes, {} bytes each",
        bytes / stored
    );
    assert_eq!(stored, ORDERS.min(limits::REFUSED_MOST.into()));
    assert!(bytes < 24 << 20, "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_takes_no_more_than_those_that_are_kept() {
    const MESSAGES: u32 = 10_000;
    // A twentieth: what one takes is the same.
    const KEPT: u32 = limits::MESSAGES_MOST / 20;
    let directory = fast_directory().unwrap();
    let file = directory.path().join("ledger.sqlite");
    let store = SqlStore::sqlite(&file).await.unwrap();
    let mut forgotten = 0;
    for n in 0..MESSAGES {
        // Ids are hashes: they come in no order.
        let id = format!("{:08x}{n:056x}", n.wrapping_mul(2_654_435_761));
        let now = UnixTime(1_000 + u64::from(n));
        assert!(store.claim_message(&id, now).await.unwrap());
        store.complete_message(&id, now).await.unwrap();
        if n.is_multiple_of(limits::MESSAGES_CHECK_EVERY) {
            forgotten += store.forget_messages(UnixTime(0), KEPT).await.unwrap();
        }
    }
    forgotten += store.forget_messages(UnixTime(0), KEPT).await.unwrap();
    assert_eq!(forgotten, u64::from(MESSAGES - KEPT));
    drop(store);
    let bytes = std::fs::metadata(&file).unwrap().len();
    let each = bytes / u64::from(KEPT);
    println!("{MESSAGES} messages: {KEPT} are kept, in a file of {bytes} bytes, {each} bytes each");
    assert!(each < 400, "{each} bytes each");
}
