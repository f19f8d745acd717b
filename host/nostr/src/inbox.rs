//! The inbox: every message once, none lost while one relay works, those sent while we were down
//! included.
//!
//! A relay is subscribed from its last complete reading on, and two days further back, since wraps
//! are dated back. When it says that it has sent all that it had stored, it is asked again for what
//! is older than the oldest of that: relays cap an answer, and the newest by a random date are not
//! the newest. Only then is the reading complete, and noted.

use crate::connection::{Connection, Error, Settings, client_error, options, relay_options};
use crate::gift_wrap::{self, DirectMessage};
use crate::replies::ReplyPublisher;
use nostr_sdk::pool::policy::{AdmitPolicy, AdmitStatus, PolicyError};
use nostr_sdk::pool::relay::options::ReqExitPolicy;
use nostr_sdk::util::BoxedFuture;
use nostr_sdk::{
    Client, Event, EventId, Filter, Kind, RelayMessage, RelayPoolNotification, RelayStatus,
    RelayUrl, SubscribeOptions, SubscriptionId, Timestamp,
};
use paygress_core::backend::responder::{ReplyTo, Transport};
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Customer, UnixTime};
use paygress_core::orders::{NewOrder, OrderService, Submission};
use paygress_core::protocol::{self, Request};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};

/// Receipts that wait for us; then the relays wait.
const QUEUE: usize = 256;
/// Wraps are dated up to two days back (NIP-59).
const BACKDATED: u64 = 172_800;
/// Clocks differ, and some clients randomise a little further.
const MARGIN: u64 = 3_600;
/// Seen ids are kept for this long…
const REMEMBERED: u64 = 30 * 86_400;
/// …and older messages are not served, so that none is served twice.
const OLDEST: u64 = 14 * 86_400;
/// A message from the future would outlive our memory of it.
const FUTURE: u64 = 3_600;
/// How often the mark of what has been read is moved on.
const MARK: Duration = Duration::from_secs(60);
/// Before a closed subscription is opened again.
const REOPEN: Duration = Duration::from_secs(10);
/// Asking for one more page of stored wraps.
const PAGE: Duration = Duration::from_secs(15);
/// What is asked for at once; relays that cap their answers lower just have more pages.
const PAGE_EVENTS: usize = 500;
/// Wraps that were worth nothing: remembered in memory only, since anybody can make as many as he
/// likes.
const FLAWED: usize = 10_000;
/// Messages that were not encrypted are answered if they are not older than this.
const PLAIN: u64 = 600;

/// Takes every receipt of the inbox, before the library's own bookkeeping can lose one.
#[derive(Debug)]
struct InboxAdmitPolicy {
    id: SubscriptionId,
    queue: mpsc::Sender<(RelayUrl, Event)>,
    oldest: Oldest,
}

/// The oldest wrap that each relay has sent since it was last subscribed.
type Oldest = Arc<Mutex<HashMap<RelayUrl, Timestamp>>>;

fn note_oldest(oldest: &Oldest, relay: &RelayUrl, at: Timestamp) {
    let mut all = oldest.lock().unwrap_or_else(PoisonError::into_inner);
    let oldest = all.entry(relay.clone()).or_insert(at);
    *oldest = (*oldest).min(at);
}

impl AdmitPolicy for InboxAdmitPolicy {
    fn admit_event<'a>(
        &'a self,
        relay: &'a RelayUrl,
        id: &'a SubscriptionId,
        event: &'a Event,
    ) -> BoxedFuture<'a, Result<AdmitStatus, PolicyError>> {
        Box::pin(async move {
            if *id != self.id {
                return Ok(AdmitStatus::Success);
            }
            if event.kind == Kind::GiftWrap {
                note_oldest(&self.oldest, relay, event.created_at);
            }
            // Waits when the queue is full: the relay's connection waits with it.
            self.queue.send((relay.clone(), event.clone())).await.map_err(PolicyError::backend)?;
            Ok(AdmitStatus::rejected("taken"))
        })
    }
}

/// The inbox of the service.
pub struct Inbox {
    connection: Arc<Connection>,
    ledger: Arc<dyn InboxStore>,
    post: Arc<ReplyPublisher>,
    queue: mpsc::Receiver<(RelayUrl, Event)>,
    pages: mpsc::Sender<(RelayUrl, Event)>,
    id: SubscriptionId,
    oldest: Oldest,
    /// Relays that have sent all that they had stored, told by who asked for their last page; some
    /// may still be queued.
    paged: (mpsc::Sender<RelayUrl>, mpsc::Receiver<RelayUrl>),
    sent_all: HashSet<RelayUrl>,
    /// Relays whose stored messages were all served.
    synced: HashSet<RelayUrl>,
    flawed: Flawed,
}

/// The last so many ids.
#[derive(Default)]
struct Flawed {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Flawed {
    fn insert(&mut self, id: EventId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > FLAWED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

impl Inbox {
    /// Prepares the connection; nothing is connected yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        ledger: Arc<dyn InboxStore>,
    ) -> (Self, Arc<Connection>, Arc<ReplyPublisher>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let id = SubscriptionId::new("inbox");
        let oldest = Oldest::default();
        let tap =
            InboxAdmitPolicy { id: id.clone(), queue: sender.clone(), oldest: Arc::clone(&oldest) };
        let ours = Client::builder()
            .signer(settings.keys.clone())
            .opts(options())
            .admit_policy(tap)
            .build();
        let connection = Arc::new(Connection::new(settings, ours));
        let post = Arc::new(ReplyPublisher::new(Arc::clone(&connection)));
        let inbox = Self {
            connection: Arc::clone(&connection),
            ledger,
            post: Arc::clone(&post),
            queue,
            pages: sender,
            id,
            oldest,
            paged: mpsc::channel(QUEUE),
            sent_all: HashSet::new(),
            synced: HashSet::new(),
            flawed: Flawed::default(),
        };
        (inbox, connection, post)
    }

    /// Connects, and hands orders to the desk until it is dropped.
    ///
    /// # Errors
    /// When a relay's address is not usable, or the ledger fails at the start.
    pub async fn run(mut self, orders: Arc<OrderService>) -> Result<(), Error> {
        let mut notifications = self.connection.ours.notifications();
        for relay in self.connection.settings.relays.clone() {
            // Saved before the relay is added: then it is subscribed on every connect, and after
            // authentication.
            let filters = self.filters(&relay).await?;
            self.connection.ours.pool().save_subscription(self.id.clone(), filters).await;
            self.connection
                .ours
                .pool()
                .add_relay(&relay, relay_options())
                .await
                .map_err(client_error)?;
        }
        self.connection.ours.connect().await;
        let mut mark = tokio::time::interval(MARK);
        mark.tick().await;
        loop {
            tokio::select! {
                receipt = self.queue.recv() => match receipt {
                    Some((relay, event)) => self.take(&orders, &relay, &event).await,
                    None => return Ok(()),
                },
                notification = notifications.recv() => match notification {
                    Ok(RelayPoolNotification::Message { relay_url, message }) => self.notice(&relay_url, &message).await,
                    Ok(RelayPoolNotification::Shutdown) | Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    // Events come through the tap; what is lost here is seen at the next mark.
                    Ok(RelayPoolNotification::Event { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                },
                relay = self.paged.1.recv() => self.sent_all.extend(relay),
                _ = mark.tick() => self.mark_all().await,
            }
            if self.queue.is_empty() {
                for relay in std::mem::take(&mut self.sent_all) {
                    tracing::info!(%relay, "inbox read");
                    self.mark(&relay).await;
                    self.synced.insert(relay);
                }
            }
        }
    }

    /// Wraps for us since the last complete reading, with everything that may be dated back; and,
    /// to warn their senders, messages that were not encrypted.
    async fn filters(&self, relay: &RelayUrl) -> Result<Vec<Filter>, LedgerError> {
        let me = self.connection.settings.keys.public_key();
        let since = async |back| since_of(&*self.ledger, relay, back).await;
        let (wraps, plain) = (since(BACKDATED.saturating_add(MARGIN)).await?, since(PLAIN).await?);
        Ok(vec![
            Filter::new().kind(Kind::GiftWrap).pubkey(me).since(wraps),
            Filter::new()
                .kinds([Kind::EncryptedDirectMessage, Kind::PrivateDirectMessage])
                .pubkey(me)
                .since(plain),
        ])
    }

    async fn notice(&mut self, relay: &RelayUrl, message: &RelayMessage<'_>) {
        match message {
            RelayMessage::EndOfStoredEvents(id) if **id == self.id => self.page(relay.clone()),
            RelayMessage::Closed { subscription_id, message } if **subscription_id == self.id => {
                // Nothing of it is read until it is open again. Authentication opens it by itself,
                // if it succeeds.
                self.synced.remove(relay);
                if !message.starts_with("auth-required") {
                    tracing::warn!(%relay, reason = %message, "the relay closed the inbox; it is opened again");
                }
                self.reopen(relay.clone()).await;
            }
            RelayMessage::Notice(text) => {
                tracing::warn!(%relay, notice = %text, "a relay's notice")
            }
            _ => {}
        }
    }

    /// Asks for what is stored before the oldest wrap that was sent, page by page, until there is
    /// no more.
    fn page(&self, relay: RelayUrl) {
        let (client, oldest, pages, done) = (
            self.connection.ours.clone(),
            Arc::clone(&self.oldest),
            self.pages.clone(),
            self.paged.0.clone(),
        );
        let me = self.connection.settings.keys.public_key();
        let ledger = Arc::clone(&self.ledger);
        tokio::spawn(async move {
            let read_from = match since_of(&*ledger, &relay, BACKDATED.saturating_add(MARGIN)).await
            {
                Ok(since) => since,
                Err(error) => return tracing::warn!(%error, "the mark could not be read"),
            };
            let mut before = oldest.lock().unwrap_or_else(PoisonError::into_inner).remove(&relay);
            while let Some(until) = before.filter(|until| *until > read_from) {
                let filter = Filter::new()
                    .kind(Kind::GiftWrap)
                    .pubkey(me)
                    .since(read_from)
                    .until(until)
                    .limit(PAGE_EVENTS);
                let Ok(connection) = client.relay(&relay).await else { return };
                let page = match connection
                    .fetch_events(filter, PAGE, ReqExitPolicy::ExitOnEOSE)
                    .await
                {
                    Ok(page) => page,
                    // It is read when it has reconnected.
                    Err(error) => {
                        return tracing::warn!(%relay, %error, "the stored messages could not be read to their end");
                    }
                };
                let first = page.iter().map(|event| event.created_at).min();
                for event in page {
                    if pages.send((relay.clone(), event)).await.is_err() {
                        return;
                    }
                }
                // A page of one second only is passed over: it has been had.
                before = first.map(|first| {
                    if first < until {
                        first
                    } else {
                        Timestamp::from_secs(until.as_secs().saturating_sub(1))
                    }
                });
            }
            let _ = done.send(relay).await;
        });
    }

    async fn reopen(&self, relay: RelayUrl) {
        let filters = match self.filters(&relay).await {
            Ok(filters) => filters,
            Err(error) => return tracing::warn!(%error, "the mark could not be read"),
        };
        let (client, id) = (self.connection.ours.clone(), self.id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(REOPEN).await;
            if let Ok(relay) = client.relay(&relay).await
                && let Err(error) =
                    relay.subscribe_with_id(id, filters, SubscribeOptions::default()).await
            {
                tracing::warn!(%error, "the inbox could not be opened again; the relay is read when it reconnects");
            }
        });
    }

    /// Notes that everything up to now was read from this relay.
    async fn mark(&self, relay: &RelayUrl) {
        if let Err(error) =
            self.ledger.kv_write(&note_name(relay), &UnixTime::now().0.to_string()).await
        {
            tracing::warn!(%error, "the mark could not be written");
        }
    }

    async fn mark_all(&mut self) {
        let open = self.connection.ours.subscription(&self.id).await;
        for (url, relay) in self.connection.ours.relays().await {
            if relay.status() != RelayStatus::Connected {
                // When it is back it has something to catch up with.
                self.synced.remove(&url);
            } else if !open.contains_key(&url) {
                self.reopen(url).await;
            } else if !self.synced.contains(&url) {
                tracing::warn!(relay = %url, "the inbox is open and its stored messages were not read to their end; it is opened again");
                self.reopen(url).await;
            } else if self.synced.contains(&url) && self.queue.is_empty() {
                self.mark(&url).await;
            }
        }
    }

    /// One receipt. What is served is remembered only when it is done: a crash before that has it
    /// served again, and the ledger knows the order.
    async fn take(&mut self, orders: &Arc<OrderService>, relay: &RelayUrl, event: &Event) {
        if self.flawed.ids.contains(&event.id) {
            return;
        }
        let me = self.connection.settings.keys.public_key();
        let served = match event.kind {
            Kind::GiftWrap => match gift_wrap::unwrap(&self.connection.settings.keys, event) {
                Ok(message) => self.serve(orders, relay, &message).await,
                Err(flaw) => {
                    tracing::debug!(%flaw, wrap = %event.id, "a wrap was dropped");
                    self.flawed.insert(event.id);
                    Ok(())
                }
            },
            // A relay may send what was not asked for.
            Kind::EncryptedDirectMessage | Kind::PrivateDirectMessage
                if event.tags.public_keys().any(|key| *key == me) =>
            {
                self.flawed.insert(event.id);
                self.warn(relay, event).await
            }
            _ => Ok(()),
        };
        if let Err(error) = served {
            tracing::error!(%error, "a message could not be served; it is read again at the next start");
        }
    }

    async fn complete_message(&self, id: &str) -> Result<(), LedgerError> {
        let now = UnixTime::now();
        self.ledger.complete_message(id, now, UnixTime(now.0.saturating_sub(REMEMBERED))).await
    }

    async fn serve(
        &self,
        orders: &Arc<OrderService>,
        relay: &RelayUrl,
        message: &DirectMessage,
    ) -> Result<(), LedgerError> {
        let (id, now, written) =
            (message.id.to_hex(), UnixTime::now().0, message.written_at.as_secs());
        let too_old = written.saturating_add(OLDEST) < now;
        if message.sender == self.connection.settings.keys.public_key()
            || protocol::is_answer(&message.text)
            || too_old
            || !self.ledger.claim_message(&id, UnixTime(now)).await?
        {
            return Ok(());
        }
        let customer = Customer(message.sender.to_hex());
        let reply_to = ReplyTo {
            door: Transport::Nostr,
            customer: customer.clone(),
            relay: Some(relay.to_string()),
            request: Some(id.clone()),
        };
        let answer = if written > now.saturating_add(FUTURE) {
            Err(Refusal::new(
                ErrorType::InvalidRequest,
                "the message is dated in the future; set your clock",
            ))
        } else {
            match Request::parse(&message.text) {
                Ok(Request::Status { pod }) => orders.status(&pod, &customer).await.map(Some),
                Ok(Request::Stop { pod }) => {
                    let (orders, own) = (Arc::clone(orders), customer.clone());
                    // A pod takes its time to end, and the next customer does not wait for it.
                    self.post.send_when(reply_to.clone(), async move {
                        Some(
                            orders
                                .stop(&pod, &own)
                                .await
                                .unwrap_or_else(|refusal| protocol::error(&refusal)),
                        )
                    });
                    Ok(None)
                }
                Ok(Request::Buy { token: None, .. }) => Err(protocol::unpaid()),
                Ok(Request::Buy { token: Some(token), purchase, password }) => {
                    let incoming = NewOrder {
                        message: id.clone(),
                        reply_to: reply_to.clone(),
                        token,
                        purchase,
                        password,
                    };
                    match orders.submit(incoming).await {
                        // The desk answers.
                        Ok(Submission::InProgress(order, _)) => {
                            tracing::info!(%order, %customer, "order taken");
                            Ok(None)
                        }
                        Ok(ticket @ Submission::Joined(..)) => {
                            self.post.send_when(reply_to.clone(), ticket.answer());
                            Ok(None)
                        }
                        // Another replica answers.
                        Ok(Submission::OnOtherReplica(_)) => Ok(None),
                        Ok(Submission::Completed(_, answer)) => Ok(Some(answer)),
                        Err(refusal) => Err(refusal),
                    }
                }
                Err(refusal) => Err(refusal),
            }
        };
        match answer {
            Ok(None) => {}
            Ok(Some(answer)) => self.post.send_soon(reply_to, answer),
            Err(refusal) => {
                tracing::info!(code = refusal.code.as_str(), reason = refusal.message, %customer, "refused");
                self.post.send_soon(reply_to, protocol::error(&refusal));
            }
        }
        self.complete_message(&id).await
    }

    /// A message that everybody could read, or whose sender everybody sees.
    async fn warn(&self, relay: &RelayUrl, event: &Event) -> Result<(), LedgerError> {
        if !self.ledger.claim_message(&event.id.to_hex(), UnixTime::now()).await? {
            return Ok(());
        }
        let recent = event.created_at.as_secs().saturating_add(PLAIN) > UnixTime::now().0;
        if event.verify().is_ok()
            && recent
            && event.pubkey != self.connection.settings.keys.public_key()
        {
            let told = match event.kind {
                Kind::PrivateDirectMessage => {
                    "your message was not encrypted: any token in it is exposed, swap it at its mint at once; send orders as NIP-17 gift wraps"
                }
                _ => {
                    "kind 4 messages (NIP-04) are not served and show who talks to whom: swap any token in it at its mint; send orders as NIP-17 gift wraps"
                }
            };
            let reply_to = ReplyTo {
                door: Transport::Nostr,
                customer: Customer(event.pubkey.to_hex()),
                relay: Some(relay.to_string()),
                request: Some(event.id.to_hex()),
            };
            self.post.send_soon(
                reply_to,
                protocol::error(&Refusal::new(ErrorType::InvalidRequest, told)),
            );
        }
        self.complete_message(&event.id.to_hex()).await
    }
}

/// So far back from the last complete reading of this relay.
async fn since_of(
    ledger: &dyn InboxStore,
    relay: &RelayUrl,
    back: u64,
) -> Result<Timestamp, LedgerError> {
    let now = UnixTime::now().0;
    let read = ledger
        .kv_read(&note_name(relay))
        .await?
        .and_then(|text| text.parse().ok())
        .unwrap_or(now)
        .min(now);
    Ok(Timestamp::from_secs(read.saturating_sub(back)))
}

fn note_name(relay: &RelayUrl) -> String {
    format!("nostr-read:{relay}")
}
