//! Which order is worked at a mint next: few at once, in turn between customers, and before all
//! others those whose tokens cannot be forged.
//!
//! ```text
//! submit ─▶ accept (of one source so many) ─▶ claim_place (of one mint so many) ─▶ Place
//! worker ─▶ slot: waits for its turn at the mint ─▶ Slot, until the order is paid or refused, or is
//!           proven and has reserved what it needs (`mint_permit`)
//! ```
//!
//! An order that runs holds a place in the cluster that it may never pay for. While a proven one
//! finds none left, no unproven one begins, and it waits for those that run ([`RoomWanted`]).
//!
//! Nothing here is stored: an order that is refused a place was never written.

use super::lane::Lane;
use super::waiting_memory::WaitingMemory;
use crate::byte_budget::ReservedBytes;
use crate::keyed_limit::{KeyedLimit, Permit};
use crate::limits;
use crate::model::ids::{Customer, MintUrl};
use crate::model::refusal::{ErrorType, Refusal};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

/// Whom an order comes from, as far as that is known: orders of one source wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Network(IpAddr),
    Customer(Option<Customer>),
}

/// The orders of all mints that are not paid for yet.
#[derive(Default)]
pub(super) struct Admission {
    sources: KeyedLimit<Source>,
    memory: WaitingMemory,
    mints: Mutex<Mints>,
    /// How many unproven orders run.
    unproven_running: watch::Sender<usize>,
}

#[derive(Default)]
struct Mints {
    by_url: HashMap<MintUrl, AtMint>,
    /// Proven orders that wait for room in the cluster.
    room_wanted: usize,
}

impl Mints {
    fn at(&mut self, mint: &MintUrl) -> &mut AtMint {
        self.by_url.entry(mint.clone()).or_default()
    }
}

#[derive(Default)]
struct AtMint {
    proven: Orders,
    unproven: Orders,
}

/// The orders of one lane at a mint.
#[derive(Default)]
struct Orders {
    /// Those that have a place, whether they run or wait.
    places: usize,
    running: usize,
    waiting: WaitingOrders,
}

/// Those that wait, by source: the sources take turns.
#[derive(Default)]
struct WaitingOrders {
    sources: VecDeque<Source>,
    waiting: HashMap<Source, VecDeque<oneshot::Sender<Slot>>>,
}

impl WaitingOrders {
    fn push(&mut self, source: &Source, waiter: oneshot::Sender<Slot>) {
        let waiting = self.waiting.entry(source.clone()).or_default();
        if waiting.is_empty() {
            self.sources.push_back(source.clone());
        }
        waiting.push_back(waiter);
    }

    fn pop(&mut self) -> Option<oneshot::Sender<Slot>> {
        let source = self.sources.pop_front()?;
        let waiting = self.waiting.get_mut(&source)?;
        let waiter = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&source);
        } else {
            self.sources.push_back(source);
        }
        waiter
    }
}

impl AtMint {
    fn lane(&mut self, lane: Lane) -> &mut Orders {
        match lane {
            Lane::Proven => &mut self.proven,
            Lane::Unproven => &mut self.unproven,
        }
    }

    /// Who runs next, if one more may: proven orders first, but for the few slots of unproven ones.
    fn next(&mut self, unproven_slots: usize) -> Option<(Lane, oneshot::Sender<Slot>)> {
        let running = self.proven.running.saturating_add(self.unproven.running);
        if running >= limits::ORDERS_AT_ONCE {
            return None;
        }
        let has_unproven_slot = self.unproven.running < unproven_slots;
        let proven_slots = limits::ORDERS_AT_ONCE.saturating_sub(limits::UNPROVEN_AT_ONCE);
        let lanes = match self.proven.running < proven_slots {
            true => [Lane::Proven, Lane::Unproven],
            false => [Lane::Unproven, Lane::Proven],
        };
        lanes
            .into_iter()
            .filter(|lane| *lane == Lane::Proven || has_unproven_slot)
            .find_map(|lane| Some((lane, self.lane(lane).waiting.pop()?)))
    }
}

/// One order of a source, until it is dropped.
pub(super) type Entrant = Permit<Source>;

/// The right of an order without a proven token to wait for a probe, until it is dropped.
pub(super) type ProbeWait = OwnedSemaphorePermit;

/// The place of an order at its mint, until it is dropped.
pub(super) struct Place {
    admission: Arc<Admission>,
    entrant: Entrant,
    mint: MintUrl,
    lane: Lane,
    _bytes: Option<ReservedBytes>,
    probe_wait: Option<ProbeWait>,
    /// Its turn has come once, here or in an earlier process.
    has_begun: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut mints = self.admission.mints();
        let orders = mints.at(&self.mint).lane(self.lane);
        orders.places = orders.places.saturating_sub(1);
    }
}

/// The right to work at a mint, until it is dropped; then the next order's turn has come.
pub(super) struct Slot(Option<(Arc<Admission>, MintUrl, Lane)>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((admission, mint, lane)) = self.0.take() else { return };
        let mut mints = admission.mints();
        let orders = mints.at(&mint).lane(lane);
        orders.running = orders.running.saturating_sub(1);
        admission.assign_slots(&mut mints, &mint);
    }
}

/// Keeps unproven orders from slots, until it is dropped.
pub(super) struct RoomWanted(Arc<Admission>);

impl Drop for RoomWanted {
    fn drop(&mut self) {
        let mut mints = self.0.mints();
        mints.room_wanted = mints.room_wanted.saturating_sub(1);
        let urls: Vec<MintUrl> = mints.by_url.keys().cloned().collect();
        for mint in urls {
            self.0.assign_slots(&mut mints, &mint);
        }
    }
}

/// A slot, and whether others were first.
pub(super) struct WaitedSlot {
    pub(super) slot: Option<Slot>,
    pub(super) has_waited: bool,
}

impl Admission {
    fn mints(&self) -> MutexGuard<'_, Mints> {
        self.mints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more order of this source, before anything else is done for it.
    ///
    /// # Errors
    /// `resource_unavailable`: it has enough of them.
    pub(super) fn accept(&self, source: Source) -> Result<Entrant, Refusal> {
        let entrant = self.sources.try_acquire(source, limits::ORDERS_OF_ONE);
        entrant.ok_or_else(|| busy("too many orders of yours are waiting"))
    }

    /// Whether an order of this mint would have to wait unless its token is proven.
    pub(super) fn is_crowded(&self, mint: &MintUrl) -> bool {
        self.mints().by_url.get(mint).is_some_and(|AtMint { proven, unproven }| {
            unproven.places >= limits::UNPROVEN_AT_ONCE
                || proven.places.saturating_add(unproven.places) >= limits::ORDERS_AT_ONCE
        })
    }

    /// # Errors
    /// `resource_unavailable`: too many wait for this mint, or they hold too much at all mints.
    pub(super) fn claim_place(
        self: &Arc<Self>,
        entrant: Entrant,
        mint: &MintUrl,
        lane: Lane,
        bytes: usize,
    ) -> Result<Place, Refusal> {
        let place = self.place(entrant, mint, lane, limits::ORDERS_WAITING, bytes);
        place.ok_or_else(|| match lane {
            Lane::Proven => busy("too many orders are waiting"),
            Lane::Unproven => busy(
                "too many orders are waiting; a token with DLEQ proofs (NUT-12) goes before those \
                 without",
            ),
        })
    }

    /// The place of an order that an earlier process has written; it is not refused one.
    pub(super) fn resume(
        self: &Arc<Self>,
        source: Source,
        mint: &MintUrl,
        lane: Lane,
    ) -> Option<Place> {
        let entrant = self.sources.try_acquire(source, usize::MAX)?;
        let mut place = self.place(entrant, mint, lane, usize::MAX, 0)?;
        place.set_begun();
        Some(place)
    }

    /// None when the lane has so many already, or has no such memory left.
    fn place(
        self: &Arc<Self>,
        entrant: Entrant,
        mint: &MintUrl,
        lane: Lane,
        limit: usize,
        bytes: usize,
    ) -> Option<Place> {
        let mut mints = self.mints();
        let orders = mints.at(mint).lane(lane);
        if orders.places >= limit {
            return None;
        }
        let bytes = match orders.places < limits::ORDERS_AT_ONCE {
            true => None,
            false => Some(self.memory.try_reserve(lane, bytes)?),
        };
        orders.places = orders.places.saturating_add(1);
        drop(mints);
        let admission = Arc::clone(self);
        Some(Place {
            admission,
            entrant,
            mint: mint.clone(),
            lane,
            _bytes: bytes,
            probe_wait: None,
            has_begun: false,
        })
    }

    /// Whether unproven orders run.
    pub(super) fn is_any_unproven(&self) -> bool {
        *self.unproven_running.borrow() > 0
    }

    /// Waits until no unproven order runs any more, but not longer than this. None begins while the
    /// result lives.
    pub(super) async fn want_room(self: &Arc<Self>, wait: Duration) -> RoomWanted {
        let mut running = self.unproven_running.subscribe();
        {
            let mut mints = self.mints();
            mints.room_wanted = mints.room_wanted.saturating_add(1);
        }
        let wanted = RoomWanted(Arc::clone(self));
        // What runs longer waits for its mint.
        let _ = tokio::time::timeout(wait, running.wait_for(|running| *running == 0)).await;
        wanted
    }

    /// Gives free slots to those who wait.
    fn assign_slots(self: &Arc<Self>, mints: &mut Mints, mint: &MintUrl) {
        // While a proven order waits for room, no unproven one begins.
        let unproven_slots = if mints.room_wanted > 0 { 0 } else { limits::UNPROVEN_AT_ONCE };
        let at_mint = mints.at(mint);
        while let Some((lane, waiter)) = at_mint.next(unproven_slots) {
            let slot = Slot(Some((Arc::clone(self), mint.clone(), lane)));
            match waiter.send(slot) {
                Ok(()) => {
                    let orders = at_mint.lane(lane);
                    orders.running = orders.running.saturating_add(1);
                }
                // Nobody waits there any more: it has not run, and frees nothing.
                Err(mut slot) => drop(slot.0.take()),
            }
        }
        let running = mints.by_url.values().map(|at_mint| at_mint.unproven.running).sum();
        self.unproven_running
            .send_if_modified(|before| std::mem::replace(before, running) != running);
    }
}

impl Place {
    pub(super) fn is_proven(&self) -> bool {
        self.lane == Lane::Proven
    }

    /// Whether proven orders wait for their turn at its mint.
    pub(super) fn is_awaited(&self) -> bool {
        let mints = self.admission.mints();
        let at_mint = mints.by_url.get(&self.mint);
        at_mint.is_some_and(|at_mint| !at_mint.proven.waiting.sources.is_empty())
    }

    /// The order's turn has come: from now on it may have reserved something.
    pub(super) fn set_begun(&mut self) {
        self.has_begun = true;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The order waits for a probe by this right, if it needs one.
    pub(super) fn begin_probe_wait(&mut self, right: Option<ProbeWait>) {
        self.probe_wait = right;
    }

    /// It does not wait for one any more.
    pub(super) fn end_probe_wait(&mut self) {
        self.probe_wait = None;
    }

    /// Its token was found to be proven: the place is one of those.
    pub(super) fn prove(&mut self) {
        let mut mints = self.admission.mints();
        let at_mint = mints.at(&self.mint);
        let before = at_mint.lane(self.lane);
        before.places = before.places.saturating_sub(1);
        at_mint.proven.places = at_mint.proven.places.saturating_add(1);
        self.lane = Lane::Proven;
    }

    /// Waits for the order's turn at its mint.
    pub(super) async fn slot(&self) -> WaitedSlot {
        let (sender, mut receiver) = oneshot::channel();
        {
            let mut mints = self.admission.mints();
            let waiting = &mut mints.at(&self.mint).lane(self.lane).waiting;
            waiting.push(self.entrant.key(), sender);
            self.admission.assign_slots(&mut mints, &self.mint);
        }
        match receiver.try_recv() {
            Ok(slot) => WaitedSlot { slot: Some(slot), has_waited: false },
            Err(_) => WaitedSlot { slot: receiver.await.ok(), has_waited: true },
        }
    }
}

fn busy(what: &str) -> Refusal {
    Refusal::new(
        ErrorType::ResourceUnavailable,
        format!(
            "{what}; this one was not looked at and your token is still good, try again in a minute"
        ),
    )
}

#[cfg(test)]
mod tests;
