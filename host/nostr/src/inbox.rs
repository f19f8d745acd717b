//! The inbox: every message once, none lost while one relay works, those sent while the service was
//! down included.
//!
//! A relay is subscribed from its cursor on, and two days further back, since wraps are dated back.
//! When it says that it has sent all that it had stored, that is read once more page by page
//! (`backfill.rs`): relays cap an answer, and the newest by a random date are not the newest. Only
//! then is the relay synced, and its cursor moved on. Where the pages begin does not depend on what
//! was received: anybody may send a wrap of any date meanwhile.
//!
//! ```text
//! relay ─▶ admit.rs ─▶ queue ─▶ in_flight.rs ─▶ serve.rs ─▶ orders
//!    └─ EOSE ─▶ backfill.rs ─┘      all are served ─▶ cursor.rs
//! ```

mod admit;
mod backfill;
mod claims;
mod cursor;
mod in_flight;
mod notices;
mod pages;
mod relay_delays;
mod reopenings;
mod serve;
mod text;

use crate::connection::{Connection, Settings, client_options, relay_options};
use crate::error::{Error, REASON_CHARS};
use crate::gift_wrap;
use crate::relay_auth::RelayAuthSigner;
use crate::replies::ReplyPublisher;
use admit::{InboxAdmitPolicy, ReceivedEvent};
use backfill::{Backfill, Backfilled, Bounds, backfill_pauses, newest};
use claims::Claims;
use in_flight::InFlight;
use nostr_sdk::{
    Client, EventId, Filter, Kind, RelayMessage, RelayPoolNotification, RelayStatus, RelayUrl,
    SubscribeOptions, SubscriptionId, Timestamp,
};
use notices::Notices;
use pages::{CountingTransport, Pages};
use paygress_core::backend::store::{InboxStore, LedgerError};
use paygress_core::keyed_limit::KeyedLimit;
use paygress_core::model::units::UnixTime;
use paygress_core::orders::OrderService;
use paygress_core::recent::Recent;
use paygress_core::sanitize::plain;
use relay_delays::RelayDelays;
use reopenings::reopenings;
use serve::{MessageHandler, PLAIN_SECONDS};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};

/// Received events that wait to be served. When the queue is full, the relays' connections are not
/// read.
const QUEUE: usize = 256;
/// How often the cursors are moved on.
const CURSOR_INTERVAL: Duration = Duration::from_secs(60);
/// How long messages that are being served have when the inbox is stopped: most take milliseconds.
const STOP: Duration = Duration::from_secs(5);
/// Events that cannot be read, and are not read again.
const REJECTED_IDS: usize = 10_000;

/// A time at which nothing was queued, and how many messages there were before it.
#[derive(Clone, Copy)]
struct Mark {
    at: UnixTime,
    messages: u64,
}

/// The service's inbox.
pub struct Inbox {
    connection: Arc<Connection>,
    ledger: Arc<dyn InboxStore>,
    replies: Arc<ReplyPublisher>,
    id: SubscriptionId,
    queue: mpsc::Sender<ReceivedEvent>,
    received: mpsc::Receiver<ReceivedEvent>,
    in_flight: InFlight,
    /// The pages of stored messages that are being read.
    pages: Pages,
    backfill_bounds: Bounds,
    /// The results of backfills. Some of the messages that they have fetched may still be queued.
    backfilled: (mpsc::Sender<Backfilled>, mpsc::Receiver<Backfilled>),
    /// Relays that sent another EOSE while their backfill was running: they get one more after it.
    backfill_again: HashSet<RelayUrl>,
    /// Relays that closed the inbox while their backfill was running: it may have missed messages.
    closed_meanwhile: HashSet<RelayUrl>,
    /// Where the backfills of relays have stopped whose connection, or inbox, was lost. They go on
    /// from there: one that began anew each time would never end at a relay that is lost more often
    /// than a flood takes to read.
    interrupted: HashMap<RelayUrl, Timestamp>,
    /// Relays whose backfill has gone on after that. What was sent meanwhile may be dated after
    /// where it went on: they get one more after it, from the newest.
    resumed: HashSet<RelayUrl>,
    backfill_pauses: RelayDelays,
    /// Relays that have sent all that they had stored: they are synced, and their cursors moved on, as
    /// soon as all that was received by then is served, whatever has come since.
    sent_all: HashMap<RelayUrl, Option<Mark>>,
    /// Relays whose stored messages were all served.
    synced: HashSet<RelayUrl>,
    /// At most one subscription of each relay is being opened again, and at most one backfill runs.
    reopening: KeyedLimit<RelayUrl>,
    backfilling: KeyedLimit<RelayUrl>,
    reopenings: RelayDelays,
    notices: Notices,
    /// Events that cannot be unwrapped. In memory only: anybody can send as many as they like.
    rejected: Recent<EventId>,
}

impl Inbox {
    /// Prepares the connection; nothing is connected yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        ledger: Arc<dyn InboxStore>,
    ) -> (Self, Arc<Connection>, Arc<ReplyPublisher>) {
        let (queue, received) = mpsc::channel(QUEUE);
        let id = SubscriptionId::new("inbox");
        let pages = Pages::default();
        let policy = InboxAdmitPolicy::new(id.clone(), queue.clone(), pages.clone());
        let ours = Client::builder()
            .signer(RelayAuthSigner::new(settings.keys.clone()))
            .opts(client_options())
            .admit_policy(policy)
            .websocket_transport(CountingTransport(pages.clone()))
            .build();
        let connection = Arc::new(Connection::new(settings, ours));
        let replies = Arc::new(ReplyPublisher::new(Arc::clone(&connection)));
        let inbox = Self {
            connection: Arc::clone(&connection),
            ledger,
            replies: Arc::clone(&replies),
            id,
            queue,
            received,
            in_flight: InFlight::default(),
            pages,
            backfill_bounds: Bounds::default(),
            backfilled: mpsc::channel(QUEUE),
            backfill_again: HashSet::new(),
            closed_meanwhile: HashSet::new(),
            interrupted: HashMap::new(),
            resumed: HashSet::new(),
            backfill_pauses: backfill_pauses(),
            sent_all: HashMap::new(),
            synced: HashSet::new(),
            reopening: KeyedLimit::default(),
            backfilling: KeyedLimit::default(),
            reopenings: reopenings(),
            notices: Notices::default(),
            rejected: Recent::new(REJECTED_IDS, Duration::MAX),
        };
        (inbox, connection, replies)
    }

    /// Connects, and submits orders until `stop` is over. Then no message is taken any more: another
    /// process serves it. Those that are being served are waited for, for some seconds at the most.
    ///
    /// # Errors
    /// When a relay's address is not usable, or the ledger fails at the start.
    pub async fn run_until(
        mut self,
        orders: Arc<OrderService>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        tokio::select! {
            ended = self.run(orders) => return ended,
            () = stop => {}
        }
        self.end().await;
        Ok(())
    }

    async fn end(mut self) {
        let end = async {
            self.connection.ours.shutdown().await;
            while self.in_flight.ended().await.is_some() {}
        };
        let _ = tokio::time::timeout(STOP, end).await;
    }

    async fn run(&mut self, orders: Arc<OrderService>) -> Result<(), Error> {
        let handler = Arc::new(MessageHandler {
            connection: Arc::clone(&self.connection),
            claims: Claims::new(Arc::clone(&self.ledger)),
            replies: Arc::clone(&self.replies),
            orders,
        });
        let mut notifications = self.connection.ours.notifications();
        self.connection.connect_sending().await?;
        self.connect().await?;
        let mut cursor_tick = tokio::time::interval(CURSOR_INTERVAL);
        cursor_tick.tick().await;
        loop {
            tokio::select! {
                event = self.received.recv(), if self.in_flight.has_room() => match event {
                    Some(event) => self.receive(&handler, event),
                    None => return Ok(()),
                },
                Some(()) = self.in_flight.ended() => {}
                notification = notifications.recv() => match notification {
                    Ok(RelayPoolNotification::Message { relay_url, message }) => {
                        self.on_message(&relay_url, &message).await
                    }
                    Ok(RelayPoolNotification::Shutdown)
                    | Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    // Events come through the admit policy; what is lost here is seen at the next
                    // tick.
                    Ok(RelayPoolNotification::Event { .. })
                    | Err(broadcast::error::RecvError::Lagged(_)) => {}
                },
                Some(backfilled) = self.backfilled.1.recv() => self.on_backfilled(backfilled),
                _ = cursor_tick.tick() => self.move_cursors().await,
            }
            self.mark_synced().await;
        }
    }

    /// Moves on the cursors that are due. Nobody holds them up who keeps the service busy: what is
    /// served after the mark does not count.
    async fn mark_synced(&mut self) {
        if self.received.is_empty() {
            for mark in self.sent_all.values_mut() {
                let messages = self.in_flight.begun();
                mark.get_or_insert_with(|| Mark { at: UnixTime::now(), messages });
            }
        }
        let served = self.sent_all.iter().filter_map(|(relay, mark)| {
            let mark = mark.filter(|mark| self.in_flight.has_served(mark.messages))?;
            Some((relay.clone(), mark.at))
        });
        for (relay, at) in served.collect::<Vec<_>>() {
            self.sent_all.remove(&relay);
            cursor::write(&*self.ledger, &relay, at).await;
            if self.synced.insert(relay.clone()) {
                tracing::info!(%relay, "inbox synced");
            }
        }
    }

    async fn connect(&self) -> Result<(), Error> {
        let pool = self.connection.ours.pool();
        for relay in &self.connection.settings.relays {
            // Saved before the relay is added: then it is subscribed on every connect, and after
            // authentication.
            let filters = self.filters(relay).await?;
            pool.save_subscription(self.id.clone(), filters).await;
            pool.add_relay(relay, relay_options()).await.map_err(Error::sdk)?;
        }
        self.connection.ours.connect().await;
        Ok(())
    }

    /// Wraps for us since the cursor, with everything that may be dated back; and, to warn their
    /// senders, messages that were not encrypted.
    async fn filters(&self, relay: &RelayUrl) -> Result<Vec<Filter>, LedgerError> {
        let service = self.connection.settings.keys.public_key();
        let since = async |back| cursor::since(&*self.ledger, relay, back).await;
        let wraps = since(gift_wrap::BACKDATED_SECONDS).await?;
        let plain = since(PLAIN_SECONDS).await?;
        Ok(vec![
            Filter::new().kind(Kind::GiftWrap).pubkey(service).since(wraps),
            Filter::new()
                .kinds([Kind::EncryptedDirectMessage, Kind::PrivateDirectMessage])
                .pubkey(service)
                .since(plain),
        ])
    }

    fn receive(&mut self, handler: &Arc<MessageHandler>, received: ReceivedEvent) {
        let ReceivedEvent { relay, event } = received;
        if self.rejected.contains(&event.id) {
            return;
        }
        let keys = &self.connection.settings.keys;
        let handler = Arc::clone(handler);
        match event.kind {
            Kind::GiftWrap => match gift_wrap::unwrap(keys, &event) {
                Ok(message) => {
                    let customer = message.sender;
                    let serve = async move { handler.serve(&relay, &message).await };
                    self.in_flight.spawn(customer, serve);
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, wrap = %event.id, "a wrap was dropped");
                    self.rejected.insert(&event.id);
                }
            },
            // A relay may send what was not subscribed to.
            Kind::EncryptedDirectMessage | Kind::PrivateDirectMessage
                if event.tags.public_keys().any(|key| *key == keys.public_key()) =>
            {
                self.rejected.insert(&event.id);
                let customer = event.pubkey;
                let warn = async move { handler.warn(&relay, &event).await };
                self.in_flight.spawn(customer, warn);
            }
            _ => {}
        }
    }

    /// Reads the stored wraps to their end, from the newest or from where the last backfill has
    /// stopped. If a backfill of this relay is running already, one more follows it, however many
    /// EOSE the relay sends meanwhile. Backfills in quick succession are delayed, each longer than the
    /// one before.
    fn start_backfill(&mut self, relay: &RelayUrl, reached: Option<Timestamp>) {
        let Some(permit) = self.backfilling.try_acquire(relay.clone(), 1) else {
            self.backfill_again.insert(relay.clone());
            return;
        };
        self.closed_meanwhile.remove(relay);
        let pause = self.backfill_pauses.delay(relay, Instant::now());
        let least = reached.map_or(Duration::ZERO, |_| self.backfill_bounds.pause);
        let backfill = Backfill {
            client: self.connection.ours.clone(),
            service: self.connection.settings.keys.public_key(),
            relay: relay.clone(),
            ledger: Arc::clone(&self.ledger),
            pages: self.pages.clone(),
            queue: self.queue.clone(),
            bounds: self.backfill_bounds,
            until: reached.unwrap_or_else(newest),
            done: self.backfilled.0.clone(),
            permit,
            pause: pause.max(least),
        };
        tokio::spawn(backfill.run());
    }

    fn on_backfilled(&mut self, backfilled: Backfilled) {
        let Backfilled { relay, result, reached, passed_over, permit } = backfilled;
        drop(permit);
        if passed_over > 0 {
            tracing::warn!(%relay, seconds = passed_over, "the relay has more of a second than it gives at once; what it has beyond that is not read");
        }
        let was_closed = self.closed_meanwhile.remove(&relay);
        if let Err(error) = &result {
            self.synced.remove(&relay);
            if let Some(left_out) = self.notices.admit(&relay, Instant::now()) {
                let reached = reached.as_secs();
                tracing::warn!(%relay, %error, reached, left_out, "the stored messages were not read to their end");
            }
        }
        match result {
            Ok(()) if self.is_due_again(&relay) => self.start_backfill(&relay, None),
            // It is read when it is subscribed again.
            Ok(()) if was_closed => {}
            Ok(()) => {
                self.sent_all.insert(relay, None);
            }
            Err(error) if error.goes_on() && !was_closed => {
                self.start_backfill(&relay, Some(reached));
            }
            Err(_) => {
                self.interrupted.insert(relay.clone(), reached);
                // It was subscribed again before this was known.
                if self.backfill_again.remove(&relay) {
                    self.on_sent_all(&relay);
                }
            }
        }
    }

    /// Whether one more backfill follows one that has read all.
    fn is_due_again(&mut self, relay: &RelayUrl) -> bool {
        let was_resumed = self.resumed.remove(relay);
        self.backfill_again.remove(relay) || was_resumed
    }

    fn on_sent_all(&mut self, relay: &RelayUrl) {
        let reached = self.interrupted.remove(relay);
        if reached.is_some() {
            self.resumed.insert(relay.clone());
        }
        self.start_backfill(relay, reached);
    }

    async fn on_message(&mut self, relay: &RelayUrl, message: &RelayMessage<'_>) {
        match message {
            RelayMessage::EndOfStoredEvents(id) if **id == self.id => self.on_sent_all(relay),
            RelayMessage::Closed { subscription_id, message } if **subscription_id == self.id => {
                // Nothing of it is read until it is open again. Authentication opens it by itself,
                // if it succeeds.
                self.synced.remove(relay);
                self.sent_all.remove(relay);
                if self.backfilling.count(relay) > 0 {
                    self.closed_meanwhile.insert(relay.clone());
                }
                if !message.starts_with("auth-required")
                    && let Some(left_out) = self.notices.admit(relay, Instant::now())
                {
                    let reason = plain(message, REASON_CHARS);
                    tracing::warn!(%relay, reason, left_out, "the relay closed the inbox; it is opened again");
                }
                self.reopen(relay.clone()).await;
            }
            RelayMessage::Notice(text) => {
                if let Some(left_out) = self.notices.admit(relay, Instant::now()) {
                    let notice = plain(text, REASON_CHARS);
                    tracing::warn!(%relay, notice, left_out, "the relay sent a notice");
                }
            }
            _ => {}
        }
    }

    async fn reopen(&mut self, relay: RelayUrl) {
        // Whatever the relay sends meanwhile: one at a time.
        let Some(permit) = self.reopening.try_acquire(relay.clone(), 1) else { return };
        let delay = self.reopenings.delay(&relay, Instant::now());
        let filters = match self.filters(&relay).await {
            Ok(filters) => filters,
            Err(error) => return tracing::warn!(%error, "the cursor could not be read"),
        };
        let (client, id) = (self.connection.ours.clone(), self.id.clone());
        tokio::spawn(async move {
            let _permit = permit;
            tokio::time::sleep(delay).await;
            if let Ok(relay) = client.relay(&relay).await
                && let Err(error) =
                    relay.subscribe_with_id(id, filters, SubscribeOptions::default()).await
            {
                tracing::warn!(%error, "the inbox could not be opened again; the relay is read when it reconnects");
            }
        });
    }

    async fn move_cursors(&mut self) {
        let open = self.connection.ours.subscription(&self.id).await;
        for (url, relay) in self.connection.ours.relays().await {
            if relay.status() != RelayStatus::Connected {
                // When it is back it has something to catch up with.
                self.synced.remove(&url);
                self.sent_all.remove(&url);
            } else if !open.contains_key(&url) {
                self.reopen(url).await;
            } else if self.backfilling.try_acquire(url.clone(), 1).is_none()
                || self.sent_all.contains_key(&url)
            {
                // What it has stored is still being read, or served.
            } else if !self.synced.contains(&url) {
                tracing::warn!(relay = %url, "the inbox is open and its stored messages were not read to their end; it is opened again");
                self.reopen(url).await;
            } else {
                self.sent_all.insert(url, None);
            }
        }
        self.mark_synced().await;
    }
}

#[cfg(test)]
pub(crate) use tests::FakeStore;

#[cfg(test)]
mod tests;
