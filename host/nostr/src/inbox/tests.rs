mod flood;

use super::*;
use crate::relay_auth::{CHALLENGE_WINDOW, CHALLENGES_ANSWERED};
use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use nostr_sdk::pool::RelayNotification;
use nostr_sdk::{ClientMessage, JsonUtil, Keys};
use paygress_core::backend::store::{KvStore, MessageLog};
use paygress_core::limits;
use paygress_core::model::ids::MessageId;
use std::borrow::Cow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;

/// Messages of a relay that floods.
const MESSAGES: usize = 10_000;

/// Has values, counts what is read and written, and how often messages are forgotten.
#[derive(Default)]
pub(crate) struct FakeStore {
    values: Mutex<HashMap<String, String>>,
    reads: AtomicUsize,
    writes: AtomicUsize,
    forgets: AtomicUsize,
}

#[async_trait]
impl MessageLog for FakeStore {
    async fn claim_message(&self, _: &MessageId, _: UnixTime) -> Result<bool, LedgerError> {
        Ok(true)
    }
    async fn complete_message(&self, _: &MessageId, _: UnixTime) -> Result<(), LedgerError> {
        Ok(())
    }
    async fn forget_messages(&self, _: UnixTime, most: u32) -> Result<u64, LedgerError> {
        assert_eq!(most, limits::MESSAGES_MOST);
        self.forgets.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
    async fn forget_used_logins(&self, _: UnixTime) -> Result<u64, LedgerError> {
        unreachable!("they are the HTTP server's")
    }
}

#[async_trait]
impl KvStore for FakeStore {
    async fn kv_read(&self, name: &str) -> Result<Option<String>, LedgerError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.values.lock().unwrap().get(name).cloned())
    }
    async fn kv_write(&self, name: &str, value: &str) -> Result<(), LedgerError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.values.lock().unwrap().insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

fn inbox() -> (Inbox, Arc<FakeStore>, RelayUrl) {
    inbox_at(RelayUrl::parse("wss://a.example").unwrap())
}

fn inbox_at(relay: RelayUrl) -> (Inbox, Arc<FakeStore>, RelayUrl) {
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

#[tokio::test(start_paused = true)]
async fn what_is_being_served_when_the_inbox_is_stopped_is_served() {
    let (mut inbox, ..) = inbox();
    let (send, mut served) = oneshot::channel();
    inbox.in_flight.spawn(Keys::generate().public_key(), async move {
        tokio::time::sleep(STOP / 2).await;
        send.send(()).unwrap();
        Ok(())
    });
    // It does not keep the inbox.
    inbox.in_flight.spawn(Keys::generate().public_key(), std::future::pending());
    inbox.end().await;
    assert_eq!(served.try_recv(), Ok(()));
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
    let fake = FakeRelay::start().await;
    let (mut inbox, store, relay) = inbox_at(fake.url.clone());
    inbox.connect().await.unwrap();
    inbox.connection.ours.wait_for_connection(Duration::from_secs(60)).await;
    let before = store.reads.load(Ordering::Relaxed);
    let sent_all = RelayMessage::eose(inbox.id.clone());
    for _ in 0..MESSAGES {
        inbox.on_message(&relay, &sent_all).await;
    }
    let first = inbox.backfilled.1.recv().await.unwrap();
    inbox.on_backfilled(first);
    assert!(inbox.sent_all.is_empty(), "one more is due");
    let second = inbox.backfilled.1.recv().await.unwrap();
    inbox.on_backfilled(second);
    let reads = store.reads.load(Ordering::Relaxed) - before;
    println!("{MESSAGES} times EOSE: {reads} backfills");
    assert_eq!((reads, inbox.sent_all.len()), (2, 1));
    assert!(inbox.backfill_again.is_empty());
    assert!(inbox.backfilling.try_acquire(relay, 1).is_some(), "none is left in flight");
}

#[tokio::test]
async fn a_relay_that_has_sent_all_again_and_again_gets_few_requests() {
    let relay = FakeRelay::start().await;
    let (mut inbox, _, url) = inbox_at(relay.url.clone());
    inbox.connect().await.unwrap();
    inbox.connection.ours.wait_for_connection(Duration::from_secs(60)).await;
    let sent_all = RelayMessage::eose(inbox.id.clone());
    let begun = Instant::now();
    for _ in 0..3 {
        for _ in 0..MESSAGES {
            inbox.on_message(&url, &sent_all).await;
        }
        inbox.backfill_again.clear();
        let backfilled = inbox.backfilled.1.recv().await.unwrap();
        assert!(backfilled.result.is_ok(), "{:?}", backfilled.result);
        inbox.on_backfilled(backfilled);
    }
    let (requests, took) = (relay.counts.requests.load(Ordering::SeqCst), begun.elapsed());
    println!("{} times EOSE: {requests} times REQ in {took:?}", 3 * MESSAGES);
    assert!((3..=4).contains(&requests), "{requests}: three, and the subscription");
    assert!(took >= Duration::from_secs(1 + 2), "{took:?}");
}

/// A relay without messages that takes every authentication, for one connection. It sends a
/// challenge whenever it gets one to send.
struct FakeRelay {
    url: RelayUrl,
    challenges: mpsc::Sender<&'static str>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    authentications: AtomicUsize,
}

impl FakeRelay {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = RelayUrl::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
        let (challenges, to_send) = mpsc::channel(1);
        let counts = Arc::<Counts>::default();
        tokio::spawn(Self::serve(listener, to_send, Arc::clone(&counts)));
        Self { url, challenges, counts }
    }

    async fn serve(
        listener: TcpListener,
        mut challenges: mpsc::Receiver<&'static str>,
        counts: Arc<Counts>,
    ) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        loop {
            let answer = tokio::select! {
                Some(challenge) = challenges.recv() => {
                    Some(RelayMessage::Auth { challenge: Cow::Borrowed(challenge) })
                }
                received = socket.next() => match received {
                    Some(Ok(Message::Text(text))) => counts.answer(&text),
                    Some(Ok(_)) => None,
                    Some(Err(_)) | None => return,
                },
            };
            if let Some(answer) = answer
                && socket.send(Message::text(answer.as_json())).await.is_err()
            {
                return;
            }
        }
    }
}

impl Counts {
    fn answer(&self, text: &str) -> Option<RelayMessage<'static>> {
        match ClientMessage::from_json(text.as_bytes()).unwrap() {
            ClientMessage::Req { subscription_id, .. } => {
                self.requests.fetch_add(1, Ordering::SeqCst);
                Some(RelayMessage::eose(subscription_id.into_owned()))
            }
            ClientMessage::Auth(event) => {
                self.authentications.fetch_add(1, Ordering::SeqCst);
                let message = Cow::Borrowed("");
                Some(RelayMessage::Ok { event_id: event.id, status: true, message })
            }
            _ => None,
        }
    }
}

#[tokio::test]
async fn a_relay_that_challenges_without_end_gets_a_few_authentications_and_subscriptions() {
    let relay = FakeRelay::start().await;
    let (inbox, _, url) = inbox_at(relay.url.clone());
    let begun = Instant::now();
    inbox.connect().await.unwrap();
    let connected = inbox.connection.ours.relay(&url).await.unwrap();
    let mut notifications = connected.notifications();
    for _ in 0..MESSAGES {
        relay.challenges.send("who are you?").await.unwrap();
        // Each one is handled before the next is sent: none is passed over.
        while !matches!(
            notifications.recv().await.unwrap(),
            RelayNotification::Authenticated | RelayNotification::AuthenticationFailed
        ) {}
    }
    let requests = relay.counts.requests.load(Ordering::SeqCst);
    let authentications = relay.counts.authentications.load(Ordering::SeqCst);
    println!("{MESSAGES} challenges: {authentications} times AUTH, {requests} times REQ");
    let answered = usize::try_from(CHALLENGES_ANSWERED).unwrap();
    let windows = begun.elapsed().as_secs() / CHALLENGE_WINDOW.as_secs() + 1;
    let most = answered * usize::try_from(windows).unwrap();
    assert!((answered..=most).contains(&authentications), "{authentications}");
    assert!(requests <= authentications + 1, "{requests}: one more when it is connected");
}

/// A message that is being served until it is released.
fn serve_one(inbox: &mut Inbox) -> oneshot::Sender<()> {
    let (release, released) = oneshot::channel::<()>();
    inbox.in_flight.spawn(Keys::generate().public_key(), async move {
        released.await.unwrap();
        Ok(())
    });
    release
}

#[tokio::test]
async fn the_cursor_moves_on_while_somebody_keeps_the_service_busy() {
    let (mut inbox, store, url) = inbox();
    let first = serve_one(&mut inbox);
    inbox.sent_all.insert(url.clone(), None);
    inbox.mark_synced().await;
    let _later = serve_one(&mut inbox);
    first.send(()).unwrap();
    inbox.in_flight.ended().await.unwrap();
    inbox.mark_synced().await;
    assert!(inbox.synced.contains(&url));
    assert_eq!(store.writes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_cursor_waits_for_the_messages_that_are_being_served() {
    let relay = FakeRelay::start().await;
    let (mut inbox, store, url) = inbox_at(relay.url.clone());
    inbox.connect().await.unwrap();
    inbox.connection.ours.wait_for_connection(Duration::from_secs(60)).await;
    let writes = || store.writes.load(Ordering::Relaxed);
    // The relay has sent all that it had stored, and one of it is not served yet.
    let release = serve_one(&mut inbox);
    inbox.sent_all.insert(url.clone(), None);
    inbox.mark_synced().await;
    inbox.move_cursors().await;
    assert_eq!((writes(), inbox.synced.len(), inbox.sent_all.len()), (0, 0, 1));
    assert!(inbox.reopening.try_acquire(url.clone(), 1).is_some(), "it is not opened again");
    release.send(()).unwrap();
    inbox.in_flight.ended().await.unwrap();
    inbox.mark_synced().await;
    assert_eq!((writes(), inbox.synced.len(), inbox.sent_all.len()), (1, 1, 0));
    // A new message is not served yet.
    let release = serve_one(&mut inbox);
    inbox.move_cursors().await;
    assert_eq!(writes(), 1);
    release.send(()).unwrap();
    inbox.in_flight.ended().await.unwrap();
    inbox.move_cursors().await;
    assert_eq!(writes(), 2);
    // One that could not be served is read again after a restart.
    let failed = async { Err(LedgerError::database("no")) };
    inbox.in_flight.spawn(Keys::generate().public_key(), failed);
    inbox.in_flight.ended().await.unwrap();
    inbox.move_cursors().await;
    assert_eq!(writes(), 2);
    // What a relay has sent before it closes the inbox is not all that it has.
    let _release = serve_one(&mut inbox);
    inbox.sent_all.insert(url.clone(), None);
    let closed = RelayMessage::closed(inbox.id.clone(), "error: no");
    inbox.on_message(&url, &closed).await;
    assert!(inbox.sent_all.is_empty() && inbox.synced.is_empty());
}

#[tokio::test]
async fn messages_are_forgotten_now_and_then() {
    let store = Arc::<FakeStore>::default();
    let claims = Claims::new(Arc::<FakeStore>::clone(&store));
    let id = EventId::all_zeros();
    let forgets = || store.forgets.load(Ordering::Relaxed);
    claims.complete(&id).await.unwrap();
    assert_eq!(forgets(), 1, "at the start");
    for _ in 1..MESSAGES {
        claims.complete(&id).await.unwrap();
    }
    println!("{MESSAGES} messages were completed: forgotten {} times", forgets());
    let every = usize::try_from(limits::MESSAGES_CHECK_EVERY).unwrap();
    assert_eq!(forgets(), MESSAGES.div_ceil(every));
}
