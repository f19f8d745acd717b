//! Candidates that decide beside the set in force, on the orders of this moment; nothing that they say is used.
//!
//! A live order pays for a copy of what was asked and said, and never waits: a thread of its own, which yields to everybody
//! else, asks the candidates. When it cannot keep up, orders are left out, and counted.

use crate::machine::Machine;
use crate::replay::{Candidate, Comparison};
use crate::set::{LoadError, Set, Sources};
use paygress_core::order::{Order, OrderSecrets};
use paygress_core::policy::SlotReport;
use paygress_core::units::UnixTime;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Orders that wait for the candidates: a burst; each is a few KB, or as large as the largest template.
const WAITING: usize = 256;

/// How candidates do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowReport {
    /// Since when.
    pub since: UnixTime,
    /// The candidates: their slots, digests, calls and latencies.
    pub candidates: Vec<SlotReport>,
    /// How what they say compares with what was said.
    pub comparison: Comparison,
    /// Orders that were left out, since the candidates could not keep up.
    pub left_out: u64,
}

pub(crate) struct Shadow {
    sources: Sources,
    since: UnixTime,
    candidate: Arc<Candidate>,
    comparison: Arc<Mutex<Comparison>>,
    left_out: AtomicU64,
    sender: SyncSender<Order>,
}

impl Shadow {
    pub(crate) fn start(machine: &Arc<Machine>, set: &Set, sources: Sources) -> Result<Self, Vec<LoadError>> {
        let slots = sources.keys().copied().collect();
        let candidate = Arc::new(Candidate { set: set.with(machine, &sources)?, slots });
        let comparison = Arc::new(Mutex::new(Comparison::default()));
        let (sender, receiver) = sync_channel::<Order>(WAITING);
        let (asked, compared) = (Arc::clone(&candidate), Arc::clone(&comparison));
        let work = move || {
            yield_to_everybody();
            // Ends with the shadow.
            while let Ok(order) = receiver.recv() {
                compared.lock().unwrap_or_else(PoisonError::into_inner).add(&order, &asked);
            }
        };
        let thread = std::thread::Builder::new().name("policy-shadow".to_owned()).spawn(work);
        if let Err(error) = thread {
            tracing::error!(%error, "the shadow has no thread; its orders are left out");
        }
        Ok(Self { sources, since: UnixTime::now(), candidate, comparison, left_out: AtomicU64::new(0), sender })
    }

    /// Shows it an order that was decided; never waits.
    pub(crate) fn offer(&self, order: &Order) {
        if order.considered.is_none() && order.decision.is_none() {
            return;
        }
        let order = Order { secrets: OrderSecrets::default(), ..order.clone() };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(order) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let tried = |report: &SlotReport| self.candidate.slots.contains(&report.slot);
        ShadowReport {
            since: self.since,
            candidates: self.candidate.set.report().into_iter().filter(tried).collect(),
            comparison: self.comparison.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            left_out: self.left_out.load(Ordering::Relaxed),
        }
    }
}

/// Live orders come first: this thread runs when nobody else wants the processor.
fn yield_to_everybody() {
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "the shadow's thread runs like any other");
    }
}
