//! Which components a process starts with.

use crate::directory::{PolicyDir, SourceError};
use crate::engine::PolicyEngine;
use crate::history::{RevisionStore, StoreError, history, sources};
use crate::host::Host;
use crate::revision::{ComponentRef, ComponentRefs, Revision, component_refs, desired_version};
use crate::set::{ComponentSet, LoadError, Source, Sources};
use paygress_core::backend::policy::Slot;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there are no policies to start with, all reasons.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct StartError(pub Vec<StartProblem>);

/// One reason.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartProblem {
    /// The state directory, or a component in it, cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A component in the policy directory cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A component was rejected.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No service has served from this directory yet.
    #[error(
        "no service has used {} yet; set POLICY_STATE_DIR, or run this in the service's working directory",
        .0.display()
    )]
    Unused(PathBuf),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self(vec![error.into()])
    }
}

impl From<Vec<LoadError>> for StartError {
    fn from(errors: Vec<LoadError>) -> Self {
        Self(errors.into_iter().map(StartProblem::from).collect())
    }
}

/// What a publisher starts with.
pub(crate) struct Startup {
    pub(crate) host: Arc<Host>,
    pub(crate) active: ComponentRefs,
    /// What the directory held when it was last accepted.
    pub(crate) accepted: ComponentRefs,
    /// The components, if their activation is a new revision.
    pub(crate) unrecorded: Option<Sources>,
}

/// The components that the files, the settings and the last revision call for.
struct Wanted {
    sources: Sources,
    accepted: ComponentRefs,
}

/// Loads the wanted components; if they are rejected, those of the last revision.
pub(crate) fn select(
    engine: &Arc<PolicyEngine>,
    store: &RevisionStore,
    revisions: &[Revision],
    directory: &PolicyDir,
) -> Result<Startup, StartError> {
    let Wanted { sources, accepted } = wanted(store, revisions, directory)?;
    let active = component_refs(&sources);
    match (Host::load(Arc::clone(engine), &sources), revisions.last()) {
        (Ok(host), last) => {
            let is_new = last.is_none_or(|last| last.set != active || last.policy_dir != accepted);
            // A component that the state directory has lost, and the policy directory still has.
            if !is_new
                && let Err(error) =
                    sources.values().try_for_each(|source| store.store_component(source))
            {
                tracing::error!(%error, "an active policy could not be stored");
            }
            Ok(Startup { host, active, accepted, unrecorded: is_new.then_some(sources) })
        }
        (Err(errors), Some(last)) if last.set != active => {
            for error in &errors {
                tracing::error!(%error, "the policies of POLICY_DIR are rejected; those that were last active stay");
            }
            let old = last
                .set
                .iter()
                .map(|(slot, component)| Ok((*slot, store.source(component)?)))
                .collect::<Result<Sources, StoreError>>()
                .map_err(|error| {
                    let mut all = StartError::from(errors);
                    all.0.push(error.into());
                    all
                })?;
            Ok(Startup {
                host: Host::load(Arc::clone(engine), &old)?,
                active: last.set.clone(),
                accepted: last.policy_dir.clone(),
                unrecorded: None,
            })
        }
        (Err(errors), _) => Err(errors.into()),
    }
}

fn wanted(
    store: &RevisionStore,
    revisions: &[Revision],
    directory: &PolicyDir,
) -> Result<Wanted, StartError> {
    let mut wanted = Wanted { sources: Sources::new(), accepted: ComponentRefs::new() };
    let mut problems = Vec::new();
    for slot in Slot::ALL {
        let last = revisions.last().and_then(|last| {
            Some(LastInSlot { active: last.set.get(&slot)?, file: last.policy_dir.get(&slot)? })
        });
        let owned = directory.defers_to_resources() && desired_version(revisions, slot).is_some();
        let file = directory.source(slot);
        let accepted = match &file {
            Ok(source) => Some(ComponentRef::of(source)),
            Err(_) => last.map(|last| last.file.clone()),
        };
        wanted.accepted.extend(accepted.map(|accepted| (slot, accepted)));
        let active = |last: LastInSlot<'_>| Ok(store.source(last.active)?);
        let source: Result<Source, StartProblem> = match (file, last) {
            // A resource owns the slot. The file counts again when the resource is gone.
            (Ok(_), Some(last)) if owned => active(last),
            // The file is as it was. Something else may be active by an operator's command.
            (Ok(source), Some(last)) if ComponentRef::of(&source) == *last.file => {
                if last.active == last.file { Ok(source) } else { active(last) }
            }
            (Ok(source), _) => Ok(source),
            (Err(error), Some(last)) => {
                tracing::error!(%slot, %error, "the policy that was last active stays");
                active(last)
            }
            (Err(error), None) => Err(error.into()),
        };
        match source {
            Ok(source) => drop(wanted.sources.insert(slot, source)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(wanted) } else { Err(StartError(problems)) }
}

/// A slot in the last revision.
#[derive(Clone, Copy)]
struct LastInSlot<'a> {
    active: &'a ComponentRef,
    file: &'a ComponentRef,
}

/// Loads the active set of this directory's service, without locking the directory. Blocks.
///
/// # Errors
/// No service has used the directory yet, or a component is lost or no longer accepted.
pub fn load_active(
    engine: &Arc<PolicyEngine>,
    state_dir: &Path,
) -> Result<ComponentSet, StartError> {
    let revisions = history(state_dir)?;
    let Some(last) = revisions.last() else {
        return Err(StartError(vec![StartProblem::Unused(state_dir.to_owned())]));
    };
    Ok(ComponentSet::load(engine, &sources(state_dir, &last.set)?)?)
}
