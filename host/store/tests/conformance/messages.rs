use paygress_core::backend::store::InboxStore;
use paygress_core::model::units::UnixTime;
use std::sync::Arc;

const NOW: UnixTime = UnixTime(1_000);

pub(crate) async fn a_message_is_claimed_until_it_is_completed(store: Arc<dyn InboxStore>) {
    assert!(store.claim_message("i1", NOW).await.unwrap());
    assert!(store.claim_message("i1", NOW).await.unwrap(), "this replica may try again");
    store.complete_message("i1", NOW, UnixTime(0)).await.unwrap();
    store.complete_message("i1", NOW, UnixTime(0)).await.unwrap();
    assert!(!store.claim_message("i1", NOW).await.unwrap());
}

pub(crate) async fn old_messages_are_forgotten(store: Arc<dyn InboxStore>) {
    store.complete_message("i1", NOW, UnixTime(0)).await.unwrap();
    store.complete_message("i2", UnixTime(3_000), UnixTime(2_000)).await.unwrap();
    assert!(store.claim_message("i1", NOW).await.unwrap());
    assert!(!store.claim_message("i2", NOW).await.unwrap());
}

pub(crate) async fn the_last_value_of_a_key_counts(store: Arc<dyn InboxStore>) {
    assert_eq!(store.kv_read("n").await.unwrap(), None);
    store.kv_write("n", "1").await.unwrap();
    store.kv_write("n", "2").await.unwrap();
    assert_eq!(store.kv_read("n").await.unwrap().as_deref(), Some("2"));
}
