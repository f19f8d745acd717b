//! Relays with more messages than they give at once, and what is read of them.

use super::super::backfill::BackfillError;
use super::*;
use nostr_sdk::filter::MatchEventOptions;
use nostr_sdk::{Event, EventBuilder, Tag};
use std::sync::atomic::AtomicBool;

/// What the relay gives at once.
const CAP: usize = 50;

/// A relay that gives the newest events of what it has, whether they are expired or not, to any number
/// of connections.
struct StoredRelay {
    url: RelayUrl,
    stored: Arc<Stored>,
}

#[derive(Default)]
struct Stored {
    events: Mutex<Vec<Event>>,
    /// What it sends after all that it had stored, to each subscription that is not a page.
    live: Mutex<Vec<Event>>,
    /// Whether it sends pages without their end.
    is_endless: AtomicBool,
    /// Pages that were requested, and the one of them instead of which it closes that, or the
    /// connection.
    pages: AtomicUsize,
    closed_page: AtomicUsize,
    lost_page: AtomicUsize,
}

impl StoredRelay {
    async fn start(events: Vec<Event>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = RelayUrl::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
        let stored = Arc::new(Stored { events: Mutex::new(events), ..Stored::default() });
        let shared = Arc::clone(&stored);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stored = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                    while let Some(Ok(message)) = socket.next().await {
                        let Message::Text(text) = message else { continue };
                        let Some(answers) = stored.answers(&text) else { return };
                        for answer in answers {
                            if socket.send(Message::text(answer.as_json())).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { url, stored }
    }
}

impl Stored {
    /// `None`: the connection is closed.
    fn answers(&self, text: &str) -> Option<Vec<RelayMessage<'static>>> {
        match ClientMessage::from_json(text.as_bytes()).unwrap() {
            ClientMessage::Req { subscription_id, filters } => {
                let id = subscription_id.into_owned();
                let limit = filters.iter().filter_map(|filter| filter.limit).min();
                let page =
                    limit.map(|_| self.pages.fetch_add(1, Ordering::SeqCst).saturating_add(1));
                if page == Some(self.lost_page.load(Ordering::SeqCst)) {
                    return None;
                }
                if page == Some(self.closed_page.load(Ordering::SeqCst)) {
                    return Some(vec![RelayMessage::closed(id, "rate-limited: slow down")]);
                }
                let mut found = self.events.lock().unwrap().clone();
                found.retain(|event| {
                    filters.iter().any(|it| it.match_event(event, MatchEventOptions::new()))
                });
                found.sort_by_key(|event| std::cmp::Reverse(event.created_at));
                found.truncate(limit.unwrap_or(CAP).min(CAP));
                let sent = |event| RelayMessage::event(id.clone(), event);
                let mut answers: Vec<_> = found.into_iter().map(sent).collect();
                if limit.is_none() || !self.is_endless.load(Ordering::SeqCst) {
                    answers.push(RelayMessage::eose(id.clone()));
                }
                if limit.is_none() {
                    answers.extend(self.live.lock().unwrap().iter().cloned().map(sent));
                }
                Some(answers)
            }
            ClientMessage::Event(event) => {
                let message = Cow::Borrowed("");
                Some(vec![RelayMessage::Ok { event_id: event.id, status: true, message }])
            }
            _ => Some(Vec::new()),
        }
    }
}

/// An inbox on a relay with these wraps, each so many seconds old.
async fn inbox_of(ages: impl IntoIterator<Item = u64>) -> (Inbox, StoredRelay) {
    let relay = StoredRelay::start(Vec::new()).await;
    let (mut inbox, _, _) = inbox_at(relay.url.clone());
    let seconds = Duration::from_secs;
    inbox.backfill_bounds = Bounds { pages: 2_000, silence: seconds(5), pause: seconds(0) };
    let wraps = ages.into_iter().map(|age| wrap(&inbox, age, None)).collect();
    *relay.stored.events.lock().unwrap() = wraps;
    (inbox, relay)
}

fn wrap(inbox: &Inbox, age: u64, expiration: Option<Timestamp>) -> Event {
    let service = inbox.connection.settings.keys.public_key();
    EventBuilder::new(Kind::GiftWrap, "")
        .tag(Tag::public_key(service))
        .tags(expiration.map(Tag::expiration))
        .custom_created_at(Timestamp::from_secs(Timestamp::now().as_secs().saturating_sub(age)))
        .sign_with_keys(&Keys::generate())
        .unwrap()
}

async fn connect(inbox: &Inbox) {
    inbox.connect().await.unwrap();
    inbox.connection.ours.wait_for_connection(Duration::from_secs(60)).await;
}

/// What the inbox has received when its next backfill has ended, and how that ended.
async fn backfill(inbox: &mut Inbox) -> (HashSet<EventId>, Backfilled) {
    let mut received = HashSet::new();
    let backfilled = loop {
        tokio::select! {
            Some(event) = inbox.received.recv() => {
                received.insert(event.event.id);
            }
            Some(backfilled) = inbox.backfilled.1.recv() => break backfilled,
        }
    };
    while let Ok(event) = inbox.received.try_recv() {
        received.insert(event.event.id);
    }
    (received, backfilled)
}

fn ids(relay: &StoredRelay) -> HashSet<EventId> {
    relay.stored.events.lock().unwrap().iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn all_is_read_behind_a_flood_whatever_comes_meanwhile() {
    // Three wraps in each second: no page ends where a second does.
    let (mut inbox, relay) = inbox_of((0..300_u64).map(|n| 60 + n / 3)).await;
    // A wrap that is dated back as far as may be comes while the service is read.
    let live = wrap(&inbox, 172_800, None);
    *relay.stored.live.lock().unwrap() = vec![live.clone()];
    connect(&inbox).await;
    let mut subscribed = HashSet::new();
    while subscribed.len() < CAP + 1 {
        subscribed.insert(inbox.received.recv().await.unwrap().event.id);
    }
    assert!(subscribed.contains(&live.id) && !ids(&relay).is_subset(&subscribed));
    let url = relay.url.clone();
    inbox.on_message(&url, &RelayMessage::eose(inbox.id.clone())).await;
    let (received, backfilled) = backfill(&mut inbox).await;
    println!("{} of 300 came with the subscription, {} in pages", CAP, received.len());
    assert!(backfilled.result.is_ok(), "{:?}", backfilled.result);
    assert!(ids(&relay).is_subset(&received), "{} of 300", received.len());
}

/// The library shows expired events to nobody; many relays keep and count them.
#[tokio::test]
async fn a_flood_of_expired_wraps_or_of_the_future_hides_nothing() {
    let (mut inbox, relay) = inbox_of([100_000]).await;
    let honest = ids(&relay);
    let expired = Timestamp::from_secs(Timestamp::now().as_secs() - 10);
    let mut flood: Vec<Event> = (60..260).map(|age| wrap(&inbox, age, Some(expired))).collect();
    let future = Timestamp::from_secs(Timestamp::now().as_secs() + 86_400);
    flood.extend((0..200).map(|_| {
        let event = EventBuilder::new(Kind::GiftWrap, "").custom_created_at(future);
        let event = event.tag(Tag::public_key(inbox.connection.settings.keys.public_key()));
        event.sign_with_keys(&Keys::generate()).unwrap()
    }));
    relay.stored.events.lock().unwrap().extend(flood);
    connect(&inbox).await;
    inbox.start_backfill(&relay.url, None);
    let (received, backfilled) = backfill(&mut inbox).await;
    assert!(backfilled.result.is_ok(), "{:?}", backfilled.result);
    assert!(honest.is_subset(&received));
}

#[tokio::test]
async fn what_a_bound_cuts_short_goes_on_where_it_has_stopped() {
    let (mut inbox, relay) = inbox_of((0..400).map(|n| 60 + n)).await;
    inbox.backfill_bounds.pages = 4;
    connect(&inbox).await;
    inbox.start_backfill(&relay.url, None);
    let (mut received, first) = backfill(&mut inbox).await;
    assert!(matches!(first.result, Err(BackfillError::TooMany)), "{:?}", first.result);
    inbox.on_backfilled(first);
    let sizes = [received.len(), relay.stored.events.lock().unwrap().len()];
    assert!(sizes[0] < sizes[1] && inbox.sent_all.is_empty(), "{sizes:?}");
    let mut runs = 1;
    while inbox.sent_all.is_empty() {
        let (more, next) = backfill(&mut inbox).await;
        received.extend(more);
        inbox.on_backfilled(next);
        runs += 1;
    }
    println!("400 messages, four pages of {CAP} at a time: read in {runs} runs");
    assert!(ids(&relay).is_subset(&received) && runs == 3, "{runs}");
}

#[tokio::test]
async fn a_page_that_does_not_end_is_not_taken_for_the_last() {
    let (mut inbox, relay) = inbox_of((0..80).map(|n| 60 + n)).await;
    relay.stored.is_endless.store(true, Ordering::SeqCst);
    let usual = inbox.backfill_bounds;
    inbox.backfill_bounds.silence = Duration::from_millis(300);
    connect(&inbox).await;
    inbox.start_backfill(&relay.url, None);
    let (_, first) = backfill(&mut inbox).await;
    assert!(matches!(first.result, Err(BackfillError::Timeout)), "{:?}", first.result);
    inbox.backfill_bounds = usual;
    inbox.on_backfilled(first);
    assert!(inbox.sent_all.is_empty() && inbox.synced.is_empty());
    relay.stored.is_endless.store(false, Ordering::SeqCst);
    let (received, next) = backfill(&mut inbox).await;
    assert!(next.result.is_ok() && ids(&relay).is_subset(&received), "{:?}", next.result);
}

/// As relays do that count requests: a flood has more pages than they give in a row.
#[tokio::test]
async fn a_relay_that_closes_a_page_is_read_on_from_there() {
    let (mut inbox, relay) = inbox_of((0..80).map(|n| 60 + n)).await;
    relay.stored.closed_page.store(2, Ordering::SeqCst);
    connect(&inbox).await;
    inbox.start_backfill(&relay.url, None);
    let (mut received, first) = backfill(&mut inbox).await;
    assert!(matches!(first.result, Err(BackfillError::Closed(_))), "{:?}", first.result);
    inbox.on_backfilled(first);
    let (more, next) = backfill(&mut inbox).await;
    assert!(next.result.is_ok(), "{:?}", next.result);
    let newest = relay.stored.events.lock().unwrap()[0].id;
    assert!(received.contains(&newest) && !more.contains(&newest), "not from the newest again");
    received.extend(more);
    assert!(ids(&relay).is_subset(&received));
}

/// The library connects again by itself, after some ten seconds.
#[tokio::test]
async fn a_relay_whose_connection_is_lost_is_read_on_from_there_and_then_once_more() {
    let (mut inbox, relay) = inbox_of((0..200).map(|n| 60 + n)).await;
    relay.stored.lost_page.store(3, Ordering::SeqCst);
    inbox.backfill_pauses.forgiven = Duration::ZERO;
    connect(&inbox).await;
    let (url, sent_all) = (relay.url.clone(), RelayMessage::eose(inbox.id.clone()));
    inbox.on_message(&url, &sent_all).await;
    let (mut received, first) = backfill(&mut inbox).await;
    assert!(matches!(first.result, Err(BackfillError::Disconnected)), "{:?}", first.result);
    inbox.on_backfilled(first);
    assert_eq!(inbox.backfilling.count(&url), 0, "it waits for the relay");
    // Dated between where it has stopped and what comes with the subscription.
    let meanwhile = wrap(&inbox, 130, None);
    relay.stored.events.lock().unwrap().push(meanwhile.clone());
    inbox.connection.ours.wait_for_connection(Duration::from_secs(60)).await;
    inbox.on_message(&url, &sent_all).await;
    let (more, second) = backfill(&mut inbox).await;
    assert!(second.result.is_ok(), "{:?}", second.result);
    let read_before = relay.stored.events.lock().unwrap()[70].id;
    assert!(received.contains(&read_before) && !more.contains(&read_before), "not anew");
    received.extend(more);
    assert!(!received.contains(&meanwhile.id));
    inbox.on_backfilled(second);
    assert!(inbox.sent_all.is_empty(), "one more is due");
    let (more, last) = backfill(&mut inbox).await;
    assert!(last.result.is_ok(), "{:?}", last.result);
    received.extend(more);
    assert!(ids(&relay).is_subset(&received));
    inbox.on_backfilled(last);
    assert_eq!(inbox.sent_all.len(), 1);
}

/// A bound of two pages stands for connections that last no longer.
#[tokio::test]
async fn a_relay_that_is_lost_more_often_than_its_flood_takes_to_read_is_read_to_its_end() {
    let (mut inbox, relay) = inbox_of((0..400).map(|n| 60 + n)).await;
    inbox.backfill_bounds.pages = 2;
    inbox.backfill_pauses.forgiven = Duration::ZERO;
    connect(&inbox).await;
    let (url, sent_all) = (relay.url.clone(), RelayMessage::eose(inbox.id.clone()));
    let (mut received, mut losses) = (HashSet::new(), 0);
    inbox.on_message(&url, &sent_all).await;
    while !ids(&relay).is_subset(&received) {
        let (more, mut ended) = backfill(&mut inbox).await;
        received.extend(more);
        assert!(matches!(ended.result, Err(BackfillError::TooMany)), "{:?}", ended.result);
        ended.result = Err(BackfillError::Disconnected);
        losses += 1;
        assert!(losses < 10, "{} of 400 are read", received.len());
        // It is subscribed again before, or after that is known.
        if losses % 2 == 0 {
            inbox.on_message(&url, &sent_all).await;
        }
        inbox.on_backfilled(ended);
        if losses % 2 == 1 {
            inbox.on_message(&url, &sent_all).await;
        }
        assert_eq!(inbox.backfilling.count(&url), 1, "it goes on");
    }
    println!("400 messages, two pages of {CAP} for each connection: read in {losses} connections");
    assert!(inbox.sent_all.is_empty() && inbox.synced.is_empty(), "more may have come meanwhile");
}

#[tokio::test]
async fn a_second_with_more_than_a_relay_gives_at_once_is_passed_over() {
    let ages = std::iter::repeat_n(70, 2 * CAP).chain([60, 80, 90_000]);
    let (mut inbox, relay) = inbox_of(ages).await;
    connect(&inbox).await;
    inbox.start_backfill(&relay.url, None);
    let (received, backfilled) = backfill(&mut inbox).await;
    assert!(backfilled.result.is_ok(), "{:?}", backfilled.result);
    assert!(backfilled.passed_over > 0);
    let events = relay.stored.events.lock().unwrap();
    let others = &events[2 * CAP..];
    assert!(others.len() == 3 && others.iter().all(|event| received.contains(&event.id)));
}

#[tokio::test]
async fn a_relay_that_closes_the_inbox_while_it_is_read_is_not_synced() {
    let (mut inbox, relay) = inbox_of([60]).await;
    connect(&inbox).await;
    let url = relay.url.clone();
    inbox.start_backfill(&url, None);
    let closed = RelayMessage::closed(inbox.id.clone(), "error: no");
    inbox.on_message(&url, &closed).await;
    let (_, backfilled) = backfill(&mut inbox).await;
    assert!(backfilled.result.is_ok(), "{:?}", backfilled.result);
    inbox.on_backfilled(backfilled);
    assert!(inbox.sent_all.is_empty(), "it may have missed what came after that");
}

/// Nobody reads the queue: as if all that is served took long.
#[tokio::test]
async fn a_flood_of_messages_holds_up_no_answer() {
    let (inbox, relay) = inbox_of([]).await;
    let flood = (0..2 * QUEUE).map(|_| wrap(&inbox, 60, None)).collect();
    *relay.stored.live.lock().unwrap() = flood;
    inbox.connection.connect_sending().await.unwrap();
    inbox.connection.sending.wait_for_connection(Duration::from_secs(60)).await;
    connect(&inbox).await;
    while inbox.received.len() < QUEUE {
        tokio::task::yield_now().await;
    }
    let answer = wrap(&inbox, 0, None);
    inbox.connection.publish(&relay.url, &answer).await.unwrap();
    assert_eq!(inbox.received.len(), QUEUE, "the connection that reads waits still");
}
