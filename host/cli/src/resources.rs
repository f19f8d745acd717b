//! `Policy` resources, put in force by the publisher.
//!
//! A resource is a lasting wish: it is put in force again whenever something else is there, unless
//! that was the operator's own doing. When it is gone, what POLICY_DIR holds comes back.

use async_trait::async_trait;
use paygress_cluster::{ApplyStatus, DesiredPolicy, FetchError, Fetched, Mode, Reconcile};
use paygress_core::backend::policy::Slot;
use paygress_oci::{ComponentFetcher, Digest, FetchError};
use paygress_policy::{
    ComponentRef, ComponentRefs, Publisher, Source, Sources, SwapError, fillings,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts wishes in force.
struct Resources {
    publisher: Arc<Publisher>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// What was not taken, beside what was in force, and why: not tried again unchanged.
    refused: Option<(Tried, SwapError)>,
    /// The candidates that were begun last.
    shadowed: ComponentRefs,
    /// Candidates that were not taken, beside what was in force, and why.
    shadow_refused: Option<(Tried, SwapError)>,
}

#[derive(Clone, PartialEq, Eq)]
struct Tried {
    news: ComponentRefs,
    beside: ComponentRefs,
}

/// Why what was tried was refused before, if it was.
fn again(memory: &Option<(Tried, SwapError)>, tried: &Tried) -> Option<SwapError> {
    memory.as_ref().filter(|(before, _)| before == tried).map(|(_, error)| error.clone())
}

/// A wish, and what it wishes for, if that could be had.
struct Named {
    wish: DesiredPolicy,
    source: Option<Source>,
    filling: Option<ComponentRef>,
}

impl Named {
    fn of(mut wish: DesiredPolicy) -> Self {
        let source = wish
            .component
            .take()
            .map(|component| Source { component, settings: wish.settings.clone() });
        let filling = source.as_ref().map(ComponentRef::of);
        Self { wish, source, filling }
    }
}

fn of_mode(wishes: &[Named], mode: Mode) -> impl Iterator<Item = &Named> {
    wishes.iter().filter(move |named| named.wish.mode == mode)
}

fn sources<'a>(wishes: impl IntoIterator<Item = &'a Named>) -> Sources {
    wishes.into_iter().filter_map(|named| Some((named.wish.slot, named.source.clone()?))).collect()
}

impl Resources {
    /// Puts them in force with this publisher.
    fn new(publisher: Arc<Publisher>) -> Self {
        Self { publisher, memory: Mutex::default() }
    }

    /// Slots that a resource had filled which is gone, with what POLICY_DIR holds for them.
    fn deserted(&self, wishes: &[Named]) -> Sources {
        let wished = |slot| of_mode(wishes, Mode::Enforce).any(|named| named.wish.slot == slot);
        let left = Slot::ALL
            .into_iter()
            .filter(|slot| !wished(*slot) && self.publisher.wish(*slot).is_some());
        let restored = left.filter_map(|slot| match self.publisher.folder_source(slot) {
            Ok(source) => Some((slot, source)),
            Err(why) => {
                tracing::error!(%slot, why, "its Policy resource is gone, and POLICY_DIR holds nothing for it");
                None
            }
        });
        restored.collect()
    }

    fn keep(&self, wishes: Vec<DesiredPolicy>, all: bool) -> Vec<ApplyStatus> {
        let wishes: Vec<Named> = wishes.into_iter().map(Named::of).collect();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |mode| all && of_mode(&wishes, mode).all(|named| named.source.is_some());
        // What is only tried holds nothing up.
        let refused = if known(Mode::Enforce) { self.enforce(&wishes, &mut memory) } else { None };
        let shadow = if known(Mode::Shadow) { self.shadow(&wishes, &mut memory) } else { None };
        wishes.iter().map(|named| self.fate(named, refused.as_ref(), shadow.as_ref())).collect()
    }

    fn enforce(&self, wishes: &[Named], memory: &mut Memory) -> Option<SwapError> {
        let in_force = self.publisher.in_force();
        let is_news = |named: &&Named| {
            let DesiredPolicy { slot, version, .. } = &named.wish;
            let there = in_force.get(slot) == named.filling.as_ref()
                && self.publisher.wish(*slot).as_ref() == Some(version);
            !there && self.publisher.superseded(*slot, version).is_none()
        };
        let news: Vec<&Named> = of_mode(wishes, Mode::Enforce).filter(is_news).collect();
        let versions =
            news.iter().map(|named| (named.wish.slot, named.wish.version.clone())).collect();
        // Together: what is left to the folder was part of what was wished for.
        let news: Sources = self.deserted(wishes).into_iter().chain(sources(news)).collect();
        if news.is_empty() {
            memory.refused = None;
            return None;
        }
        let tried = Tried { news: fillings(&news), beside: in_force };
        if let Some(error) = again(&memory.refused, &tried) {
            return Some(error);
        }
        let error = self.publisher.grant(&news, versions).err()?;
        tracing::warn!(%error, "the Policy resources are not taken; the policies in force go on");
        memory.refused = error.is_final().then(|| (tried, error.clone()));
        Some(error)
    }

    fn shadow(&self, wishes: &[Named], memory: &mut Memory) -> Option<SwapError> {
        let wanted = sources(of_mode(wishes, Mode::Shadow));
        let named = fillings(&wanted);
        if named == memory.shadowed {
            return None;
        }
        let host = self.publisher.host();
        let running = host.shadowing().map(|sources| fillings(&sources)).unwrap_or_default();
        let tried = Tried { news: named, beside: self.publisher.in_force() };
        if let Some(error) = again(&memory.shadow_refused, &tried) {
            return Some(error);
        }
        let error = if wanted.is_empty() {
            // Only what was begun here ends here.
            if running == memory.shadowed {
                host.stop_shadow();
            }
            None
        } else if running == tried.news {
            None
        } else {
            host.start_shadow(wanted).err()
        };
        if error.is_none() {
            memory.shadowed.clone_from(&tried.news);
        }
        memory.shadow_refused =
            error.clone().filter(SwapError::is_final).map(|error| (tried, error));
        error
    }

    fn fate(
        &self,
        named: &Named,
        refused: Option<&SwapError>,
        shadow: Option<&SwapError>,
    ) -> ApplyStatus {
        let Named { wish: DesiredPolicy { slot, mode, version, .. }, source, filling } = named;
        let error = match mode {
            Mode::Enforce => {
                let in_force = match filling {
                    Some(filling) => self.publisher.in_force().get(slot) == Some(filling),
                    // Its component can no longer be had, and decides all the same.
                    None => self.publisher.wish(*slot).as_ref() == Some(version),
                };
                if in_force {
                    return ApplyStatus::InForce;
                }
                if let Some((number, by)) = self.publisher.superseded(*slot, version) {
                    let why = format!(
                        "publication {number} ({by}) put something else in force; change the resource to have it again"
                    );
                    return ApplyStatus::Superseded(why);
                }
                refused
            }
            Mode::Shadow => {
                let running = self.publisher.host().shadowing().unwrap_or_default();
                if running
                    .get(slot)
                    .is_some_and(|source| Some(ComponentRef::of(source)) == *filling)
                {
                    return ApplyStatus::Beside;
                }
                shadow
            }
        };
        let together = "all Policies of this namespace that decide are put in force together";
        match error {
            _ if source.is_none() => ApplyStatus::Waiting("its component could not be had".to_owned()),
            Some(SwapError::NotTaken(errors)) => match errors.iter().find(|error| error.slot == *slot) {
                Some(error) => ApplyStatus::Refused(error.to_string()),
                None => {
                    let others = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    ApplyStatus::Waiting(format!("{together}, and not all are taken: {others}"))
                }
            },
            Some(error) => ApplyStatus::Waiting(error.to_string()),
            None if *mode == Mode::Enforce => ApplyStatus::Waiting(format!("{together}, and not all could be had")),
            None => ApplyStatus::Waiting(
                "the shadow was ended, or not all of its components could be had; change the resource to begin again".to_owned(),
            ),
        }
    }
}

/// Resources, and where their components come from.
pub struct PolicyReconciler {
    resources: Arc<Resources>,
    supply: Arc<ComponentFetcher>,
    /// Components from registries, by the version of the resource that names them: a tag is not
    /// followed.
    pulled: tokio::sync::Mutex<HashMap<String, Vec<u8>>>,
}

impl PolicyReconciler {
    /// Obtains components there, and puts them in force with this publisher.
    #[must_use]
    pub fn new(publisher: Arc<Publisher>, supply: Arc<ComponentFetcher>) -> Self {
        Self {
            resources: Arc::new(Resources::new(publisher)),
            supply,
            pulled: tokio::sync::Mutex::default(),
        }
    }

    async fn component(&self, version: &str, fetched: Fetched) -> Result<Vec<u8>, FetchError> {
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
impl Reconcile for PolicyReconciler {
    async fn obtain(
        &self,
        version: &str,
        fetched: Fetched,
        digest: Option<&str>,
    ) -> Result<Vec<u8>, FetchError> {
        let component = self.component(version, fetched).await.map_err(|why| match &why {
            FetchError::Unverified { .. }
            | FetchError::Registry(paygress_oci::Error::Tampered { .. }) => {
                FetchError::Unverified(why.to_string())
            }
            FetchError::Reference(_) | FetchError::Registry(_) => {
                FetchError::Unavailable(why.to_string())
            }
        })?;
        let is = Digest::of(&component).hex();
        match digest.map(|digest| digest.trim_start_matches("sha256:")) {
            Some(digest) if digest != is => Err(FetchError::Unverified(format!(
                "the component's digest is sha256:{is}, and not what the resource says"
            ))),
            _ => Ok(component),
        }
    }

    async fn keep(&self, wishes: Vec<DesiredPolicy>, all: bool) -> Vec<ApplyStatus> {
        let resources = Arc::clone(&self.resources);
        let waiting =
            vec![
                ApplyStatus::Waiting("the last look was broken off; the log says why".to_owned());
                wishes.len()
            ];
        // Compiling takes its time.
        tokio::task::spawn_blocking(move || resources.keep(wishes, all)).await.unwrap_or(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_policy::{PolicyDir, PolicyEngine, Trigger, read};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn wish(slot: Slot, settings: &str, mode: Mode, version: &str) -> DesiredPolicy {
        let component = read(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("../../target/plugins/{slot}.wasm")),
        )
        .unwrap();
        DesiredPolicy {
            slot,
            mode,
            component: Some(component),
            settings: settings.to_owned(),
            version: version.to_owned(),
        }
    }

    /// One that could not be had.
    fn unknown(slot: Slot, mode: Mode, version: &str) -> DesiredPolicy {
        DesiredPolicy {
            slot,
            mode,
            component: None,
            settings: String::new(),
            version: version.to_owned(),
        }
    }

    fn pricing(settings: &str, version: &str) -> DesiredPolicy {
        wish(Slot::Pricing, settings, Mode::Enforce, version)
    }

    const DEAR: &str = r#"{"sats_per_hour":120}"#;
    const CHEAP: &str = r#"{"sats_per_hour":30}"#;
    const BROKEN: &str = r#"{"sats_per_hour":-1}"#;
    const LONG: &str = r#"{"minimum_seconds":600}"#;

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn open(&self) -> Resources {
            let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
            let folder = PolicyDir::new(plugins, BTreeMap::new()).defer_to_resources(true);
            let machine =
                PolicyEngine::start(Some(&self.directory.path().join("compiled"))).unwrap();
            Resources::new(Arc::new(
                Publisher::open(machine, &self.directory.path().join("policies"), folder).unwrap(),
            ))
        }
    }

    impl Resources {
        fn one(&self, wish: DesiredPolicy) -> ApplyStatus {
            self.keep(vec![wish], true).remove(0)
        }

        fn settings(&self, slot: Slot) -> String {
            self.publisher.in_force()[&slot].settings.clone()
        }
    }

    fn place() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    #[test]
    fn a_wish_lasts_until_the_operator_or_nobody_wishes_otherwise() {
        let place = place();
        let resources = place.open();
        let publisher = Arc::clone(&resources.publisher);
        let price = || resources.settings(Slot::Pricing);

        assert!(
            matches!(
                resources.keep(vec![pricing(DEAR, "p 1")], false).remove(0),
                ApplyStatus::Waiting(_)
            ),
            "not all are known"
        );
        assert_eq!(
            (resources.one(pricing(DEAR, "p 1")), price().as_str()),
            (ApplyStatus::InForce, DEAR)
        );
        assert_eq!(resources.one(pricing(DEAR, "p 1")), ApplyStatus::InForce);
        assert_eq!(publisher.history().len(), 2, "nothing is published twice");

        // The operator goes back; only a resource that changes is put in force again, whatever
        // happens to it meanwhile.
        publisher.rollback(None).unwrap();
        let superseded = |fate: ApplyStatus| {
            assert!(
                matches!(&fate, ApplyStatus::Superseded(why) if why.contains("publication 3")),
                "{fate:?}"
            )
        };
        superseded(resources.one(pricing(DEAR, "p 1")));
        superseded(resources.one(unknown(Slot::Pricing, Mode::Enforce, "p 1")));
        superseded(resources.keep(vec![pricing(DEAR, "p 1")], false).remove(0));
        let both = |settings: &str, version: &str| {
            vec![pricing(DEAR, "p 1"), wish(Slot::Duration, settings, Mode::Enforce, version)]
        };
        let mut fates = resources.keep(both(r#"{"minimum_seconds":-1}"#, "d 1"), true);
        assert!(matches!(fates.remove(1), ApplyStatus::Refused(_)));
        superseded(fates.remove(0));
        superseded(resources.keep(both(LONG, "d 2"), true).remove(0));
        assert_eq!((price().as_str(), resources.settings(Slot::Duration).as_str()), ("{}", LONG));
        publisher
            .publish(
                &Sources::from([(Slot::Pricing, Named::of(pricing(CHEAP, "")).source.unwrap())]),
                Trigger::PolicyDir,
            )
            .unwrap();
        superseded(resources.one(pricing(DEAR, "p 1")));
        assert_eq!(resources.settings(Slot::Duration), "{}", "its resource is gone");
        assert_eq!(
            (resources.one(pricing(DEAR, "p 2")), price().as_str()),
            (ApplyStatus::InForce, DEAR)
        );

        // A broken one is refused as long as it is there, and tried once.
        let refused = resources.one(pricing(BROKEN, "p 3"));
        assert!(
            matches!(&refused, ApplyStatus::Refused(why) if why.contains("/sats_per_hour")),
            "{refused:?}"
        );
        assert_eq!((resources.one(pricing(BROKEN, "p 3")), price().as_str()), (refused, DEAR));

        // Nobody wishes for anything: what the folder holds is back, but not while somebody's wish
        // is not known.
        assert!(resources.keep(Vec::new(), false).is_empty());
        assert_eq!(
            resources.one(unknown(Slot::Images, Mode::Enforce, "i 1")),
            ApplyStatus::Waiting("its component could not be had".to_owned())
        );
        assert_eq!(price(), DEAR);
        assert!(resources.keep(Vec::new(), true).is_empty());
        assert_eq!(price(), "{}");
        // What the operator has put there stays, however many resources are gone.
        publisher
            .publish(
                &Sources::from([(Slot::Pricing, Named::of(pricing(CHEAP, "")).source.unwrap())]),
                Trigger::Operator,
            )
            .unwrap();
        assert!(resources.keep(Vec::new(), true).is_empty());
        assert_eq!(price(), CHEAP);
    }

    #[test]
    fn what_is_in_force_is_told_as_it_is_and_outlives_a_restart() {
        let place = place();
        let resources = place.open();
        assert_eq!(resources.one(pricing(DEAR, "p 1")), ApplyStatus::InForce);
        // Its source is away: it is in force all the same, also after a restart.
        assert_eq!(
            resources.one(unknown(Slot::Pricing, Mode::Enforce, "p 1")),
            ApplyStatus::InForce
        );
        drop(resources);
        let resources = place.open();
        assert_eq!(
            resources.one(unknown(Slot::Pricing, Mode::Enforce, "p 1")),
            ApplyStatus::InForce
        );
        assert_eq!(
            (resources.one(pricing(DEAR, "p 1")), resources.publisher.history().len()),
            (ApplyStatus::InForce, 2)
        );
        // What its source holds has changed: that is put in force, or it is told why not.
        assert!(matches!(resources.one(pricing(BROKEN, "p 1")), ApplyStatus::Refused(_)));
        assert_eq!(
            (resources.one(pricing(CHEAP, "p 1")), resources.settings(Slot::Pricing).as_str()),
            (ApplyStatus::InForce, CHEAP)
        );
        // The operator's doing is known after a restart, too.
        resources.publisher.rollback(None).unwrap();
        assert_eq!(resources.settings(Slot::Pricing), DEAR);
        drop(resources);
        let resources = place.open();
        assert!(matches!(resources.one(pricing(CHEAP, "p 1")), ApplyStatus::Superseded(_)));

        // A wish for what is there already takes the slot: when it is gone, the folder has it
        // again.
        let own = Named::of(pricing(CHEAP, "")).source.unwrap();
        resources
            .publisher
            .publish(&Sources::from([(Slot::Pricing, own)]), Trigger::Operator)
            .unwrap();
        assert_eq!(resources.one(pricing(CHEAP, "p 2")), ApplyStatus::InForce);
        assert_eq!(resources.publisher.wish(Slot::Pricing).as_deref(), Some("p 2"));
        // Another wish that is not taken leaves a slot that nobody wishes for any longer as it is,
        // too: it is one change.
        let fates = resources.keep(
            vec![wish(Slot::Duration, r#"{"minimum_seconds":-1}"#, Mode::Enforce, "d 1")],
            true,
        );
        assert!(matches!(fates[0], ApplyStatus::Refused(_)));
        assert_eq!(resources.settings(Slot::Pricing), CHEAP);
        resources.keep(vec![wish(Slot::Duration, LONG, Mode::Enforce, "d 2")], true);
        assert_eq!(
            (
                resources.settings(Slot::Pricing).as_str(),
                resources.settings(Slot::Duration).as_str()
            ),
            ("{}", LONG)
        );
        assert_eq!(resources.publisher.wish(Slot::Pricing), None);
    }

    #[test]
    fn a_shadow_decides_until_its_resource_is_gone_or_promoted() {
        let place = place();
        let resources = place.open();
        let host = Arc::clone(resources.publisher.host());
        let beside = || wish(Slot::Pricing, CHEAP, Mode::Shadow, "s 1");
        assert_eq!(
            resources.keep(vec![pricing(DEAR, "p 1"), beside()], true),
            [ApplyStatus::InForce, ApplyStatus::Beside]
        );
        // Its source is away for a moment: it goes on.
        let fates = resources
            .keep(vec![pricing(DEAR, "p 1"), unknown(Slot::Pricing, Mode::Shadow, "s 1")], true);
        assert_eq!(fates[0], ApplyStatus::InForce);
        assert!(host.shadow_report().is_some());
        assert_eq!(resources.one(pricing(DEAR, "p 1")), ApplyStatus::InForce);
        assert!(host.shadow_report().is_none());
        // Promoted, and then wished for.
        assert_eq!(resources.one(beside()), ApplyStatus::Beside);
        assert_eq!(resources.settings(Slot::Pricing), "{}");
        resources.publisher.promote().unwrap();
        assert_eq!(
            (resources.settings(Slot::Pricing).as_str(), host.shadow_report().is_none()),
            (CHEAP, true)
        );
        assert!(matches!(resources.one(beside()), ApplyStatus::Waiting(_)));
        assert_eq!(resources.one(pricing(CHEAP, "s 2")), ApplyStatus::InForce);
        assert_eq!(resources.publisher.wish(Slot::Pricing).as_deref(), Some("s 2"));
    }
}
