//! The places of connections: how many there are of each network, and which connection loses its own
//! to a new one.
//!
//! Whoever holds connections open must not keep others of their network out, who may be behind the same
//! address. So a connection that waits for its client loses its place to a newcomer where there is no
//! other: it has no request, or the next piece of one is waited for, or its client is too far [behind](Pace)
//! in reading what the service writes. The one without progress for longest is the first, and what a client
//! sends that is too far behind is no progress; and where all places are taken, of the provider's network
//! that has most of them: who is slow, and comes from elsewhere, has the time for it. A connection that
//! the service works for, and whose client reads, is never cut for that.

use crate::limits;
use crate::pace::Pace;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use futures::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use ipnet::IpNet;
use paygress_core::networks::networks;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A trusted proxy's connections are not limited by its networks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerKind {
    Direct,
    Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestState {
    /// There is none, or its head is not here.
    Absent,
    /// More is waited for of what has this number: the body of the request, or a terminal's login.
    Receiving(u64),
    /// The service works for it, or has its answer to send. What has this number may not be here in full.
    UnderWay(Option<u64>),
}

/// Whether another connection has got a place.
#[derive(Default)]
struct Loss {
    is_lost: AtomicBool,
    waker: AtomicWaker,
}

struct HeldPlace {
    networks: Vec<IpNet>,
    loss: Arc<Loss>,
    request: RequestState,
    /// While something cannot be written: since when the client is [waited for](Pace::wait).
    unread: Option<Instant>,
    /// The key of its last progress.
    age: u64,
    /// Of a connection that waits for its client: its key in [`Table::waiting`].
    waiting: Option<u64>,
}

impl HeldPlace {
    fn provider(&self) -> Option<IpNet> {
        self.networks.last().copied()
    }

    fn is_under_way(&self) -> bool {
        matches!(self.request, RequestState::UnderWay(_))
    }

    fn is_waiting(&self) -> bool {
        !self.is_under_way() || self.unread.is_some()
    }

    /// Whether a newcomer may have this place.
    fn can_be_lost(&self, now: Instant) -> bool {
        let is_stalled = |since| now.saturating_duration_since(since) >= limits::STALLED;
        !self.is_under_way() || self.unread.is_some_and(is_stalled)
    }
}

#[derive(Default)]
struct Table {
    /// The next key of either map, or number of a request.
    next: u64,
    entries: HashMap<u64, HeldPlace>,
    of_networks: HashMap<IpNet, usize>,
    /// Connections that wait for their clients, of each provider's network; the one without progress for
    /// longest first.
    waiting: HashMap<Option<IpNet>, BTreeMap<u64, u64>>,
}

impl Table {
    fn key(&mut self) -> u64 {
        let key = self.next;
        self.next = key.wrapping_add(1);
        key
    }

    fn count(&self, network: &IpNet) -> usize {
        self.of_networks.get(network).copied().unwrap_or(0)
    }

    fn insert(&mut self, networks: Vec<IpNet>) -> (u64, Arc<Loss>) {
        for network in &networks {
            let count = self.of_networks.entry(*network).or_default();
            *count = count.saturating_add(1);
        }
        let (id, age, loss) = (self.key(), self.key(), Arc::<Loss>::default());
        let entry = HeldPlace {
            networks,
            loss: Arc::clone(&loss),
            request: RequestState::Absent,
            unread: None,
            age,
            waiting: Some(age),
        };
        self.insert_waiting(entry.provider(), age, id);
        self.entries.insert(id, entry);
        (id, loss)
    }

    fn remove(&mut self, id: u64) -> Option<HeldPlace> {
        let entry = self.entries.remove(&id)?;
        if let Some(age) = entry.waiting {
            self.remove_waiting(entry.provider(), age);
        }
        for network in &entry.networks {
            if let Some(count) = self.of_networks.get_mut(network) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.of_networks.remove(network);
                }
            }
        }
        Some(entry)
    }

    /// Something has happened on this connection: of those that wait, it is the youngest. False if it has
    /// lost its place.
    fn update(&mut self, id: u64, change: impl FnOnce(&mut HeldPlace)) -> bool {
        let age = self.key();
        self.change(id, |entry| {
            change(entry);
            entry.age = age;
        })
    }

    /// The same without progress.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut HeldPlace)) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        change(entry);
        let (provider, waiting) = (entry.provider(), entry.is_waiting().then_some(entry.age));
        let before = std::mem::replace(&mut entry.waiting, waiting);
        if let Some(age) = before {
            self.remove_waiting(provider, age);
        }
        if let Some(age) = waiting {
            self.insert_waiting(provider, age, id);
        }
        true
    }

    fn insert_waiting(&mut self, provider: Option<IpNet>, age: u64, id: u64) {
        self.waiting.entry(provider).or_default().insert(age, id);
    }

    fn remove_waiting(&mut self, provider: Option<IpNet>, age: u64) {
        if let Some(of_provider) = self.waiting.get_mut(&provider) {
            of_provider.remove(&age);
            if of_provider.is_empty() {
                self.waiting.remove(&provider);
            }
        }
    }

    /// The first of this network, which is of this provider, that can lose its place.
    fn first_of(&self, provider: Option<IpNet>, network: &IpNet, now: Instant) -> Option<u64> {
        let can_be_lost = |id: &u64| {
            let entry = self.entries.get(id);
            entry.is_some_and(|it| it.networks.contains(network) && it.can_be_lost(now))
        };
        self.waiting.get(&provider)?.values().copied().find(can_be_lost)
    }

    /// The same of the provider with most connections, of several with as many of the newcomer's own. A
    /// trusted proxy's, which are of none, are the last.
    fn first_of_all(&self, own: Option<IpNet>, now: Instant) -> Option<u64> {
        let can_be_lost = |id: &u64| self.entries.get(id).is_some_and(|it| it.can_be_lost(now));
        let firsts = self.waiting.iter().filter_map(|(provider, waiting)| {
            let (age, id) = waiting.iter().find(|&(_, id)| can_be_lost(id))?;
            let count = provider.map_or(0, |network| self.count(&network));
            Some(((count, *provider == own, Reverse(*age)), *id))
        });
        firsts.max_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    fn free(&mut self, id: u64) {
        if let Some(entry) = self.remove(id) {
            entry.loss.is_lost.store(true, Ordering::Release);
            entry.loss.waker.wake();
        }
    }

    /// One more connection of this address: where its networks or all have as many as they may, instead
    /// of another.
    fn admit(&mut self, address: IpAddr, peer: PeerKind) -> Option<(u64, Arc<Loss>)> {
        let networks = match peer {
            PeerKind::Direct => Vec::from(networks(address)),
            PeerKind::Proxy => Vec::new(),
        };
        let (provider, now) = (networks.last().copied(), Instant::now());
        let mut limited = networks.iter().copied().zip(limits::CONNECTIONS_OF_ONE);
        // The narrowest that is full is within the others: one place that is free there is free in all.
        let full = limited.find(|(network, most)| self.count(network) >= *most);
        if let Some((full, _)) = full {
            self.free(self.first_of(provider, &full, now)?);
        } else if self.entries.len() >= limits::CONNECTIONS {
            self.free(self.first_of_all(provider, now)?);
        }
        Some(self.insert(networks))
    }
}

/// All places.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Table>>);

impl Places {
    /// A place for a connection that has no request yet; none if the service works for all others.
    pub(crate) fn admit(&self, address: IpAddr, peer: PeerKind) -> Option<Arc<Place>> {
        let (id, loss) = self.lock().admit(address, peer)?;
        let is_answered = AtomicBool::new(false);
        Some(Arc::new(Place { places: self.clone(), id, loss, is_answered }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, as long as anything of the connection is in use.
pub(crate) struct Place {
    places: Places,
    id: u64,
    loss: Arc<Loss>,
    /// The last answer is complete, and may not have been sent.
    is_answered: AtomicBool,
}

impl Place {
    /// Waits until another connection has got this place.
    pub(crate) async fn lost(&self) {
        poll_fn(|context| self.poll_lost(context)).await;
    }

    /// The same for the task that has the socket: it alone is woken.
    pub(crate) fn poll_lost(&self, context: &mut Context<'_>) -> Poll<()> {
        self.loss.waker.register(context.waker());
        if self.loss.is_lost.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A request begins; none if the place is lost, so that nobody would get its answer.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        let mut table = self.places.lock();
        if !table.update(self.id, |entry| entry.request = RequestState::UnderWay(None)) {
            return None;
        }
        self.is_answered.store(false, Ordering::Relaxed);
        drop(table);
        Some(UnderWay { place: Some(Arc::clone(self)) })
    }

    /// Something is not here in full; what was not before is waited for no more.
    pub(crate) fn receive(self: &Arc<Self>) -> Receiving {
        let mut table = self.places.lock();
        let number = table.key();
        table.update(self.id, |entry| entry.request = RequestState::UnderWay(Some(number)));
        drop(table);
        let place = Arc::clone(self);
        Receiving { place, number, pace: Pace::default(), is_waited_for: false }
    }

    /// What was written has been sent.
    pub(crate) fn flushed(&self) {
        if self.is_answered.swap(false, Ordering::Relaxed) {
            self.places.lock().update(self.id, |entry| entry.request = RequestState::Absent);
        }
    }

    /// The client does not read what is to be written, and is waited for since then; or it reads again,
    /// which is progress once it is not too far behind.
    pub(crate) fn set_unread(&self, since: Option<Instant>) {
        let is_progress = since.is_some_and(|since| since.elapsed() < limits::STALLED);
        let change = |entry: &mut HeldPlace| entry.unread = since;
        let mut table = self.places.lock();
        if is_progress {
            table.update(self.id, change);
        } else {
            table.change(self.id, change);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.id);
    }
}

/// A request, until its answer is complete.
pub(crate) struct UnderWay {
    /// None: the connection has another protocol now, and is under way for good unless something is
    /// [received](Place::receive).
    place: Option<Arc<Place>>,
}

impl UnderWay {
    /// Its body is not here in full.
    pub(crate) fn receive(&self) -> Option<Receiving> {
        self.place.as_ref().map(Place::receive)
    }

    /// Until the body of this answer ends.
    pub(crate) fn until_end_of(mut self, response: Response) -> hyper::Response<AnswerBody> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.place = None;
        }
        response.map(|body| AnswerBody { body, _under_way: self })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.is_answered.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether its client has got further since the last change of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Made,
    NotMade,
}

/// A request whose body is not here in full; or a connection whose client has yet to log in. Dropped when
/// all has come, or nobody reads the rest.
pub(crate) struct Receiving {
    place: Arc<Place>,
    /// The connection may have another by now.
    number: u64,
    pace: Pace,
    is_waited_for: bool,
}

impl Receiving {
    /// The next piece is waited for.
    pub(crate) fn wait(&mut self) {
        let progress = match self.pace.wait().elapsed() < limits::STALLED {
            true => Progress::Made,
            false => Progress::NotMade,
        };
        if !std::mem::replace(&mut self.is_waited_for, true) {
            self.set(RequestState::Receiving(self.number), progress);
        }
    }

    /// A piece of so many bytes has come, and the service works with it.
    pub(crate) fn progress(&mut self, bytes: usize) {
        self.pace.advance(bytes);
        if std::mem::take(&mut self.is_waited_for) {
            self.set(RequestState::UnderWay(Some(self.number)), Progress::NotMade);
        }
    }

    fn set(&self, state: RequestState, progress: Progress) {
        let (mut table, id) = (self.place.places.lock(), self.place.id);
        let before = table.entries.get(&id).map(|entry| entry.request);
        let own = [RequestState::Receiving(self.number), RequestState::UnderWay(Some(self.number))];
        if !before.is_some_and(|before| own.contains(&before)) {
            return;
        }
        let change = |entry: &mut HeldPlace| entry.request = state;
        match progress {
            Progress::Made => table.update(id, change),
            Progress::NotMade => table.change(id, change),
        };
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.progress(0);
    }
}

/// The body of an answer. It is dropped when it has been written, which is before it is sent.
pub(crate) struct AnswerBody {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        hyper::body::Body::poll_frame(Pin::new(&mut self.body), context)
    }

    fn is_end_stream(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests;
