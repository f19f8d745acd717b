//! What a flood of orders that pay nothing, and of messages, costs in bytes.

use crate::support::{message_id, open, order, order_for};
use paygress_core::backend::store::{
    LeaseUpdate, LedgerError, MessageLog, OrderStore, RefusedLimits, Reporting,
};
use paygress_core::limits;
use paygress_core::model::ids::{LeaseId, OrderId};
use paygress_core::model::order::{Order, OrderState, Purchase, State};
use paygress_core::model::order_state::DecisionProgress;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::UnixTime;
use paygress_core::testing;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;
use paygress_store::db::{Database, Value};

const ORDERS: u64 = 20_000;

/// As of a forged token: it was decided, and refused by the mint.
fn forged(purchase: &Purchase) -> OrderState {
    let mut progress = DecisionProgress::from(testing::unpaid(purchase));
    if let DecisionProgress::Agreement { planned: Some(planned), .. } = &mut progress {
        planned.decision.rendered.pod_template_json = "x".repeat(3_000);
    }
    let message = "the mint says that the token is forged";
    OrderState::Refused { refusal: Refusal::new(ErrorType::InvalidToken, message), progress }
}

/// The bytes of an order's texts, and of its body alone.
async fn bytes(database: &Database, order: &Order) -> (i64, i64) {
    let id = order.id.clone();
    database
        .transact(move |transaction| {
            let statement = "SELECT length(id) + length(message) + length(customer) + length(state)
                    + length(body) + coalesce(length(lease), 0) + coalesce(length(token), 0)
                    + coalesce(length(password), 0) + coalesce(length(refund_token), 0),
                    length(body)
                 FROM orders WHERE id = ?1";
            let row = transaction.first(statement, &[Value::from(id.as_str())])?;
            let mut row = row.ok_or_else(|| LedgerError::unreadable("it is not stored"))?;
            Ok::<_, LedgerError>((row.number()?, row.number()?))
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_to_answer_a_forged_token_again_is_about_a_hundred_bytes() {
    let directory = fast_directory().unwrap();
    let path = directory.path().join("ledger.sqlite");
    let database = Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap();
    let store = SqlStore::new(database.clone());
    let mut order = order(&format!("{:064x}", 1), &["a"]);
    open(&store, &order).await;
    order.state = forged(&order.purchase);
    store.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
    let (whole, _) = bytes(&database, &order).await;
    let none_whole = RefusedLimits { whole: 0, most: u32::MAX };
    store.forget_refused(UnixTime(0), none_whole).await.unwrap();
    let (row, body) = bytes(&database, &order).await;
    println!("a refused order: {whole} bytes whole, then {row}, of which {body} are its refusal");
    // The rest: the ids of order, message and customer, by which it is found.
    assert!(body <= 110, "{body} bytes of a refusal");
    assert!(row <= 270, "{row} bytes of a row");
    let stored = store.order(&order.id).await.unwrap().unwrap();
    assert_eq!(stored.state.refusal(), order.state.refusal());
}

/// As they were written before: a map, with all fields of the refusal.
#[tokio::test(flavor = "multi_thread")]
async fn the_former_record_of_a_refused_order_is_read() {
    let directory = fast_directory().unwrap();
    let path = directory.path().join("ledger.sqlite");
    let database = Database::sqlite(&path, SqlStore::SCHEMA).await.unwrap();
    let store = SqlStore::new(database.clone());
    let pod = LeaseId::of(&OrderId::random()).pod_name();
    let mut order = order_for(Purchase::TopUp { pod: pod.clone() }, "m", &["a"]);
    open(&store, &order).await;
    order.state = forged(&order.purchase);
    store.transition(&order, State::Received, LeaseUpdate::Keep).await.unwrap();
    let none_whole = RefusedLimits { whole: 0, most: u32::MAX };
    store.forget_refused(UnixTime(0), none_whole).await.unwrap();
    let shortened = store.order(&order.id).await.unwrap().unwrap();
    assert_eq!(shortened.purchase, order.purchase);
    let former = format!(
        r#"{{"refused":{{"code":"invalid_token","message":"the mint says that the token is forged","details":null}},"mint":"https://mint.invalid","gross":10,"door":"nostr","pod":"{pod}"}}"#
    );
    let id = order.id.clone();
    database
        .transact(move |transaction| {
            let statement = "UPDATE orders SET body = ?2 WHERE id = ?1";
            let values = [Value::from(id.as_str()), Value::from(&former)];
            Ok::<_, LedgerError>(transaction.execute(statement, &values)?)
        })
        .await
        .unwrap();
    assert_eq!(store.order(&order.id).await.unwrap(), Some(shortened));
}

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
        order.state = forged(&order.purchase);
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
        let id = message_id(&format!("{:08x}{n:056x}", n.wrapping_mul(2_654_435_761)));
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
