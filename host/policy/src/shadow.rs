//! Candidates that run beside the active set, on live orders. Nothing that they decide is used.
//!
//! A live order costs a copy of what was decided, and never waits. A thread of its own, with the
//! lowest priority, calls the candidates in the pauses between orders, since even on another
//! processor it would slow them. When it cannot keep up, orders are skipped, and counted.

use crate::comparison::Comparison;
use crate::recorded::Recorded;
use crate::replay::Candidate;
use crate::set::{ComponentSet, LoadError, LoadedComponents, Sources};
use paygress_core::backend::policy::SlotStats;
use paygress_core::model::order::Order;
use paygress_core::model::units::UnixTime;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Orders that wait for the candidates: a burst. Each has a few KB, or as much as the largest
/// template.
const QUEUE: usize = 256;

/// With so many orders waiting, the thread no longer waits for a pause.
const QUEUE_PRESSURE: usize = QUEUE / 2;
/// Time without live orders that counts as a pause.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the thread checks for a pause.
const PAUSE_CHECK: Duration = Duration::from_millis(1);

/// How candidates compare.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowReport {
    pub since: UnixTime,
    /// Statistics of the candidates' slots.
    pub candidates: Vec<SlotStats>,
    /// Their decisions compared with the active ones.
    pub comparison: Comparison,
    /// Orders that were skipped, since the candidates could not keep up.
    #[serde(rename = "left_out")]
    pub skipped: u64,
}

/// Candidates for some of the slots.
pub(crate) struct Candidates {
    pub(crate) sources: Sources,
    /// The same, loaded.
    pub(crate) loaded: LoadedComponents,
}

pub(crate) struct Shadow {
    candidates: Candidates,
    since: UnixTime,
    candidate: Arc<Candidate>,
    comparison: Arc<Mutex<Comparison>>,
    traffic: Arc<Traffic>,
    sender: SyncSender<Recorded>,
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.traffic.stopped.store(true, Ordering::Relaxed);
    }
}

/// When the last live order was seen, and how many wait for the candidates.
struct Traffic {
    stopped: AtomicBool,
    begun: Instant,
    last_order_us: AtomicU64,
    waiting: AtomicUsize,
    skipped: AtomicU64,
}

impl Traffic {
    fn new() -> Self {
        Self {
            stopped: AtomicBool::new(false),
            begun: Instant::now(),
            last_order_us: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wait_for_pause(&self) {
        let quiet = || {
            Duration::from_micros(
                self.now_us().saturating_sub(self.last_order_us.load(Ordering::Relaxed)),
            ) >= PAUSE
        };
        while !quiet()
            && !self.stopped.load(Ordering::Relaxed)
            && self.waiting.load(Ordering::Relaxed) < QUEUE_PRESSURE
        {
            std::thread::sleep(PAUSE_CHECK);
        }
    }
}

impl Shadow {
    /// Tests the candidates and starts their thread.
    pub(crate) fn start(
        set: &ComponentSet,
        candidates: Candidates,
    ) -> Result<Self, Vec<LoadError>> {
        let slots = candidates.sources.keys().copied().collect();
        let set = set.with_loaded(candidates.loaded.with_new_stats())?;
        let candidate = Arc::new(Candidate { set, slots });
        let comparison = Arc::new(Mutex::new(Comparison::default()));
        let traffic = Arc::new(Traffic::new());
        let (sender, receiver) = sync_channel::<Recorded>(QUEUE);
        let work = {
            let (candidate, comparison, traffic) =
                (Arc::clone(&candidate), Arc::clone(&comparison), Arc::clone(&traffic));
            move || {
                lower_priority();
                while let Ok(recorded) = receiver.recv() {
                    traffic.wait_for_pause();
                    // Stops with the shadow, even if orders still wait.
                    if traffic.stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    traffic.waiting.fetch_sub(1, Ordering::Relaxed);
                    comparison
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add_recorded(&recorded, &candidate);
                }
            }
        };
        let thread = std::thread::Builder::new().name("policy-shadow".to_owned()).spawn(work);
        if let Err(error) = thread {
            tracing::error!(%error, "the shadow has no thread; it skips all orders");
        }
        Ok(Self { candidates, since: UnixTime::now(), candidate, comparison, traffic, sender })
    }

    /// A live order starts or continues.
    pub(crate) fn note_traffic(&self) {
        self.traffic.last_order_us.store(self.traffic.now_us(), Ordering::Relaxed);
    }

    /// Queues an order that was decided. Never waits.
    pub(crate) fn offer(&self, order: &Order) {
        self.note_traffic();
        let Some(recorded) = Recorded::of(order) else { return };
        self.traffic.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(recorded)
        {
            self.traffic.waiting.fetch_sub(1, Ordering::Relaxed);
            self.traffic.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.candidates.sources
    }

    /// The same candidates beside another set.
    pub(crate) fn restart(&self, set: &ComponentSet) -> Result<Self, Vec<LoadError>> {
        let Candidates { sources, loaded } = &self.candidates;
        Self::start(set, Candidates { sources: sources.clone(), loaded: loaded.with_new_stats() })
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let is_candidate = |stats: &SlotStats| self.candidate.slots.contains(&stats.slot);
        ShadowReport {
            since: self.since,
            candidates: self.candidate.set.report().into_iter().filter(is_candidate).collect(),
            comparison: self.comparison.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            skipped: self.traffic.skipped.load(Ordering::Relaxed),
        }
    }
}

/// Live orders come first: this thread runs when no other wants the processor.
fn lower_priority() {
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "the shadow's thread has normal priority");
    }
}
