//! Candidates that decide beside the set in force, on the orders of this moment; nothing that they
//! say is used.
//!
//! A live order pays for a copy of what was asked and said, and never waits: a thread of its own,
//! which yields to everybody else, asks the candidates in the pauses between orders, since even on
//! another processor it would slow them. When it cannot keep up, orders are left out, and counted.

use crate::engine::PolicyEngine;
use crate::replay::{Candidate, Comparison};
use crate::set::{ComponentSet, LoadError, Sources};
use paygress_core::backend::policy::SlotStats;
use paygress_core::model::order::{Order, OrderSecrets};
use paygress_core::model::units::UnixTime;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Orders that wait for the candidates: a burst; each is a few KB, or as large as the largest
/// template.
const WAITING: usize = 256;

/// From this number on it does not wait for a pause any longer.
const PRESSING: usize = WAITING / 2;
/// When nothing was heard of a live order for so long, there is a pause.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it is looked whether there is one.
const LOOK: Duration = Duration::from_millis(1);

/// How candidates do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowReport {
    /// Since when.
    pub since: UnixTime,
    /// The candidates: their slots, digests, calls and latencies.
    pub candidates: Vec<SlotStats>,
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
    traffic: Arc<Traffic>,
    sender: SyncSender<Order>,
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.traffic.over.store(true, Ordering::Relaxed);
    }
}

/// When a live order was heard of last, and how many wait for the candidates.
struct Traffic {
    over: AtomicBool,
    begun: Instant,
    heard_us: AtomicU64,
    waiting: AtomicUsize,
    left_out: AtomicU64,
}

impl Traffic {
    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wait_for_a_pause(&self) {
        let quiet = || {
            Duration::from_micros(
                self.now_us().saturating_sub(self.heard_us.load(Ordering::Relaxed)),
            ) >= PAUSE
        };
        while !quiet()
            && !self.over.load(Ordering::Relaxed)
            && self.waiting.load(Ordering::Relaxed) < PRESSING
        {
            std::thread::sleep(LOOK);
        }
    }
}

impl Shadow {
    pub(crate) fn start(
        machine: &Arc<PolicyEngine>,
        set: &ComponentSet,
        sources: Sources,
    ) -> Result<Self, Vec<LoadError>> {
        let slots = sources.keys().copied().collect();
        let candidate = Arc::new(Candidate { set: set.with(machine, &sources)?, slots });
        let comparison = Arc::new(Mutex::new(Comparison::default()));
        let (sender, receiver) = sync_channel::<Order>(WAITING);
        let traffic = Arc::new(Traffic {
            over: AtomicBool::new(false),
            begun: Instant::now(),
            heard_us: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            left_out: AtomicU64::new(0),
        });
        let (asked, compared, pauses) =
            (Arc::clone(&candidate), Arc::clone(&comparison), Arc::clone(&traffic));
        let work = move || {
            yield_to_everybody();
            while let Ok(order) = receiver.recv() {
                pauses.wait_for_a_pause();
                // It ends with the shadow, whatever still waits.
                if pauses.over.load(Ordering::Relaxed) {
                    return;
                }
                pauses.waiting.fetch_sub(1, Ordering::Relaxed);
                compared.lock().unwrap_or_else(PoisonError::into_inner).add(&order, &asked);
            }
        };
        let thread = std::thread::Builder::new().name("policy-shadow".to_owned()).spawn(work);
        if let Err(error) = thread {
            tracing::error!(%error, "the shadow has no thread; its orders are left out");
        }
        Ok(Self { sources, since: UnixTime::now(), candidate, comparison, traffic, sender })
    }

    /// A live order begins, or goes on.
    pub(crate) fn heard(&self) {
        self.traffic.heard_us.store(self.traffic.now_us(), Ordering::Relaxed);
    }

    /// Shows it an order that was decided; never waits.
    pub(crate) fn offer(&self, order: &Order) {
        self.heard();
        if order.policy_trace.is_none() && order.decision.is_none() {
            return;
        }
        let order = Order { secrets: OrderSecrets::default(), ..order.clone() };
        self.traffic.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(order)
        {
            self.traffic.waiting.fetch_sub(1, Ordering::Relaxed);
            self.traffic.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let tried = |report: &SlotStats| self.candidate.slots.contains(&report.slot);
        ShadowReport {
            since: self.since,
            candidates: self.candidate.set.report().into_iter().filter(tried).collect(),
            comparison: self.comparison.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            left_out: self.traffic.left_out.load(Ordering::Relaxed),
        }
    }
}

/// Live orders come first: this thread runs when nobody else wants the processor.
fn yield_to_everybody() {
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "the shadow's thread runs like any other");
    }
}
