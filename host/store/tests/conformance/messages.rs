use crate::support::message_id;
use paygress_core::backend::store::{InboxStore, USED_LOGIN};
use paygress_core::model::units::UnixTime;
use std::sync::Arc;

const NOW: UnixTime = UnixTime(1_000);

pub(crate) async fn a_message_is_claimed_until_it_is_completed(store: Arc<dyn InboxStore>) {
    assert!(store.claim_message(&message_id("i1"), NOW).await.unwrap());
    assert!(
        store.claim_message(&message_id("i1"), NOW).await.unwrap(),
        "this replica may try again"
    );
    store.complete_message(&message_id("i1"), NOW).await.unwrap();
    store.complete_message(&message_id("i1"), NOW).await.unwrap();
    assert!(!store.claim_message(&message_id("i1"), NOW).await.unwrap());
}

pub(crate) async fn old_messages_are_forgotten(store: Arc<dyn InboxStore>) {
    store.complete_message(&message_id("i1"), NOW).await.unwrap();
    store.complete_message(&message_id("i2"), UnixTime(3_000)).await.unwrap();
    assert_eq!(store.forget_messages(UnixTime(2_000), 2).await.unwrap(), 1);
    assert!(store.claim_message(&message_id("i1"), NOW).await.unwrap());
    assert!(!store.claim_message(&message_id("i2"), NOW).await.unwrap());
}

pub(crate) async fn of_too_many_messages_the_oldest_are_forgotten(store: Arc<dyn InboxStore>) {
    assert_eq!(store.forget_messages(UnixTime(0), 0).await.unwrap(), 0, "there is none");
    // Two came in the same second, and one is being served.
    for (id, at) in [("i5", 50), ("i1", 10), ("i4", 40), ("i3", 40), ("i2", 20)] {
        store.complete_message(&message_id(id), UnixTime(at)).await.unwrap();
    }
    assert!(store.claim_message(&message_id("i6"), UnixTime(60)).await.unwrap());
    let forget = |most| store.forget_messages(UnixTime(0), most);
    assert_eq!(forget(6).await.unwrap(), 0);
    assert_eq!(forget(3).await.unwrap(), 3);
    for (id, is_forgotten) in
        [("i4", false), ("i5", false), ("i3", true), ("i2", true), ("i1", true)]
    {
        assert_eq!(store.claim_message(&message_id(id), NOW).await.unwrap(), is_forgotten, "{id}");
    }
    assert_eq!(forget(0).await.unwrap(), 6, "all that were claimed");
}

pub(crate) async fn a_used_login_link_is_forgotten_by_its_age_alone(store: Arc<dyn InboxStore>) {
    let [old, new] = ["old", "new"].map(|id| message_id(&format!("{USED_LOGIN}{id}")));
    for (id, at) in [(&old, 10), (&new, 20), (&message_id("i1"), 30), (&message_id("i2"), 40)] {
        store.complete_message(id, UnixTime(at)).await.unwrap();
    }
    // However many messages come, and however old the links are.
    assert_eq!(store.forget_messages(UnixTime(35), 0).await.unwrap(), 2);
    for id in [&old, &new] {
        assert!(!store.claim_message(id, NOW).await.unwrap(), "{id} can be used again");
    }
    store.complete_message(&message_id("i1"), UnixTime(10)).await.unwrap();
    assert_eq!(store.forget_used_logins(UnixTime(20)).await.unwrap(), 1);
    for (id, is_forgotten) in [(&old, true), (&new, false), (&message_id("i1"), false)] {
        assert_eq!(store.claim_message(id, NOW).await.unwrap(), is_forgotten, "{id}");
    }
}

pub(crate) async fn the_last_value_of_a_key_counts(store: Arc<dyn InboxStore>) {
    assert_eq!(store.kv_read("n").await.unwrap(), None);
    store.kv_write("n", "1").await.unwrap();
    store.kv_write("n", "2").await.unwrap();
    assert_eq!(store.kv_read("n").await.unwrap().as_deref(), Some("2"));
}
