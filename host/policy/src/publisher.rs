//! The single mechanism that changes the active policies, whatever triggers it: first on disk, then
//! active.

use crate::directory::{FileState, PolicyDir, SourceError};
use crate::engine::PolicyEngine;
use crate::history::{RevisionStore, StoreError};
use crate::host::{Host, SwapError};
use crate::revision::{
    ComponentRefs, Revision, Trigger, component_refs, desired_version, previous,
};
use crate::set::{LoadedComponents, Source, Sources};
use crate::startup::{self, StartError, Startup};
use paygress_core::backend::policy::Slot;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Changes the active policies, and records what was active.
///
/// ```no_run
/// use paygress_core::backend::policy::Slot;
/// use paygress_policy::{PolicyDir, PolicyEngine, Publisher, Source, Sources, Trigger};
/// use std::{collections::BTreeMap, path::Path};
///
/// let engine = PolicyEngine::start(Some(Path::new("state/compiled")))?;
/// let directory = PolicyDir::new("target/plugins".into(), BTreeMap::new());
/// let publisher = Publisher::open(engine, Path::new("state/policies"), directory)?;
/// let component = paygress_policy::read_component(Path::new("pricing.wasm"))?;
/// let sources = Sources::from([(Slot::Pricing, Source::plain(component))]);
/// let revision = publisher.publish(&sources, Trigger::Operator)?;
/// println!("revision {} is active", revision.number);
/// publisher.rollback(None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Publisher {
    host: Arc<Host>,
    directory: PolicyDir,
    state: Mutex<State>,
}

struct State {
    store: RevisionStore,
    revisions: Vec<Revision>,
    /// The active components. The same as in the last revision, but in memory: the disk may have
    /// changed since.
    active: ComponentRefs,
    /// What the directory held when it was last accepted.
    accepted: ComponentRefs,
    poll: Poll,
    /// The initial components, if their revision could not be recorded yet. Later revisions build
    /// on it.
    unrecorded: Option<Sources>,
}

/// What polling the directory has seen.
struct Poll {
    /// Files at the last poll: a file that is still being written is left alone.
    seen: Option<Vec<FileState>>,
    /// Files when they were last tried: rejected files are not tried again unchanged.
    tried: Option<Vec<FileState>>,
    /// The last problem that was logged.
    logged: Option<String>,
}

/// The operator's revision that took a slot from a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded {
    pub revision: u64,
    pub trigger: Trigger,
}

/// One change to be published.
struct Change<'a> {
    sources: &'a Sources,
    trigger: Trigger,
    /// What the directory holds, if the change comes from there.
    policy_dir: Option<ComponentRefs>,
    /// The resources that own the slots from now on, by their versions.
    desired: BTreeMap<Slot, String>,
}

impl<'a> Change<'a> {
    fn new(sources: &'a Sources, trigger: Trigger) -> Self {
        Self { sources, trigger, policy_dir: None, desired: BTreeMap::new() }
    }
}

impl Publisher {
    /// Activates the components that were last active; in slots whose file or settings have changed
    /// since, those of the directory. If these are rejected, the last active ones stay, and the
    /// reason is logged. Blocks: compiling takes seconds.
    ///
    /// # Errors
    /// Everything that prevents four good components.
    pub fn open(
        engine: Arc<PolicyEngine>,
        state_dir: &Path,
        directory: PolicyDir,
    ) -> Result<Self, StartError> {
        let (store, revisions) = RevisionStore::open(state_dir)?;
        let tried = directory.file_states();
        let startup = startup::select(&engine, &store, &revisions, &directory)?;
        let Startup { host, active, accepted, unrecorded } = startup;
        let poll = Poll { seen: None, tried: Some(tried), logged: None };
        let mut state = State { store, revisions, active, accepted, poll, unrecorded };
        if let Err(error) = state.record_start() {
            // Customers are served all the same. Nothing is replaced before it can be recorded.
            tracing::error!(%error, "the active policies could not be recorded");
        }
        Ok(Self { host, directory, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// All recorded revisions, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Revision> {
        self.lock().revisions.clone()
    }

    /// The settings of the active component.
    #[must_use]
    pub fn settings(&self, slot: Slot) -> String {
        self.lock().active.get(&slot).map(|active| active.settings.clone()).unwrap_or_default()
    }

    /// The active components.
    #[must_use]
    pub fn active(&self) -> ComponentRefs {
        self.lock().active.clone()
    }

    /// The version of the resource that owns this slot, if one does.
    #[must_use]
    pub fn desired_version(&self, slot: Slot) -> Option<String> {
        desired_version(&self.lock().revisions, slot).map(str::to_owned)
    }

    /// The revision by which the operator took a slot from this version of a resource.
    #[must_use]
    pub fn superseded(&self, slot: Slot, version: &str) -> Option<Superseded> {
        let state = self.lock();
        let owned = |revision: &Revision| {
            revision.desired.get(&slot).is_some_and(|desired| desired == version)
        };
        let since = state.revisions.iter().rposition(owned)?;
        let manual =
            |revision: &&Revision| revision.slots.contains(&slot) && revision.trigger.is_manual();
        let revision = state.revisions.iter().skip(since.saturating_add(1)).find(manual)?;
        Some(Superseded { revision: revision.number, trigger: revision.trigger })
    }

    /// What the directory and the configuration hold for a slot. Blocks.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn policy_dir_source(&self, slot: Slot) -> Result<Source, SourceError> {
        self.directory.source(slot)
    }

    /// Replaces components, all of these or none. Blocks as long as compiling takes.
    ///
    /// # Errors
    /// [`SwapError`]; then the old ones stay.
    pub fn publish(&self, sources: &Sources, trigger: Trigger) -> Result<Revision, SwapError> {
        let loaded = self.host.load_components(sources);
        self.lock().publish(&self.host, Change::new(sources, trigger), loaded)
    }

    /// Replaces components as `Policy` resources require. Each slot of `desired` is then owned by
    /// the version of the resource that it names; other slots among `sources` by none. Blocks.
    ///
    /// # Errors
    /// [`SwapError`]; then the old ones stay.
    pub fn publish_desired(
        &self,
        sources: &Sources,
        desired: BTreeMap<Slot, String>,
    ) -> Result<Revision, SwapError> {
        let loaded = self.host.load_components(sources);
        let change = Change { desired, ..Change::new(sources, Trigger::Resource) };
        self.lock().publish(&self.host, change, loaded)
    }

    /// Goes back to a revision; without a number, to the one before the active one. The files of
    /// the directory stay as they are, and are published when they change. Blocks.
    ///
    /// # Errors
    /// [`SwapError`]; then the active ones stay.
    pub fn rollback(&self, to: Option<u64>) -> Result<Revision, SwapError> {
        loop {
            let earlier = self.lock().earlier(to)?;
            let loaded = self.host.load_components(&earlier.sources);
            let mut state = self.lock();
            // Something else may have been published meanwhile.
            if state.earlier(to)? == earlier {
                let Earlier { number, sources } = earlier;
                let change = Change::new(&sources, Trigger::Rollback(number));
                return state.publish(&self.host, change, loaded);
            }
        }
    }

    /// Activates the candidates of the shadow, and stops it. Blocks.
    ///
    /// # Errors
    /// [`SwapError`]; then the active ones stay, and the shadow runs on.
    pub fn promote(&self) -> Result<Revision, SwapError> {
        let shadow = self.host.detach_shadow().ok_or(SwapError::NoShadow)?;
        self.publish(shadow.sources(), Trigger::Promotion)
            .inspect_err(|_| self.host.reattach_shadow(shadow))
    }

    /// Publishes what has changed in the directory since the last poll: all of it, or none. To be
    /// called every second or so. Files that are still being written are left for the next poll.
    /// Blocks.
    pub fn poll_policy_dir(&self) {
        let files = self.directory.file_states();
        if !self.lock().poll.is_due(&files) {
            return;
        }
        let found = match self.directory.sources() {
            Ok(found) => found,
            // It may be readable the next time, and look no different then.
            Err(error) => {
                return self.lock().poll.log_once(&error, "POLICY_DIR cannot be read");
            }
        };
        let changes = self.changes_of(&self.lock(), &found);
        let loaded = self.host.load_components(&changes);
        let mut state = self.lock();
        // Something else may have been published meanwhile: the next poll tries again.
        if self.changes_of(&state, &found) == changes {
            state.publish_policy_dir(&self.host, files, component_refs(&found), &changes, loaded);
        }
    }

    /// What the directory changes. A slot that a resource owns is left to it; the file counts again
    /// when the resource is gone.
    fn changes_of(&self, state: &State, found: &Sources) -> Sources {
        let held = component_refs(found);
        let is_free = |slot: &Slot| {
            !self.directory.defers_to_resources()
                || desired_version(&state.revisions, *slot).is_none()
        };
        let is_changed = |slot: &Slot| state.accepted.get(slot) != held.get(slot);
        found
            .iter()
            .filter(|(slot, _)| is_changed(slot) && is_free(slot))
            .map(|(slot, source)| (*slot, source.clone()))
            .collect()
    }
}

impl Poll {
    /// Whether these files are complete, and have not been tried.
    fn is_due(&mut self, files: &[FileState]) -> bool {
        if self.tried.as_deref() == Some(files) {
            return false;
        }
        let is_complete = self.seen.as_deref() == Some(files);
        if !is_complete {
            (self.seen, self.logged) = (Some(files.to_vec()), None);
        }
        is_complete
    }

    /// Logs a problem, unless the last poll logged it.
    fn log_once(&mut self, error: &dyn std::error::Error, problem: &str) {
        let error = error.to_string();
        if self.logged.as_ref() != Some(&error) {
            tracing::error!(error, "{problem}; the active policies stay");
            self.logged = Some(error);
        }
    }
}

/// What a revision to go back to would replace.
#[derive(PartialEq, Eq)]
struct Earlier {
    number: u64,
    sources: Sources,
}

impl State {
    /// The revision of this number; without one, that before the active one.
    fn earlier(&self, to: Option<u64>) -> Result<Earlier, SwapError> {
        let target = match to {
            Some(number) => self
                .revisions
                .iter()
                .find(|revision| revision.number == number)
                .ok_or(SwapError::UnknownRevision(number))?,
            None => previous(&self.revisions).ok_or(SwapError::NoEarlierRevision)?,
        };
        let changes =
            target.set.iter().filter(|(slot, component)| self.active.get(slot) != Some(component));
        let sources = changes
            .map(|(slot, component)| Ok((*slot, self.store.source(component)?)))
            .collect::<Result<Sources, _>>()
            .map_err(SwapError::NotRestorable)?;
        Ok(Earlier { number: target.number, sources })
    }

    /// Publishes what the directory changes, if it changes something.
    fn publish_policy_dir(
        &mut self,
        host: &Host,
        files: Vec<FileState>,
        held: ComponentRefs,
        changes: &Sources,
        loaded: Result<LoadedComponents, SwapError>,
    ) {
        self.poll.tried = Some(files);
        if changes.is_empty() {
            (self.accepted, self.poll.logged) = (held, None);
            return;
        }
        let change = Change { policy_dir: Some(held), ..Change::new(changes, Trigger::PolicyDir) };
        match self.publish(host, change, loaded) {
            Ok(_) => self.poll.logged = None,
            Err(error) => {
                if !error.is_final() {
                    self.poll.tried = None;
                }
                self.poll.log_once(&error, "the policies of POLICY_DIR are rejected");
            }
        }
    }

    /// Publishes a change. What it contains was loaded before this was locked.
    fn publish(
        &mut self,
        host: &Host,
        change: Change<'_>,
        loaded: Result<LoadedComponents, SwapError>,
    ) -> Result<Revision, SwapError> {
        self.record_start().map_err(SwapError::NotStored)?;
        let Change { sources, trigger, policy_dir, desired } = change;
        let new = component_refs(sources);
        let changes = |slot: &Slot| {
            let owner = desired_version(&self.revisions, *slot);
            self.active.get(slot) != new.get(slot)
                || (trigger == Trigger::Resource && owner != desired.get(slot).map(String::as_str))
        };
        let slots: Vec<Slot> = new.keys().copied().filter(changes).collect();
        let policy_dir = policy_dir.unwrap_or_else(|| self.accepted.clone());
        if slots.is_empty() && policy_dir == self.accepted {
            return Err(SwapError::AlreadyActive);
        }
        let set = self.active.clone().into_iter().chain(new).collect();
        let next = Revision::next(&self.revisions);
        let revision = Revision { trigger, slots, desired, set, policy_dir, ..next };
        let revision = host.swap_loaded(loaded?, || self.record(sources, revision))?;
        let slots: Vec<_> = revision.slots.iter().map(|slot| slot.as_str()).collect();
        tracing::info!(number = revision.number, %trigger, ?slots, "policies published");
        Ok(revision)
    }

    /// Records the policies that are active since the start, if that was not possible yet.
    fn record_start(&mut self) -> Result<(), StoreError> {
        let Some(sources) = self.unrecorded.take() else { return Ok(()) };
        let before = self.revisions.last().map(|last| last.set.clone()).unwrap_or_default();
        let slots = Slot::ALL.into_iter().filter(|slot| before.get(slot) != self.active.get(slot));
        let revision = Revision {
            slots: slots.collect(),
            set: self.active.clone(),
            policy_dir: self.accepted.clone(),
            ..Revision::next(&self.revisions)
        };
        match self.record(&sources, revision) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.unrecorded = Some(sources);
                Err(error)
            }
        }
    }

    /// Stores the components and the revision.
    fn record(&mut self, sources: &Sources, revision: Revision) -> Result<Revision, StoreError> {
        sources.values().try_for_each(|source| self.store.store_component(source))?;
        self.store.append(&revision)?;
        self.active.clone_from(&revision.set);
        self.accepted.clone_from(&revision.policy_dir);
        self.revisions.push(revision.clone());
        self.store.forget_old(&mut self.revisions);
        self.store.remove_unreferenced(&self.revisions);
        Ok(revision)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn built(path: &str) -> Vec<u8> {
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");
        std::fs::read(Path::new(target).join(path)).unwrap()
    }

    #[test]
    fn what_is_published_is_compiled_without_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let policies = directory.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        for slot in Slot::ALL {
            let component = built(&format!("plugins/{slot}.wasm"));
            std::fs::write(policies.join(format!("{slot}.wasm")), component).unwrap();
        }
        let engine = PolicyEngine::start(Some(&directory.path().join("compiled"))).unwrap();
        let publisher = Publisher::open(
            Arc::clone(&engine),
            &directory.path().join("state"),
            PolicyDir::new(policies, BTreeMap::new()),
        )
        .unwrap();
        let flat = built("plugins-examples/flat-price.wasm");
        let digest = hex::encode(Sha256::digest(&flat));
        let sources = Sources::from([(Slot::Pricing, Source::plain(flat))]);
        // As if it took long to compile.
        let claim = engine.cache().unwrap().claim(&digest);
        std::thread::scope(|scope| {
            let published = scope.spawn(|| publisher.publish(&sources, Trigger::Operator));
            while !engine.cache().unwrap().has_waited() {
                std::thread::yield_now();
            }
            assert!(publisher.state.try_lock().is_ok(), "other commands would wait");
            assert_eq!(publisher.history().len(), 1);
            drop(claim);
            assert_eq!(published.join().unwrap().unwrap().number, 2);
        });
    }
}
