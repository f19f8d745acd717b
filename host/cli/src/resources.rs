//! `Policy` resources, put in force by the publisher.
//!
//! A resource is a lasting wish: it is put in force again whenever something else is there, unless that was the operator's
//! own doing. When it is gone, what POLICY_DIR holds comes back.

use async_trait::async_trait;
use paygress_cluster::{Fate, Fetched, Keeper, Mode, NotObtained, Wish};
use paygress_core::policy::{FaultKind, Slot};
use paygress_oci::{Digest, NotSupplied, Supply};
use paygress_policy::{By, Filling, Fillings, LoadError, Publication, Publisher, Rejected, Source, Sources, SwapError, fillings};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts wishes in force.
struct Resources {
    publisher: Arc<Publisher>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// What was not taken, and why: not tried again unchanged.
    refused: Option<(Fillings, SwapError)>,
    /// The candidates that were begun last.
    shadowed: Fillings,
    /// Candidates that were not taken, and why.
    shadow_refused: Option<(Fillings, SwapError)>,
}

/// A wish, and the name of what it wishes for.
struct Named {
    wish: Wish,
    filling: Filling,
}

impl Named {
    fn of(wish: Wish) -> Self {
        let filling = Filling { digest: Digest::of(&wish.component).hex(), settings: wish.settings.clone() };
        Self { wish, filling }
    }

    fn source(&self) -> Source {
        Source { component: self.wish.component.clone(), settings: self.wish.settings.clone() }
    }
}

/// Whether it would be the same the next time: what could not be kept, or was too slow on a busy machine, may do better.
fn is_final(error: &SwapError) -> bool {
    let slow = |error: &LoadError| matches!(error.reason, Rejected::Faulty(FaultKind::Deadline(_)));
    matches!(error, SwapError::NotTaken(errors) if !errors.iter().any(slow))
}

fn of_mode(wishes: &[Named], mode: Mode) -> impl Iterator<Item = &Named> {
    wishes.iter().filter(move |named| named.wish.mode == mode)
}

impl Resources {
    /// Puts them in force with this publisher.
    fn new(publisher: Arc<Publisher>) -> Self {
        Self { publisher, memory: Mutex::default() }
    }

    /// The publication with which the operator put something else in its place after it had been in force.
    fn superseded(&self, Named { wish, filling }: &Named) -> Option<String> {
        let history = self.publisher.history();
        let was = history.iter().rposition(|publication| publication.set.get(&wish.slot) == Some(filling))?;
        let by_hand = |publication: &&Publication| {
            publication.slots.contains(&wish.slot) && matches!(publication.by, By::Operator | By::Promotion | By::Rollback(_))
        };
        let instead = history.iter().skip(was.saturating_add(1)).find(by_hand).filter(|_| wish.seen)?;
        let (number, by) = (instead.number, instead.by);
        Some(format!("publication {number} ({by}) put something else in force; change the resource to have it again"))
    }

    /// Slots that a resource had filled which is gone, with what POLICY_DIR holds for them.
    fn deserted(&self, wishes: &[Named]) -> Sources {
        let wished = |slot| of_mode(wishes, Mode::Enforce).any(|named| named.wish.slot == slot);
        let left = Slot::ALL.into_iter().filter(|slot| !wished(*slot) && self.publisher.is_a_resources(*slot));
        let restored = left.filter_map(|slot| match self.publisher.folder_source(slot) {
            Ok(source) => Some((slot, source)),
            Err(why) => {
                tracing::error!(%slot, why, "its Policy resource is gone, and POLICY_DIR holds nothing for it");
                None
            }
        });
        restored.collect()
    }

    fn keep(&self, wishes: Vec<Wish>, all: bool) -> Vec<Fate> {
        let wishes: Vec<Named> = wishes.into_iter().map(Named::of).collect();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = if all { self.enforce(&wishes, &mut memory) } else { None };
        let shadow = if all { self.shadow(&wishes, &mut memory) } else { None };
        wishes.iter().map(|named| self.fate(named, all, refused.as_ref(), shadow.as_ref())).collect()
    }

    fn enforce(&self, wishes: &[Named], memory: &mut Memory) -> Option<SwapError> {
        let in_force = self.publisher.in_force();
        let mut deserted = self.deserted(wishes);
        deserted.retain(|slot, source| in_force.get(slot) != Some(&Filling::of(source)));
        if !deserted.is_empty()
            && let Err(error) = self.publisher.publish(&deserted, By::Folder)
        {
            tracing::error!(%error, "a Policy resource is gone, and what POLICY_DIR holds for its slot is not taken");
        }
        let wanted = of_mode(wishes, Mode::Enforce).filter(|named| in_force.get(&named.wish.slot) != Some(&named.filling));
        let news: Vec<&Named> = wanted.filter(|named| self.superseded(named).is_none()).collect();
        if news.is_empty() {
            memory.refused = None;
            return None;
        }
        let named: Fillings = news.iter().map(|named| (named.wish.slot, named.filling.clone())).collect();
        if let Some((tried, error)) = &memory.refused
            && *tried == named
        {
            return Some(error.clone());
        }
        let news: Sources = news.iter().map(|named| (named.wish.slot, named.source())).collect();
        let error = self.publisher.publish(&news, By::Resource).err()?;
        tracing::warn!(%error, "the Policy resources are not taken; the policies in force go on");
        memory.refused = is_final(&error).then(|| (named, error.clone()));
        Some(error)
    }

    fn shadow(&self, wishes: &[Named], memory: &mut Memory) -> Option<SwapError> {
        let wanted: Vec<&Named> = of_mode(wishes, Mode::Shadow).collect();
        let named: Fillings = wanted.iter().map(|named| (named.wish.slot, named.filling.clone())).collect();
        if named == memory.shadowed {
            return None;
        }
        let host = self.publisher.host();
        let running = host.shadowing().map(|sources| fillings(&sources)).unwrap_or_default();
        if let Some((tried, error)) = &memory.shadow_refused
            && *tried == named
        {
            return Some(error.clone());
        }
        let error = if wanted.is_empty() {
            // Only what was begun here ends here.
            if running == memory.shadowed {
                host.stop_shadow();
            }
            None
        } else if running == named {
            None
        } else {
            host.start_shadow(wanted.iter().map(|named| (named.wish.slot, named.source())).collect()).err()
        };
        memory.shadow_refused = error.clone().filter(is_final).map(|error| (named.clone(), error));
        if error.is_none() {
            memory.shadowed = named;
        }
        error
    }

    fn fate(&self, named: &Named, all: bool, refused: Option<&SwapError>, shadow: Option<&SwapError>) -> Fate {
        let Named { wish, filling } = named;
        let (there, error) = match wish.mode {
            Mode::Enforce => (self.publisher.in_force().get(&wish.slot) == Some(filling), refused),
            Mode::Shadow => {
                let running = self.publisher.host().shadowing().unwrap_or_default();
                (running.get(&wish.slot).is_some_and(|source| Filling::of(source) == *filling), shadow)
            }
        };
        match (wish.mode, error) {
            (Mode::Enforce, _) if there => Fate::InForce,
            (Mode::Shadow, _) if there => Fate::Beside,
            (_, None) if !all => Fate::Waiting("another Policy of this namespace cannot be had; they are put in force together".to_owned()),
            (Mode::Shadow, None) => Fate::Waiting("the shadow was ended; change the resource to begin it again".to_owned()),
            (Mode::Enforce, None) => Fate::Superseded(self.superseded(named).unwrap_or_default()),
            (_, Some(error @ SwapError::NotTaken(errors))) => {
                let own = |error: &&LoadError| error.slot == wish.slot;
                match errors.iter().find(own) {
                    Some(error) => Fate::Refused(error.to_string()),
                    None => Fate::Waiting(format!("another Policy is not taken, and they are put in force together: {error}")),
                }
            }
            (_, Some(error)) => Fate::Waiting(error.to_string()),
        }
    }
}

/// Resources, and where their components come from.
pub struct ResourceKeeper {
    resources: Arc<Resources>,
    supply: Arc<Supply>,
    /// Components from registries, by the version of the resource that names them: a tag is not followed.
    pulled: tokio::sync::Mutex<HashMap<String, Vec<u8>>>,
}

impl ResourceKeeper {
    /// Obtains components there, and puts them in force with this publisher.
    #[must_use]
    pub fn new(publisher: Arc<Publisher>, supply: Arc<Supply>) -> Self {
        Self { resources: Arc::new(Resources::new(publisher)), supply, pulled: tokio::sync::Mutex::default() }
    }

    async fn component(&self, version: &str, fetched: Fetched) -> Result<Vec<u8>, NotSupplied> {
        let reference = match fetched {
            Fetched::Bytes(component, signature) => {
                self.supply.judge("the component", &component, signature.as_deref())?;
                return Ok(component);
            }
            Fetched::Oci(reference) => reference,
        };
        let mut pulled = self.pulled.lock().await;
        if let Some(component) = pulled.get(version) {
            return Ok(component.clone());
        }
        let component = self.supply.pull(&reference).await?.component;
        if pulled.len() >= PULLED {
            pulled.clear();
        }
        pulled.insert(version.to_owned(), component.clone());
        Ok(component)
    }
}

/// Components that are kept from one look to the next.
const PULLED: usize = 8;

#[async_trait]
impl Keeper for ResourceKeeper {
    async fn obtain(&self, version: &str, fetched: Fetched, digest: Option<&str>) -> Result<Vec<u8>, NotObtained> {
        let component = self.component(version, fetched).await.map_err(|why| match &why {
            NotSupplied::Unverified { .. } | NotSupplied::Registry(paygress_oci::Error::Tampered { .. }) => {
                NotObtained::Unverified(why.to_string())
            }
            NotSupplied::Reference(_) | NotSupplied::Registry(_) => NotObtained::Unavailable(why.to_string()),
        })?;
        let is = Digest::of(&component).hex();
        match digest.map(|digest| digest.trim_start_matches("sha256:")) {
            Some(digest) if digest != is => {
                Err(NotObtained::Unverified(format!("the component's digest is sha256:{is}, and not what the resource says")))
            }
            _ => Ok(component),
        }
    }

    async fn keep(&self, wishes: Vec<Wish>, all: bool) -> Vec<Fate> {
        let resources = Arc::clone(&self.resources);
        let waiting = vec![Fate::Waiting("the last look was broken off; the log says why".to_owned()); wishes.len()];
        // Compiling takes its time.
        tokio::task::spawn_blocking(move || resources.keep(wishes, all)).await.unwrap_or(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_policy::{Folder, Machine, read};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn wish(settings: &str, mode: Mode, seen: bool) -> Wish {
        let component = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins/pricing.wasm")).unwrap();
        Wish { slot: Slot::Pricing, mode, component, settings: settings.to_owned(), seen }
    }

    #[test]
    fn a_wish_lasts_until_the_operator_or_nobody_wishes_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
        let folder = Folder::new(plugins, BTreeMap::new()).yielding(true);
        let machine = Machine::start(None).unwrap();
        let publisher = Arc::new(Publisher::open(machine, &directory.path().join("policies"), folder).unwrap());
        let resources = Resources::new(Arc::clone(&publisher));
        let settings = || publisher.in_force()[&Slot::Pricing].settings.clone();
        let (dear, cheap) = (r#"{"sats_per_hour":120}"#, r#"{"sats_per_hour":30}"#);
        let one = |settings: &str, seen: bool| resources.keep(vec![wish(settings, Mode::Enforce, seen)], true).remove(0);

        assert!(matches!(resources.keep(vec![wish(dear, Mode::Enforce, false)], false).remove(0), Fate::Waiting(_)), "not all are known");
        assert_eq!((one(dear, false), settings().as_str()), (Fate::InForce, dear));
        assert_eq!(one(dear, true), Fate::InForce);
        assert_eq!(publisher.history().len(), 2, "nothing is published twice");

        // The operator goes back; only a resource that changes is put in force again.
        publisher.rollback(None).unwrap();
        assert!(matches!(one(dear, true), Fate::Superseded(why) if why.contains("publication 3")));
        assert_eq!(settings(), "{}");
        assert_eq!((one(dear, false), settings().as_str()), (Fate::InForce, dear));
        // Another process that finds it there is content.
        let later = Resources::new(Arc::clone(&publisher));
        assert_eq!(later.keep(vec![wish(dear, Mode::Enforce, true)], true), [Fate::InForce]);

        // Whatever happened in between, what the operator took away stays away.
        publisher.rollback(None).unwrap();
        publisher.publish(&Sources::from([(Slot::Pricing, Named::of(wish(cheap, Mode::Enforce, false)).source())]), By::Folder).unwrap();
        assert!(matches!(one(dear, true), Fate::Superseded(_)));
        assert_eq!((one(dear, false), settings().as_str()), (Fate::InForce, dear));

        // A broken one is refused as long as it is there, and tried once.
        let refused = one(r#"{"sats_per_hour":-1}"#, false);
        assert!(matches!(&refused, Fate::Refused(why) if why.contains("/sats_per_hour")), "{refused:?}");
        assert_eq!((one(r#"{"sats_per_hour":-1}"#, true), settings().as_str()), (refused, dear));

        // A shadow decides beside it, until its resource is gone.
        let both = vec![wish(dear, Mode::Enforce, true), wish(cheap, Mode::Shadow, false)];
        assert_eq!(resources.keep(both, true), [Fate::InForce, Fate::Beside]);
        assert!(publisher.host().shadow_report().is_some());
        assert_eq!(one(dear, true), Fate::InForce);
        assert!(publisher.host().shadow_report().is_none());

        // Nobody wishes for anything: what the folder holds is back, but not while somebody's wish is not known.
        assert!(resources.keep(Vec::new(), false).is_empty());
        assert_eq!(settings(), dear);
        assert!(resources.keep(Vec::new(), true).is_empty());
        assert_eq!(settings(), "{}");
        // What the operator has put there stays, however many resources are gone.
        publisher.publish(&Sources::from([(Slot::Pricing, Named::of(wish(cheap, Mode::Enforce, false)).source())]), By::Operator).unwrap();
        assert!(resources.keep(Vec::new(), true).is_empty());
        assert_eq!(settings(), cheap);
    }
}
