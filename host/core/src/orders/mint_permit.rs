//! The permit of an order to be worked at its mint: from before its decision until it is paid for or refused.
//!
//! ```text
//! price ─▶ slot ─▶ verify, decide, reserve ─▶ hand over ─▶ dry run, receive
//!   │        │                   │
//!   └────────┴─ no room: refused ┘ as all who wait for a pod of the same tier
//! ```
//!
//! An order with a proven token that its mint has called unspent hands its slot over as soon as it
//! has reserved what it needs, and goes on among those that have. So a crowd learns that there is
//! no room left when all of it is reserved, not when all of it is sold. Nobody reserves by a token
//! that may be forged, or is spent, for longer than their slot lasts.
//!
//! Those whose tokens are being verified have reserved nothing either, and are refused with those
//! who wait: none of them waits for their mint to learn the same.

use super::OrderService;
use super::admission::{Place, RoomWanted, Slot, WaitedSlot};
use super::capacity::{self, Priced, ReservedTier};
use super::sold_out::SoldOutFindings;
use crate::backend::capacity::{NoCapacity, Tier};
use crate::backend::policy::{PolicySet, Quote};
use crate::keyed_limit::Permit;
use crate::limits;
use crate::model::ids::{LeaseId, MintUrl};
use crate::model::order::{Order, OrderState, State};
use crate::model::refusal::Refusal;
use crate::model::secret::Secret;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// An order among those of its mint that are not paid for.
pub(super) struct OrderAtMint {
    /// None: it needs none, or not any more.
    place: Option<Place>,
    permit: Option<MintPermit>,
    /// It has gone on among those that have reserved what they need.
    has_handed_over: bool,
}

/// The order is worked, until this is dropped.
struct MintPermit {
    /// None once it is handed over.
    slot: Option<Slot>,
    /// Others were first.
    has_waited: bool,
    /// Held until the order's capacity is reserved.
    room_wanted: Option<RoomWanted>,
    /// The tier of an order that has reserved nothing.
    unreserved: Option<Tier>,
    /// What others have found since its price was made out.
    findings: SoldOutFindings,
    /// In the place of the slot.
    after_reservation: Option<ReservedPermit>,
}

/// The slot of an order, and what was known when it was acquired.
struct AcquiredSlot {
    waited: WaitedSlot,
    unreserved: Option<Tier>,
    findings: SoldOutFindings,
}

/// The permit of an order that has reserved what it needs.
struct ReservedPermit {
    _held: Permit<MintUrl>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl OrderAtMint {
    pub(super) fn new(place: Option<Place>) -> Self {
        Self { place, permit: None, has_handed_over: false }
    }

    /// It may wait for days, or is paid for: the next order's turn has come.
    pub(super) fn leave(&mut self) {
        (self.permit, self.place) = (None, None);
    }

    /// It waits for its next turn, and does not delay the others.
    pub(super) fn release_permit(&mut self) {
        self.permit = None;
    }

    /// Whether it may have reserved something: its turn has come, or it is past that.
    pub(super) fn has_begun(&self) -> bool {
        self.place.as_ref().is_none_or(Place::has_begun)
    }

    /// Whether others wait for a permit, or have waited with it: they may be gone by now, refused.
    fn is_in_crowd(&self, tier: &Tier) -> bool {
        let with_it = |permit: &MintPermit| permit.has_waited || permit.findings.has_found(tier);
        self.permit.as_ref().is_some_and(with_it)
            || self.place.as_ref().is_some_and(Place::is_awaited)
    }

    /// Whether it has kept a place from others while it was not paid for, in this process.
    pub(super) fn has_handed_over(&self) -> bool {
        self.has_handed_over
    }

    /// What it needs is reserved.
    pub(super) fn end_room_wait(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.room_wanted = None;
        }
    }
}

impl MintPermit {
    fn new(acquired: AcquiredSlot, room_wanted: Option<RoomWanted>) -> Self {
        let AcquiredSlot { waited: WaitedSlot { slot, has_waited }, unreserved, findings } =
            acquired;
        let has_waited = has_waited || room_wanted.is_some();
        Self { slot, has_waited, room_wanted, unreserved, findings, after_reservation: None }
    }
}

impl OrderService {
    /// Waits for the order's permit at its mint, if it needs one.
    pub(super) async fn acquire_permit(
        &self,
        order: &Order,
        at_mint: &mut OrderAtMint,
        set: &mut Arc<dyn PolicySet>,
    ) -> Result<(), Refusal> {
        let OrderAtMint { place: Some(place), permit, .. } = at_mint else { return Ok(()) };
        if permit.is_none() {
            *permit = Some(self.next_permit(order, place, set).await?);
            place.set_begun();
        }
        Ok(())
    }

    /// Whether the cluster has room for the order's pod is checked before it has a permit, and again
    /// then if the order had to wait. Without room it is refused; but a proven order first waits for
    /// unproven ones that may free some, unless its pod never fits, or its token pays for none.
    async fn next_permit(
        &self,
        order: &Order,
        place: &mut Place,
        set: &mut Arc<dyn PolicySet>,
    ) -> Result<MintPermit, Refusal> {
        if order.state() != State::Received {
            return Ok(MintPermit::new(self.acquire_slot(place).await, None));
        }
        // It waits for nothing that it would not get.
        self.check_offered(&order.purchase).await?;
        *set = self.await_probe(&order.purchase).await?;
        place.end_probe_wait();
        let set = &**set;
        let mut room_wanted = None;
        loop {
            // Before the price: what others find while it is made out counts.
            let findings = self.sold_out.findings();
            let Some(priced) = self.priced(order, set).await else {
                return Ok(MintPermit::new(self.acquire_slot(place).await, room_wanted));
            };
            let pays_minimum = priced.pays_minimum;
            let acquired = self.slot_if_room(order, place, priced, findings, room_wanted.as_ref());
            let reason = match acquired.await {
                Ok(acquired) => return Ok(MintPermit::new(acquired, room_wanted)),
                Err(reason) => reason,
            };
            let is_waiting_over = room_wanted.is_some() || reason.is_lasting();
            if is_waiting_over || !pays_minimum || !self.is_contested(order, place).await {
                return Err(capacity::refusal(reason));
            }
            room_wanted = Some(self.admission.want_room(limits::ROOM_WAIT).await);
        }
    }

    /// The slot of an order that may have reserved something.
    async fn acquire_slot(&self, place: &Place) -> AcquiredSlot {
        let findings = self.sold_out.findings();
        AcquiredSlot { waited: place.slot().await, unreserved: None, findings }
    }

    /// A slot for an order of this price, as long as there is room for its pod.
    async fn slot_if_room(
        &self,
        order: &Order,
        place: &Place,
        priced: Priced,
        mut findings: SoldOutFindings,
        room_wanted: Option<&RoomWanted>,
    ) -> Result<AcquiredSlot, NoCapacity> {
        let Priced { tier, fits, has_port, .. } = priced;
        fits?;
        if has_port {
            // It is resumed, and may have its place already.
            return Ok(self.acquire_slot(place).await);
        }
        let waited = self.slot_while_room(order, place, &tier, &mut findings, room_wanted).await?;
        if waited.has_waited {
            // What was found until now is looked at again, and may not be so any more.
            findings = self.sold_out.findings();
            if let Some(reason) = self.sold_out(order, &tier).await {
                self.sold_out.report(&tier, reason);
                return Err(reason);
            }
        }
        Ok(AcquiredSlot { waited, unreserved: Some(tier), findings })
    }

    /// A slot, unless it is found before that there is no room for this tier.
    async fn slot_while_room(
        &self,
        order: &Order,
        place: &Place,
        tier: &Tier,
        findings: &mut SoldOutFindings,
        room_wanted: Option<&RoomWanted>,
    ) -> Result<WaitedSlot, NoCapacity> {
        let mut slot = pin!(place.slot());
        loop {
            let reason = tokio::select! {
                biased;
                waited = &mut slot => return Ok(waited),
                reason = findings.of(tier) => reason,
            };
            // Who has waited for room may be the first to see it.
            if room_wanted.is_none() || self.sold_out(order, tier).await.is_some() {
                return Err(reason);
            }
        }
    }

    /// Does what an order does with its permit before it reserves anything, unless there is found to be no
    /// room for its tier meanwhile.
    ///
    /// # Errors
    /// The work's own, or `resource_unavailable`.
    pub(super) async fn unless_sold_out<T>(
        &self,
        order: &Order,
        at_mint: &mut OrderAtMint,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let OrderAtMint { place: Some(place), permit: Some(permit), .. } = at_mint else {
            return work.await;
        };
        let Some(tier) = permit.unreserved.take() else { return work.await };
        tokio::select! {
            biased;
            done = work => done,
            reason = self.found_sold_out(order, place, &tier, &mut permit.findings) => {
                Err(capacity::refusal(reason))
            }
        }
    }

    /// Waits until others have found that there is no room, nor any that unproven orders may free.
    async fn found_sold_out(
        &self,
        order: &Order,
        place: &mut Place,
        tier: &Tier,
        findings: &mut SoldOutFindings,
    ) -> NoCapacity {
        loop {
            findings.of(tier).await;
            if self.is_contested(order, place).await {
                drop(self.admission.want_room(limits::ROOM_WAIT).await);
            }
            // What was found may not be so any more.
            if let Some(reason) = self.sold_out(order, tier).await {
                return reason;
            }
        }
    }

    /// After the order found no room: others of its tier have none either, unless its pod needs more
    /// than theirs.
    pub(super) async fn report_if_sold_out(&self, order: &Order, tier: &Tier) {
        if let Some(reason) = self.sold_out(order, tier).await {
            self.sold_out.report(tier, reason);
        }
    }

    /// Whether unproven orders, which may never be paid, run while this order's token is proven.
    async fn is_contested(&self, order: &Order, place: &mut Place) -> bool {
        let OrderState::Received { token, .. } = &order.state else { return false };
        if !self.admission.is_any_unproven() {
            return false;
        }
        if !place.is_proven() && self.backends.wallet.is_proven(token, &order.token_info).await {
            place.prove();
        }
        place.is_proven()
    }

    /// Reserves what a new pod of this price needs, as far as that is known before its dry run, while
    /// others wait for a permit, or have waited with this one.
    ///
    /// # Errors
    /// `resource_unavailable`: the order comes too late, as do all who wait for the same.
    pub(super) async fn reserve_early(
        &self,
        order: &Order,
        token: &Secret,
        quote: &Quote,
        at_mint: &mut OrderAtMint,
    ) -> Result<(), Refusal> {
        let tier = Tier::from(quote);
        if !at_mint.is_in_crowd(&tier) {
            return Ok(());
        }
        match self.reserve_tier(&LeaseId::of(&order.id), &tier).await? {
            ReservedTier::Reserved => self.hand_over(order, token, at_mint).await,
            ReservedTier::Unknown => {}
            ReservedTier::SoldOut(reason) => {
                self.sold_out.report(&tier, reason);
                return Err(capacity::refusal(reason));
            }
        }
        Ok(())
    }

    /// Hands the order's slot to the next one, since what this one needs is reserved, and waits for
    /// its turn among those of which that is so. Not if its token may be forged, nor where payments
    /// are not answered: what such orders hold stays bounded by the slots. Few of them, where tokens were
    /// spent elsewhere meanwhile.
    pub(super) async fn hand_over(&self, order: &Order, token: &Secret, at_mint: &mut OrderAtMint) {
        let OrderAtMint { place: Some(place), permit: Some(permit), has_handed_over } = at_mint
        else {
            return;
        };
        let mint = &order.token_info.mint;
        if permit.slot.is_none() || self.unknown.count(mint) > 0 {
            return;
        }
        if !place.is_proven() {
            // Whoever is alone at the mint is not looked at twice.
            if !self.admission.is_crowded(mint)
                || !self.backends.wallet.is_proven(token, &order.token_info).await
            {
                return;
            }
            place.prove();
        }
        let limit = match self.double_spends.is_recent(mint) {
            true => limits::RESERVED_AFTER_DOUBLE_SPEND,
            false => limits::RESERVED_AT_MINT,
        };
        let Some(held) = self.reserved.try_acquire(mint.clone(), limit) else { return };
        (permit.slot, permit.room_wanted, *has_handed_over) = (None, None, true);
        let slot = self.reserved_slots.acquire(mint).await;
        permit.after_reservation = Some(ReservedPermit { _held: held, _slot: slot });
    }
}
