//! Who exchanges the policies: one mechanism, whoever asks for it. On disk first, then in force.

use crate::directory::{Look, PolicyDir};
use crate::engine::PolicyEngine;
use crate::host::{Host, SwapError};
use crate::set::{ComponentSet, LoadError, Source, Sources};
use crate::store::{
    ComponentRef, ComponentRefs, Revision, Store, StoreError, Trigger, before, fillings,
};
use paygress_core::backend::policy::Slot;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Exchanges policies, and remembers what was in force.
pub struct Publisher {
    host: Arc<Host>,
    folder: PolicyDir,
    inner: Mutex<Inner>,
}

struct Inner {
    store: Store,
    publications: Vec<Revision>,
    /// What is in force. What the last publication says, in memory: the disk may have changed
    /// since.
    set: ComponentRefs,
    /// What the folder held when it was last accepted.
    accepted: ComponentRefs,
    /// How the folder looked at the last glance: what is being written is left alone.
    seen: Option<Vec<Look>>,
    /// How it looked when it was last tried: what was refused is not tried again unchanged.
    tried: Option<Vec<Look>>,
    /// What could not be read, or not be kept, was told.
    told: Option<String>,
    /// What is in force since the start and could not be noted: what comes after it would not stand
    /// on it.
    unnoted: Option<Sources>,
}

/// Why there are no policies, all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct StartError(pub Vec<String>);

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<Vec<LoadError>> for StartError {
    fn from(errors: Vec<LoadError>) -> Self {
        Self(errors.iter().map(ToString::to_string).collect())
    }
}

impl Publisher {
    /// Puts in force what was when this directory was last served from, and in the slots whose file
    /// or settings have changed since what the folder holds. If that is no good, what was in force
    /// last goes on, and the reason is logged.
    ///
    /// # Errors
    /// All that keeps four good components from being found.
    pub fn open(
        machine: Arc<PolicyEngine>,
        directory: &Path,
        folder: PolicyDir,
    ) -> Result<Self, StartError> {
        let (store, publications) = Store::open(directory)?;
        let last = publications.last().cloned();
        let tried = folder.look();
        let (mut wanted, mut accepted) = (Sources::new(), ComponentRefs::new());
        let mut problems = Vec::new();
        for slot in Slot::ALL {
            let was = last
                .as_ref()
                .and_then(|last| Some((last.set.get(&slot)?, last.folder.get(&slot)?)));
            let source = match (folder.source(slot), was) {
                // What is in the folder comes back when the resource is gone.
                (Ok(source), Some((set, _)))
                    if folder.yields() && wish(&publications, slot).is_some() =>
                {
                    accepted.insert(slot, ComponentRef::of(&source));
                    store.source(set)
                }
                (Ok(source), Some((set, folder))) if ComponentRef::of(&source) == *folder => {
                    accepted.insert(slot, folder.clone());
                    if set == folder { Ok(source) } else { store.source(set) }
                }
                (Ok(source), _) => {
                    accepted.insert(slot, ComponentRef::of(&source));
                    Ok(source)
                }
                (Err(why), Some((set, folder))) => {
                    tracing::error!(%slot, why, "the policy that was in force last goes on");
                    accepted.insert(slot, folder.clone());
                    store.source(set)
                }
                (Err(why), None) => Err(why),
            };
            match source {
                Ok(source) => drop(wanted.insert(slot, source)),
                Err(why) => problems.push(why),
            }
        }
        if !problems.is_empty() {
            return Err(StartError(problems));
        }
        let (host, set, accepted, news) = match (Host::load(Arc::clone(&machine), &wanted), last) {
            (Ok(host), last) => {
                let set = fillings(&wanted);
                let news = last.is_none_or(|last| last.set != set || last.folder != accepted);
                // A component that the disk has lost, and the folder still has.
                if !news && let Err(why) = wanted.values().try_for_each(|source| store.keep(source))
                {
                    tracing::error!(why, "a policy that is in force could not be kept");
                }
                (host, set, accepted, news)
            }
            (Err(errors), Some(last)) if last.set != fillings(&wanted) => {
                for error in &errors {
                    tracing::error!(%error, "what POLICY_DIR holds now is not taken; the policies that were in force last go on");
                }
                let old: Result<Sources, String> = last
                    .set
                    .iter()
                    .map(|(slot, filling)| Ok((*slot, store.source(filling)?)))
                    .collect();
                let old = old.map_err(|why| {
                    StartError(errors.iter().map(ToString::to_string).chain([why]).collect())
                })?;
                (Host::load(machine, &old)?, last.set, last.folder, false)
            }
            (Err(errors), _) => return Err(errors.into()),
        };
        let unnoted = news.then_some(wanted);
        let mut inner = Inner {
            store,
            publications,
            set,
            accepted,
            seen: None,
            tried: Some(tried),
            told: None,
            unnoted,
        };
        if let Err(why) = inner.note_start() {
            // Customers are served all the same; nothing is exchanged before it can be noted.
            tracing::error!(why, "the policies in force could not be noted");
        }
        Ok(Self { host, folder, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policies.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// What has been in force, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Revision> {
        self.lock().publications.clone()
    }

    /// The settings of the component in force.
    #[must_use]
    pub fn settings(&self, slot: Slot) -> String {
        self.lock().set.get(&slot).map(|filling| filling.settings.clone()).unwrap_or_default()
    }

    /// What is in force.
    #[must_use]
    pub fn in_force(&self) -> ComponentRefs {
        self.lock().set.clone()
    }

    /// The version of the resource that has this slot, if one has.
    #[must_use]
    pub fn wish(&self, slot: Slot) -> Option<String> {
        wish(&self.lock().publications, slot).map(str::to_owned)
    }

    /// The publication by which the operator took a slot from this version of a resource.
    #[must_use]
    pub fn superseded(&self, slot: Slot, version: &str) -> Option<(u64, Trigger)> {
        let inner = self.lock();
        let had = |publication: &Revision| {
            publication.wishes.get(&slot).is_some_and(|wish| wish == version)
        };
        let since = inner.publications.iter().rposition(had)?;
        let by_hand = |publication: &&Revision| {
            publication.slots.contains(&slot)
                && matches!(
                    publication.by,
                    Trigger::Operator | Trigger::Promotion | Trigger::Rollback(_)
                )
        };
        let taken = inner.publications.iter().skip(since.saturating_add(1)).find(by_hand)?;
        Some((taken.number, taken.by))
    }

    /// What the folder and the config file hold for a slot.
    ///
    /// # Errors
    /// In words.
    pub fn folder_source(&self, slot: Slot) -> Result<Source, String> {
        self.folder.source(slot)
    }

    /// Exchanges components, all of these or none. Takes as long as compiling takes; not for an
    /// executor's thread.
    ///
    /// # Errors
    /// [`SwapError`]; then the old ones go on.
    pub fn publish(&self, sources: &Sources, by: Trigger) -> Result<Revision, SwapError> {
        self.lock().publish(&self.host, sources, by, None, BTreeMap::new())
    }

    /// Exchanges components as resources wish; gives each slot of `wishes` to the version of the
    /// resource that it names, and what else is exchanged, or the same as before, to none.
    ///
    /// # Errors
    /// [`SwapError`]; then the old ones go on.
    pub fn grant(
        &self,
        sources: &Sources,
        wishes: BTreeMap<Slot, String>,
    ) -> Result<Revision, SwapError> {
        self.lock().publish(&self.host, sources, Trigger::Resource, None, wishes)
    }

    /// Goes back to that publication; without a number, to what was in force before. What the
    /// folder holds stays there, and is news only when it changes.
    ///
    /// # Errors
    /// [`SwapError`]; then what is in force stays.
    pub fn rollback(&self, to: Option<u64>) -> Result<Revision, SwapError> {
        let mut inner = self.lock();
        let target = match to {
            Some(number) => {
                inner.publications.iter().find(|publication| publication.number == number)
            }
            None => before(&inner.publications),
        };
        let nothing = || match to {
            Some(number) => {
                format!("there is no publication {number}; see `paygress policy history`")
            }
            None => "there is nothing before what is in force".to_owned(),
        };
        let target = target.ok_or_else(|| SwapError::Nothing(nothing()))?;
        let (number, changes) = (
            target.number,
            target.set.iter().filter(|(slot, filling)| inner.set.get(slot) != Some(filling)),
        );
        let sources: Result<Sources, String> =
            changes.map(|(slot, filling)| Ok((*slot, inner.store.source(filling)?))).collect();
        let sources = sources.map_err(SwapError::Nothing)?;
        inner.publish(&self.host, &sources, Trigger::Rollback(number), None, BTreeMap::new())
    }

    /// Puts the candidates of the shadow in force, and ends it.
    ///
    /// # Errors
    /// [`SwapError`]; then what is in force stays.
    pub fn promote(&self) -> Result<Revision, SwapError> {
        let none = || {
            SwapError::Nothing(
                "there is no shadow; begin one with `paygress policy shadow start`".to_owned(),
            )
        };
        let shadow = self.host.take_shadow().ok_or_else(none)?;
        self.publish(shadow.sources(), Trigger::Promotion)
            .inspect_err(|_| self.host.give_back(shadow))
    }

    /// Looks at the folder, and publishes what has changed there: all of it, or none. To be called
    /// every second or so, from a thread that may be held. Files that are still being written are
    /// left for the next look.
    pub fn look_at_folder(&self) {
        let mut inner = self.lock();
        let look = self.folder.look();
        if inner.tried.as_ref() == Some(&look) {
            return;
        }
        if inner.seen.as_ref() != Some(&look) {
            (inner.seen, inner.told) = (Some(look), None);
            return;
        }
        let found = match self.folder.sources() {
            Ok(found) => found,
            // Perhaps it can be read the next time, and looks no different then.
            Err(why) => {
                return inner
                    .tell_once(why, "POLICY_DIR cannot be read; the policies in force go on");
            }
        };
        inner.tried = Some(look);
        let held = fillings(&found);
        // A resource's slot is the resource's; what is in the folder comes back when that is gone.
        let free =
            |slot: &Slot| !self.folder.yields() || wish(&inner.publications, *slot).is_none();
        let changed = |slot: &Slot| inner.accepted.get(slot) != held.get(slot);
        let news: Sources =
            found.into_iter().filter(|(slot, _)| changed(slot) && free(slot)).collect();
        if news.is_empty() {
            (inner.accepted, inner.told) = (held, None);
            return;
        }
        let Err(error) =
            inner.publish(&self.host, &news, Trigger::PolicyDir, Some(held), BTreeMap::new())
        else {
            inner.told = None;
            return;
        };
        if !error.is_final() {
            inner.tried = None;
        }
        inner.tell_once(
            error.to_string(),
            "what POLICY_DIR holds now is not taken; the policies in force go on",
        );
    }
}

/// The version of the resource that has this slot: the last that exchanged it was a resource.
fn wish(publications: &[Revision], slot: Slot) -> Option<&str> {
    publications
        .iter()
        .rfind(|publication| publication.slots.contains(&slot))?
        .wishes
        .get(&slot)
        .map(String::as_str)
}

impl Inner {
    /// Says what is wrong, unless it was said the last time.
    fn tell_once(&mut self, why: String, what: &str) {
        if self.told.as_ref() != Some(&why) {
            tracing::error!(why, "{what}");
            self.told = Some(why);
        }
    }

    fn publish(
        &mut self,
        host: &Host,
        sources: &Sources,
        by: Trigger,
        accepted: Option<ComponentRefs>,
        wishes: BTreeMap<Slot, String>,
    ) -> Result<Revision, SwapError> {
        self.note_start().map_err(SwapError::NotKept)?;
        let named = fillings(sources);
        let is_news = |slot: &Slot| {
            let changed = self.set.get(slot) != named.get(slot);
            changed
                || (by == Trigger::Resource
                    && wish(&self.publications, *slot) != wishes.get(slot).map(String::as_str))
        };
        let slots: Vec<Slot> = named.keys().copied().filter(is_news).collect();
        let accepted = accepted.unwrap_or_else(|| self.accepted.clone());
        if slots.is_empty() && accepted == self.accepted {
            return Err(SwapError::InForce);
        }
        let set = self.set.clone().into_iter().chain(named).collect();
        host.swap(sources, || {
            self.note(
                sources,
                Revision {
                    by,
                    slots,
                    wishes,
                    set,
                    folder: accepted,
                    ..Revision::next(&self.publications)
                },
            )
        })?;
        let publication = self
            .publications
            .last()
            .cloned()
            .ok_or_else(|| SwapError::Nothing("nothing was published".to_owned()))?;
        tracing::info!(number = publication.number, %by, slots = ?publication.slots.iter().map(|slot| slot.as_str()).collect::<Vec<_>>(), "policies published");
        Ok(publication)
    }

    /// Notes what is in force since the start, if that could not be done yet.
    fn note_start(&mut self) -> Result<(), String> {
        let Some(sources) = self.unnoted.take() else { return Ok(()) };
        let was = self.publications.last().map(|last| last.set.clone()).unwrap_or_default();
        let slots =
            Slot::ALL.into_iter().filter(|slot| was.get(slot) != self.set.get(slot)).collect();
        let (set, folder) = (self.set.clone(), self.accepted.clone());
        let noted = self.note(
            &sources,
            Revision {
                by: Trigger::Start,
                slots,
                set,
                folder,
                ..Revision::next(&self.publications)
            },
        );
        noted.inspect_err(|_| self.unnoted = Some(sources))
    }

    /// Keeps the components, notes the publication, and remembers it.
    fn note(&mut self, sources: &Sources, publication: Revision) -> Result<(), String> {
        sources.values().try_for_each(|source: &Source| self.store.keep(source))?;
        self.store.note(&publication)?;
        self.set.clone_from(&publication.set);
        self.accepted.clone_from(&publication.folder);
        self.publications.push(publication);
        self.store.forget(&mut self.publications);
        self.store.clean(&self.publications);
        Ok(())
    }
}

/// The set that this directory's service has in force, for who only looks.
///
/// # Errors
/// In words: no service has served from it yet, or a component is lost or no longer good.
pub fn in_force(machine: &Arc<PolicyEngine>, directory: &Path) -> Result<ComponentSet, String> {
    let history = crate::store::history(directory).map_err(|error| error.to_string())?;
    let last = history
        .last()
        .ok_or_else(|| format!("no service has served from {} yet", directory.display()))?;
    let source = |(slot, filling): (&Slot, &ComponentRef)| {
        Ok((*slot, crate::store::source(directory, filling)?))
    };
    let sources: Sources = last.set.iter().map(source).collect::<Result<_, String>>()?;
    ComponentSet::load(machine, &sources).map_err(|errors| StartError::from(errors).to_string())
}
