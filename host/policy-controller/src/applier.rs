//! Applies desired policies with the publisher, all or none, and tells the status of each.

use crate::desired::{ApplyStatus, Completeness, DesiredPolicy};
use crate::resource::Mode;
use paygress_core::Policy;
use paygress_core::backend::policy::{Configured, Slot, SlotStats};
use paygress_policy::{
    ComponentRef, ComponentRefs, Publisher, Source, Sources, Superseded, SwapError, component_refs,
};
use std::sync::{Arc, Mutex, PoisonError};

const TOGETHER: &str = "all Policies of this namespace with mode Enforce are applied together";

pub(crate) struct Applier {
    publisher: Arc<Publisher>,
    memory: Mutex<Memory>,
}

/// What was refused is not tried again unchanged: compiling is expensive.
#[derive(Default)]
struct Memory {
    refused: Option<(Attempt, SwapError)>,
    /// The candidates of the shadow that was started last.
    shadowed: ComponentRefs,
    shadow_refused: Option<(Attempt, SwapError)>,
}

#[derive(Clone, PartialEq, Eq)]
struct Attempt {
    components: ComponentRefs,
    /// What was active then.
    active: ComponentRefs,
}

impl Attempt {
    /// The error of this very attempt, if it was made and refused before.
    fn known_error(&self, refused: &Option<(Self, SwapError)>) -> Option<SwapError> {
        refused.as_ref().filter(|(attempt, _)| attempt == self).map(|(_, error)| error.clone())
    }
}

/// A desired policy, with what the publisher needs to know of its component, if it has one.
struct Candidate {
    policy: DesiredPolicy,
    component: Option<(Source, ComponentRef)>,
}

impl Candidate {
    fn new(mut policy: DesiredPolicy) -> Self {
        let component = policy.component.take().map(|component| {
            let source = Source { component, settings: policy.settings.clone() };
            let reference = ComponentRef::of(&source);
            (source, reference)
        });
        Self { policy, component }
    }

    fn reference(&self) -> Option<&ComponentRef> {
        self.component.as_ref().map(|(_, reference)| reference)
    }
}

fn of_mode(candidates: &[Candidate], mode: Mode) -> impl Iterator<Item = &Candidate> {
    candidates.iter().filter(move |candidate| candidate.policy.mode == mode)
}

fn sources<'a>(candidates: impl IntoIterator<Item = &'a Candidate>) -> Sources {
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let (source, _) = candidate.component.as_ref()?;
            Some((candidate.policy.slot, source.clone()))
        })
        .collect()
}

impl Applier {
    pub(crate) fn new(publisher: Arc<Publisher>) -> Self {
        Self { publisher, memory: Mutex::default() }
    }

    /// Applies the desired policies. Compiles components: not for an async thread.
    pub(crate) fn apply(
        &self,
        desired: Vec<DesiredPolicy>,
        completeness: Completeness,
    ) -> Vec<ApplyStatus> {
        let candidates: Vec<Candidate> = desired.into_iter().map(Candidate::new).collect();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |mode| {
            completeness == Completeness::Complete
                && of_mode(&candidates, mode).all(|candidate| candidate.component.is_some())
        };
        // A shadow that is not known does not delay what is to be enforced.
        let enforced =
            is_known(Mode::Enforce).then(|| self.enforce(&candidates, &mut memory)).flatten();
        let shadowed =
            is_known(Mode::Shadow).then(|| self.shadow(&candidates, &mut memory)).flatten();
        candidates
            .iter()
            .map(|candidate| match candidate.policy.mode {
                Mode::Enforce => self.enforced_status(candidate, enforced.as_ref()),
                Mode::Shadow => self.shadow_status(candidate, shadowed.as_ref()),
            })
            .collect()
    }

    /// The slots whose resource is gone, with what POLICY_DIR has for them.
    fn released(&self, candidates: &[Candidate]) -> Sources {
        let is_desired = |slot| {
            of_mode(candidates, Mode::Enforce).any(|candidate| candidate.policy.slot == slot)
        };
        let released = Slot::ALL
            .into_iter()
            .filter(|slot| !is_desired(*slot) && self.publisher.desired_version(*slot).is_some());
        let restored = released.filter_map(|slot| match self.publisher.policy_dir_source(slot) {
            Ok(source) => Some((slot, source)),
            Err(error) => {
                tracing::error!(%slot, %error, "its Policy resource is gone, and POLICY_DIR has no component for it");
                None
            }
        });
        restored.collect()
    }

    fn enforce(&self, candidates: &[Candidate], memory: &mut Memory) -> Option<SwapError> {
        let active = self.publisher.active();
        let is_due = |candidate: &&Candidate| {
            let DesiredPolicy { slot, version, .. } = &candidate.policy;
            let is_applied = active.get(slot) == candidate.reference()
                && self.publisher.desired_version(*slot).as_ref() == Some(version);
            !is_applied && self.publisher.superseded(*slot, version).is_none()
        };
        let due: Vec<&Candidate> = of_mode(candidates, Mode::Enforce).filter(is_due).collect();
        let versions = due
            .iter()
            .map(|candidate| (candidate.policy.slot, candidate.policy.version.clone()))
            .collect();
        // In one swap: the slots that are released are part of the desired set.
        let changes: Sources = self.released(candidates).into_iter().chain(sources(due)).collect();
        if changes.is_empty() {
            memory.refused = None;
            return None;
        }
        let attempt = Attempt { components: component_refs(&changes), active };
        if let Some(error) = attempt.known_error(&memory.refused) {
            return Some(error);
        }
        let error = self.publisher.publish_desired(&changes, versions).err()?;
        tracing::warn!(%error, "the Policy resources are not applied; the active policies stay");
        memory.refused = error.is_final().then(|| (attempt, error.clone()));
        Some(error)
    }

    fn shadow(&self, candidates: &[Candidate], memory: &mut Memory) -> Option<SwapError> {
        let wanted = sources(of_mode(candidates, Mode::Shadow));
        let components = component_refs(&wanted);
        if components == memory.shadowed {
            return None;
        }
        let host = self.publisher.host();
        let running =
            host.shadow_sources().map(|sources| component_refs(&sources)).unwrap_or_default();
        let attempt = Attempt { components, active: self.publisher.active() };
        if let Some(error) = attempt.known_error(&memory.shadow_refused) {
            return Some(error);
        }
        let error = if wanted.is_empty() {
            // A shadow that the operator started is left alone.
            if running == memory.shadowed {
                host.stop_shadow();
            }
            None
        } else if running == attempt.components {
            None
        } else {
            host.start_shadow(wanted).err()
        };
        if error.is_none() {
            memory.shadowed.clone_from(&attempt.components);
        }
        memory.shadow_refused =
            error.clone().filter(SwapError::is_final).map(|error| (attempt, error));
        error
    }

    fn enforced_status(&self, candidate: &Candidate, error: Option<&SwapError>) -> ApplyStatus {
        let DesiredPolicy { slot, version, .. } = &candidate.policy;
        let is_active = match candidate.reference() {
            Some(reference) => self.publisher.active().get(slot) == Some(reference),
            // Its component is no longer available, and active nevertheless.
            None => self.publisher.desired_version(*slot).as_ref() == Some(version),
        };
        if is_active {
            return ApplyStatus::Active(configured(&self.publisher.host().report(), *slot));
        }
        if let Some(Superseded { revision, trigger }) = self.publisher.superseded(*slot, version) {
            return ApplyStatus::Superseded(format!(
                "revision {revision} ({trigger}) activated another component; change the resource to apply it again"
            ));
        }
        let otherwise = format!("{TOGETHER}, and not all components are available");
        inactive_status(candidate, error).unwrap_or(ApplyStatus::Waiting(otherwise))
    }

    fn shadow_status(&self, candidate: &Candidate, error: Option<&SwapError>) -> ApplyStatus {
        let (host, slot) = (self.publisher.host(), candidate.policy.slot);
        let running = host.shadow_sources().unwrap_or_default();
        let running = running.get(&slot).map(ComponentRef::of);
        if running.is_some() && running.as_ref() == candidate.reference() {
            let report = host.shadow_report().map(|report| report.candidates).unwrap_or_default();
            return ApplyStatus::Shadowing(configured(&report, slot));
        }
        let otherwise = "the shadow was stopped, or not all of its components are available; change the resource to start it again";
        inactive_status(candidate, error).unwrap_or(ApplyStatus::Waiting(otherwise.to_owned()))
    }
}

/// When the component of a slot takes its settings.
fn configured(report: &[SlotStats], slot: Slot) -> Configured {
    let stats = report.iter().find(|stats| stats.slot == slot);
    stats.map(|stats| stats.configured).unwrap_or_default()
}

/// The status of a policy that is not active, as far as it has a reason of its own.
fn inactive_status(candidate: &Candidate, error: Option<&SwapError>) -> Option<ApplyStatus> {
    if candidate.component.is_none() {
        return Some(ApplyStatus::Waiting("its component is not available".to_owned()));
    }
    Some(match error? {
        SwapError::Rejected(errors) => {
            match errors.iter().find(|error| error.slot == candidate.policy.slot) {
                Some(error) => ApplyStatus::Refused(error.to_string()),
                None => {
                    let others =
                        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    ApplyStatus::Waiting(format!("{TOGETHER}, and one was rejected: {others}"))
                }
            }
        }
        error => ApplyStatus::Waiting(error.to_string()),
    })
}

#[cfg(test)]
mod tests;
