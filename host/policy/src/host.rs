//! The active set, and the pointer through which it is replaced.

use crate::component::RejectReason;
use crate::engine::PolicyEngine;
use crate::history::StoreError;
use crate::set::{ComponentSet, LoadError, LoadedComponents, Sources};
use crate::shadow::{Candidates, Shadow, ShadowReport};
use arc_swap::{ArcSwap, ArcSwapOption};
use paygress_core::Policy;
use paygress_core::backend::policy::{FaultKind, PolicySet, SlotStats};
use paygress_core::model::order::Order;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The active policies.
///
/// ```no_run
/// use paygress_core::Policy;
/// use paygress_policy::{Host, PolicyDir, PolicyEngine};
/// use std::collections::BTreeMap;
///
/// let engine = PolicyEngine::start(None)?;
/// let directory = PolicyDir::new("target/plugins".into(), BTreeMap::new());
/// let host = Host::load(engine, &directory.sources()?).map_err(paygress_policy::SwapError::Rejected)?;
/// println!("pricing is {}", host.current().digests().pricing);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Host {
    engine: Arc<PolicyEngine>,
    active: ArcSwap<ComponentSet>,
    changed: watch::Sender<()>,
    // One swap at a time: two concurrent ones could each publish without the other's component. The
    // shadow starts and stops under the same lock: it must not run beside a set that is no longer
    // active.
    swap_lock: Mutex<()>,
    shadow: ArcSwapOption<Shadow>,
}

/// Why nothing was replaced. The active policies stay.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SwapError {
    /// Components were rejected.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rejected(Vec<LoadError>),
    /// The new policies must be on disk before they become active, and cannot be written.
    #[error("the policies cannot be stored, so the old ones stay active: {0}")]
    NotStored(#[source] StoreError),
    /// Nothing would change.
    #[error("these policies are already active")]
    AlreadyActive,
    #[error("there is no revision {0}; see `paygress policy history`")]
    UnknownRevision(u64),
    #[error("there is no revision before the active one; see `paygress policy history`")]
    NoEarlierRevision,
    /// A component of the revision to go back to cannot be read.
    #[error("the revision cannot be restored: {0}")]
    NotRestorable(#[source] StoreError),
    #[error("there is no shadow; start one with `paygress policy shadow start`")]
    NoShadow,
}

impl SwapError {
    /// Whether the same attempt would fail again. A full disk or a busy machine may be better off
    /// next time.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let slow = |error: &LoadError| match &error.reason {
            RejectReason::Faulty(FaultKind::Deadline(_)) => true,
            RejectReason::NotAComponent(error) => !error.is_final(),
            _ => false,
        };
        matches!(self, Self::Rejected(errors) if !errors.iter().any(slow))
    }
}

impl Host {
    /// Loads and activates four components. Blocks: compiling takes seconds.
    ///
    /// # Errors
    /// Every component that was rejected, with its reason.
    pub fn load(engine: Arc<PolicyEngine>, sources: &Sources) -> Result<Arc<Self>, Vec<LoadError>> {
        let set = ComponentSet::load(&engine, sources)?;
        Ok(Arc::new(Self {
            engine,
            active: ArcSwap::from_pointee(set),
            changed: watch::Sender::new(()),
            swap_lock: Mutex::new(()),
            shadow: ArcSwapOption::empty(),
        }))
    }

    /// Replaces components, all of these or none. Orders in progress finish with the set that they
    /// started with. `persist` is called when all components were accepted; if it fails, nothing is
    /// replaced. Blocks.
    ///
    /// # Errors
    /// [`SwapError`]; then the old ones stay.
    pub fn swap<T>(
        &self,
        sources: &Sources,
        persist: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, SwapError> {
        self.swap_loaded(self.load_components(sources)?, persist)
    }

    /// Compiles and configures what is to replace something: without a lock, since it may take
    /// long. Blocks.
    pub(crate) fn load_components(&self, sources: &Sources) -> Result<LoadedComponents, SwapError> {
        LoadedComponents::load(&self.engine, sources).map_err(SwapError::Rejected)
    }

    /// [`Host::swap`], with what is loaded already: it takes as long as a sample order.
    pub(crate) fn swap_loaded<T>(
        &self,
        loaded: LoadedComponents,
        persist: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, SwapError> {
        let _guard = self.lock();
        let set = self.active.load().with_loaded(loaded).map_err(SwapError::Rejected)?;
        let persisted = persist().map_err(SwapError::NotStored)?;
        self.active.store(Arc::new(set));
        self.changed.send_replace(());
        self.restart_shadow();
        Ok(persisted)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.swap_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the candidates beside the new set. The comparison with the old set ends.
    fn restart_shadow(&self) {
        let Some(shadow) = self.shadow.load_full() else { return };
        match shadow.restart(&self.set()) {
            Ok(restarted) => self.shadow.store(Some(Arc::new(restarted))),
            Err(errors) => {
                tracing::warn!(?errors, "the shadow does not fit the new policies and was stopped");
                self.shadow.store(None);
            }
        }
    }

    /// The active set.
    #[must_use]
    pub fn set(&self) -> Arc<ComponentSet> {
        self.active.load_full()
    }

    /// Runs candidates beside the active set, in place of any that already do. Blocks.
    ///
    /// # Errors
    /// Every component that was rejected, with its reason.
    pub fn start_shadow(self: &Arc<Self>, sources: Sources) -> Result<(), SwapError> {
        let candidates = Candidates { loaded: self.load_components(&sources)?, sources };
        let _guard = self.lock();
        let shadow = Shadow::start(&self.set(), candidates).map_err(SwapError::Rejected)?;
        self.shadow.store(Some(Arc::new(shadow)));
        Ok(())
    }

    /// How the candidates compare so far.
    #[must_use]
    pub fn shadow_report(&self) -> Option<ShadowReport> {
        self.shadow.load().as_ref().map(|shadow| shadow.report())
    }

    /// The candidates.
    #[must_use]
    pub fn shadow_sources(&self) -> Option<Sources> {
        self.shadow.load().as_ref().map(|shadow| shadow.sources().clone())
    }

    /// Stops the shadow and returns its last report.
    pub fn stop_shadow(&self) -> Option<ShadowReport> {
        self.detach_shadow().map(|shadow| shadow.report())
    }

    /// Detaches the shadow: it receives no more orders.
    pub(crate) fn detach_shadow(&self) -> Option<Arc<Shadow>> {
        let _guard = self.lock();
        self.shadow.swap(None)
    }

    /// Attaches a detached shadow again, unless another one has started.
    pub(crate) fn reattach_shadow(&self, shadow: Arc<Shadow>) {
        let _guard = self.lock();
        self.shadow.compare_and_swap(&None::<Arc<Shadow>>, Some(shadow));
    }
}

impl Policy for Host {
    fn current(&self) -> Arc<dyn PolicySet> {
        if let Some(shadow) = &*self.shadow.load() {
            shadow.note_traffic();
        }
        self.set()
    }

    fn report(&self) -> Vec<SlotStats> {
        self.active.load().report()
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn observe(&self, order: &Order) {
        if let Some(shadow) = &*self.shadow.load() {
            shadow.offer(order);
        }
    }
}
