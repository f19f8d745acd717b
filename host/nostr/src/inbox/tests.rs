use super::*;
use async_trait::async_trait;
use nostr_sdk::Keys;
use paygress_core::backend::store::{KvStore, MessageLog};
use paygress_core::model::units::UnixTime;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Messages of a relay that floods.
const MESSAGES: usize = 10_000;

/// Counts what is read.
#[derive(Default)]
struct FakeStore {
    reads: AtomicUsize,
}

#[async_trait]
impl MessageLog for FakeStore {
    async fn claim_message(&self, _: &str, _: UnixTime) -> Result<bool, LedgerError> {
        Ok(true)
    }
    async fn complete_message(&self, _: &str, _: UnixTime, _: UnixTime) -> Result<(), LedgerError> {
        Ok(())
    }
}

#[async_trait]
impl KvStore for FakeStore {
    async fn kv_read(&self, _: &str) -> Result<Option<String>, LedgerError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }
    async fn kv_write(&self, _: &str, _: &str) -> Result<(), LedgerError> {
        Ok(())
    }
}

fn inbox() -> (Inbox, Arc<FakeStore>, RelayUrl) {
    let relay = RelayUrl::parse("wss://a.example").unwrap();
    let settings = Settings {
        keys: Keys::generate(),
        relays: vec![relay.clone()],
        private_relays: false,
        name: String::new(),
        about: String::new(),
    };
    let store = Arc::new(FakeStore::default());
    let (inbox, _, _) = Inbox::new(settings, Arc::<FakeStore>::clone(&store));
    (inbox, store, relay)
}

#[tokio::test]
async fn a_relay_that_closes_the_inbox_without_end_has_one_subscription_at_a_time() {
    let (mut inbox, store, relay) = inbox();
    let closed = RelayMessage::closed(inbox.id.clone(), "error: no");
    for _ in 0..MESSAGES {
        inbox.on_message(&relay, &closed).await;
    }
    let reads = store.reads.load(Ordering::Relaxed);
    println!("{MESSAGES} times CLOSED: {reads} reads");
    assert_eq!(reads, 2, "opened again once: both filters have a cursor");
    assert!(inbox.reopening.try_acquire(relay, 1).is_none(), "it is still to come");
}

/// The task of a backfill runs at the next await only.
#[tokio::test]
async fn a_relay_that_has_sent_all_without_end_is_read_once_more_and_not_missed() {
    let (mut inbox, store, relay) = inbox();
    let sent_all = RelayMessage::eose(inbox.id.clone());
    for _ in 0..MESSAGES {
        inbox.on_message(&relay, &sent_all).await;
    }
    let first = inbox.backfilled.1.recv().await.unwrap();
    inbox.on_backfilled(first);
    assert!(inbox.sent_all.is_empty(), "one more is due");
    let second = inbox.backfilled.1.recv().await.unwrap();
    inbox.on_backfilled(second);
    let reads = store.reads.load(Ordering::Relaxed);
    println!("{MESSAGES} times EOSE: {reads} backfills");
    assert_eq!((reads, inbox.sent_all.len()), (2, 1));
    assert!(inbox.backfill_again.is_empty());
    assert!(inbox.backfilling.try_acquire(relay, 1).is_some(), "none is left in flight");
}
