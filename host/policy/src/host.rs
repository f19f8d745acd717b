//! The set in force, and the pointer that publishes it.

use crate::engine::PolicyEngine;
use crate::set::{ComponentSet, LoadError, Sources};
use crate::shadow::{Shadow, ShadowReport};
use crate::slot::Rejected;
use arc_swap::{ArcSwap, ArcSwapOption};
use paygress_core::Policy;
use paygress_core::backend::policy::{FaultKind, PolicySet, SlotStats};
use paygress_core::model::order::Order;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The policies in force.
pub struct Host {
    machine: Arc<PolicyEngine>,
    current: ArcSwap<ComponentSet>,
    changed: watch::Sender<()>,
    // One swap at a time: two at once could each publish without the other's component. The shadow
    // begins and ends in turn with them: it must not decide beside a set that is no longer in
    // force.
    swapping: Mutex<()>,
    shadow: ArcSwapOption<Shadow>,
}

/// Why nothing was exchanged; the old ones go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// Components that were not taken.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    NotTaken(Vec<LoadError>),
    /// What is in force must be on disk first, and is not.
    #[error("the policies cannot be kept, so the old ones go on: {0}")]
    NotKept(String),
    /// Nothing would change.
    #[error("this is in force already")]
    InForce,
    /// There is nothing to go back to, or nothing to promote.
    #[error("{0}")]
    Nothing(String),
}

impl SwapError {
    /// Whether it would be the same the next time: what could not be kept, or was too slow on a
    /// busy machine, may do better.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let slow =
            |error: &LoadError| matches!(error.reason, Rejected::Faulty(FaultKind::Deadline(_)));
        matches!(self, Self::NotTaken(errors) if !errors.iter().any(slow))
    }
}

impl Host {
    /// Publishes four components.
    ///
    /// # Errors
    /// Every component that was not taken, with its reason.
    pub fn load(
        machine: Arc<PolicyEngine>,
        sources: &Sources,
    ) -> Result<Arc<Self>, Vec<LoadError>> {
        let set = ComponentSet::load(&machine, sources)?;
        Ok(Arc::new(Self {
            machine,
            current: ArcSwap::from_pointee(set),
            changed: watch::Sender::new(()),
            swapping: Mutex::new(()),
            shadow: ArcSwapOption::empty(),
        }))
    }

    /// Exchanges components, all of these or none. Orders under way end with the set that they
    /// began with. `last` is called when all have been found good; if it fails, nothing is
    /// exchanged.
    ///
    /// # Errors
    /// [`SwapError`]; then the old ones go on.
    pub fn swap(
        &self,
        sources: &Sources,
        last: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), SwapError> {
        let _one = self.turn();
        let set = self.current.load().with(&self.machine, sources).map_err(SwapError::NotTaken)?;
        last().map_err(SwapError::NotKept)?;
        self.current.store(Arc::new(set));
        self.changed.send_replace(());
        self.renew_shadow();
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.swapping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Candidates decide beside the set that is in force: beside the new one from now on, and what
    /// was counted beside the old one is over.
    fn renew_shadow(&self) {
        let Some(shadow) = self.shadow.load_full() else { return };
        match Shadow::start(&self.machine, &self.set(), shadow.sources().clone()) {
            Ok(renewed) => self.shadow.store(Some(Arc::new(renewed))),
            Err(errors) => {
                tracing::warn!(
                    ?errors,
                    "the shadow does not go with the new policies, and is ended"
                );
                self.shadow.store(None);
            }
        }
    }

    /// The set in force.
    #[must_use]
    pub fn set(&self) -> Arc<ComponentSet> {
        self.current.load_full()
    }

    /// Has candidates decide beside the set in force, from now on; instead of others that did.
    ///
    /// # Errors
    /// Every component that was not taken, with its reason.
    pub fn start_shadow(self: &Arc<Self>, sources: Sources) -> Result<(), SwapError> {
        let _one = self.turn();
        let shadow =
            Shadow::start(&self.machine, &self.set(), sources).map_err(SwapError::NotTaken)?;
        self.shadow.store(Some(Arc::new(shadow)));
        Ok(())
    }

    /// How the candidates do.
    #[must_use]
    pub fn shadow_report(&self) -> Option<ShadowReport> {
        self.shadow.load().as_ref().map(|shadow| shadow.report())
    }

    /// The candidates.
    #[must_use]
    pub fn shadowing(&self) -> Option<Sources> {
        self.shadow.load().as_ref().map(|shadow| shadow.sources().clone())
    }

    /// Ends what [`Host::start_shadow`] began; tells how the candidates did.
    pub fn stop_shadow(&self) -> Option<ShadowReport> {
        self.take_shadow().map(|shadow| shadow.report())
    }

    /// The shadow, which sees no orders any longer.
    pub(crate) fn take_shadow(&self) -> Option<Arc<Shadow>> {
        let _one = self.turn();
        self.shadow.swap(None)
    }

    /// It goes on, unless another one has begun.
    pub(crate) fn give_back(&self, shadow: Arc<Shadow>) {
        let _one = self.turn();
        self.shadow.compare_and_swap(&None::<Arc<Shadow>>, Some(shadow));
    }
}

impl Policy for Host {
    fn current(&self) -> Arc<dyn PolicySet> {
        if let Some(shadow) = &*self.shadow.load() {
            shadow.heard();
        }
        self.set()
    }

    fn report(&self) -> Vec<SlotStats> {
        self.current.load().report()
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
