//! One component in its slot: loading, checking and calling it.

use crate::bindings::common::paygress::policy::types as wit;
use crate::cache::CompileError;
use crate::contract::{self, ContractVersion};
use crate::engine::{Deadline, PolicyEngine};
use crate::fault::classify;
use crate::limits::{COMPONENT_BYTES, CallLimiter, QUICK, SETTINGS_BYTES, SETTINGS_PROBLEMS};
use crate::snapshot::{self, Configuration, SnapshotError};
use crate::stats::CallStats;
use crate::v1_0;
use crate::world::{Duration, Images, World};
use paygress_core::backend::policy::{Configured, FaultKind, SlotStats};
use paygress_core::model::ids::HexDigest;
use paygress_core::sanitize::plain;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::Store;
use wasmtime::component::Linker;

/// Why a component was rejected for its slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// A set of four needs one.
    #[error("there is no component for it")]
    Missing,
    /// The file is too large.
    #[error("it has {0} bytes; a policy may have {COMPONENT_BYTES}")]
    TooLarge(usize),
    /// It is not a component, or this engine cannot compile it.
    #[error("it is not a WebAssembly component that can be compiled: {0}")]
    NotAComponent(#[source] CompileError),
    /// It imports too much, or does not export what the contract requires.
    #[error("it does not fit the contract paygress:policy: {}", .0.join("; "))]
    ContractMismatch(Vec<String>),
    /// It rejected its settings.
    #[error("it rejected its settings: {}", join(.0))]
    Settings(Vec<SettingsProblem>),
    /// It failed while it was loaded, or on the sample order.
    #[error("it failed when it was tested: {0}")]
    Faulty(#[source] FaultKind),
}

/// What is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsProblem {
    /// A JSON Pointer; `None` for the settings as a whole.
    pub path: Option<String>,
    pub message: String,
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.as_deref().unwrap_or("the whole"), self.message)
    }
}

impl From<wit::Problem> for SettingsProblem {
    fn from(problem: wit::Problem) -> Self {
        let path = Some(plain(&problem.path, 200)).filter(|path| !path.is_empty());
        Self { path, message: plain(&problem.message, 500) }
    }
}

fn join(problems: &[SettingsProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The digest of settings as canonical JSON: without space, keys sorted.
#[must_use]
pub fn settings_digest(settings: &str) -> HexDigest {
    let canonical = serde_json::from_str::<Value>(settings)
        .map_or_else(|_| settings.to_owned(), |settings| settings.to_string());
    HexDigest::of(canonical)
}

/// A component that was compiled, checked and configured.
pub(crate) struct LoadedComponent<W: World> {
    pub(crate) engine: Arc<PolicyEngine>,
    pre: W::Pre,
    settings: Arc<str>,
    pub(crate) settings_digest: HexDigest,
    pub(crate) digest: HexDigest,
    pub(crate) schema: String,
    pub(crate) contract: ContractVersion,
    /// When it takes its settings. `pre` is of the snapshot, if there is one.
    pub(crate) configured: Configured,
    pub(crate) stats: Arc<CallStats>,
}

impl<W: World> Clone for LoadedComponent<W> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            pre: self.pre.clone(),
            settings: Arc::clone(&self.settings),
            settings_digest: self.settings_digest.clone(),
            digest: self.digest.clone(),
            schema: self.schema.clone(),
            contract: self.contract,
            configured: self.configured,
            stats: Arc::clone(&self.stats),
        }
    }
}

impl LoadedComponent<Images> {
    pub(crate) fn has_catalog(&self) -> bool {
        self.contract >= ContractVersion::V1_2
    }
}

impl LoadedComponent<Duration> {
    pub(crate) fn has_refund_terms(&self) -> bool {
        self.contract >= ContractVersion::V1_1
    }
}

impl<W: World> LoadedComponent<W> {
    /// Compiles, checks and configures. Nothing of the component runs before its imports and
    /// exports are known to fit. Blocks: compiling takes seconds.
    pub(crate) fn load(
        engine: &Arc<PolicyEngine>,
        bytes: &[u8],
        settings: &str,
    ) -> Result<Self, RejectReason> {
        if bytes.len() > COMPONENT_BYTES {
            return Err(RejectReason::TooLarge(bytes.len()));
        }
        if settings.len() > SETTINGS_BYTES {
            let message = format!("have {} bytes; the limit is {SETTINGS_BYTES}", settings.len());
            return Err(RejectReason::Settings(vec![SettingsProblem { path: None, message }]));
        }
        let digest = HexDigest::of(bytes);
        let compiled = engine.compile(bytes, &digest).map_err(RejectReason::NotAComponent)?;
        let contract = contract::check(engine, &compiled, W::SLOT, W::functions)
            .map_err(RejectReason::ContractMismatch)?;
        let pre = Linker::new(&engine.engine)
            .instantiate_pre(&compiled)
            .and_then(|instance| W::pre(instance, contract))
            .map_err(|error| mismatch(&error))?;
        let mut component = Self {
            engine: Arc::clone(engine),
            pre,
            settings: settings.into(),
            settings_digest: settings_digest(settings),
            digest,
            schema: String::new(),
            contract,
            configured: Configured::EachCall,
            stats: Arc::default(),
        };
        component.schema = component.read_schema()?;
        component.test_settings()?;
        Ok(component.with_snapshot(bytes))
    }

    /// This component with a snapshot, if the engine makes them and one of it can be made.
    fn with_snapshot(self, bytes: &[u8]) -> Self {
        if !self.engine.makes_snapshots() {
            return self;
        }
        let slot = W::SLOT.as_str();
        match self.snapshot(bytes) {
            Ok(component) => {
                let digest = component.digest.as_str();
                tracing::debug!(slot, digest, "policy calls use a snapshot");
                component
            }
            Err(error) => {
                let digest = self.digest.as_str();
                tracing::info!(slot, digest, %error, "a policy is configured before each call");
                self
            }
        }
    }

    fn snapshot(&self, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let compiled = snapshot::get_or_make(
            &self.engine,
            &Configuration {
                component: bytes,
                digest: &self.digest,
                settings: &self.settings,
                contract: self.contract,
            },
        )?;
        match contract::check(&self.engine, &compiled, W::SLOT, W::functions) {
            Ok(contract) if contract == self.contract => {}
            _ => return Err(SnapshotError::Differs),
        }
        let pre = Linker::new(&self.engine.engine)
            .instantiate_pre(&compiled)
            .and_then(|instance| W::pre(instance, self.contract))
            .map_err(|_| SnapshotError::Differs)?;
        let component = Self { pre, configured: Configured::Snapshot, ..self.clone() };
        match component.read_schema() {
            Ok(schema) if schema == self.schema => Ok(component),
            _ => Err(SnapshotError::Differs),
        }
    }

    fn read_schema(&self) -> Result<String, RejectReason> {
        let mut store = self.engine.store(Deadline::Full);
        // A differing signature shows only here.
        let world =
            W::instantiate(&self.pre, &mut store).map_err(|error| match classify(&error) {
                FaultKind::InvalidOutput(_) => mismatch(&error),
                kind => RejectReason::Faulty(kind),
            })?;
        let schema =
            world.schema(&mut store).map_err(|error| RejectReason::Faulty(classify(&error)))?;
        v1_0::check_schema(&schema).map_err(RejectReason::Faulty)?;
        Ok(schema)
    }

    fn test_settings(&self) -> Result<(), RejectReason> {
        let mut store = self.engine.store(Deadline::Full);
        let world = W::instantiate(&self.pre, &mut store).map_err(|error| mismatch(&error))?;
        let configured = world
            .configure(&mut store, &self.settings)
            .map_err(|error| RejectReason::Faulty(classify(&error)))?;
        configured.map_err(|problems| {
            let problems = problems.into_iter().take(SETTINGS_PROBLEMS);
            RejectReason::Settings(problems.map(SettingsProblem::from).collect())
        })
    }

    /// The same component, with statistics of its own.
    pub(crate) fn with_new_stats(&self) -> Self {
        Self { stats: Arc::default(), ..self.clone() }
    }

    pub(crate) fn report(&self) -> SlotStats {
        self.stats.report(W::SLOT, &self.digest, self.configured)
    }

    /// Calls the component on this thread if it is quick. If it is not, calls it on a thread that may
    /// block: it gets the same arguments and imports nothing, so that it does the same again.
    pub(crate) async fn call_or_move<R: Send + 'static>(
        &self,
        call: impl Fn(&Self, Deadline) -> Result<R, FaultKind> + Send + 'static,
    ) -> Result<R, FaultKind> {
        let trap = |error: &dyn fmt::Display| FaultKind::Trap(error.to_string());
        let permit =
            Arc::clone(&self.engine.calls).acquire_owned().await.map_err(|error| trap(&error))?;
        if self.stats.is_quick() {
            match call(self, Deadline::Short) {
                Err(FaultKind::Deadline(_)) => self.stats.mark_slow(),
                done => return done,
            }
        }
        let component = self.clone();
        let job = move || {
            let begun = Instant::now();
            let done = call(&component, Deadline::Full);
            if begun.elapsed() < QUICK {
                component.stats.mark_quick();
            }
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(job).await.unwrap_or_else(|error| Err(trap(&error)))
    }

    /// One call in a fresh instance, on this thread.
    pub(crate) fn call<R>(
        &self,
        deadline: Deadline,
        function: impl FnOnce(&W, &mut Store<CallLimiter>) -> wasmtime::Result<R>,
    ) -> Result<R, FaultKind> {
        let mut store = self.engine.store(deadline);
        let run = || {
            let world = W::instantiate(&self.pre, &mut store)?;
            if self.configured == Configured::EachCall
                && let Err(problems) = world.configure(&mut store, &self.settings)?
            {
                let first = problems
                    .into_iter()
                    .next()
                    .map(|problem| plain(&problem.message, 500))
                    .unwrap_or_default();
                return Ok(Err(FaultKind::Settings(first)));
            }
            function(&world, &mut store).map(Ok)
        };
        let result = run().unwrap_or_else(|error| Err(classify(&error)));
        self.stats.record_usage(store.data().memory_bytes, self.engine.fuel(&store));
        result
    }
}

fn mismatch(error: &wasmtime::Error) -> RejectReason {
    RejectReason::ContractMismatch(vec![plain(&format!("{error:#}"), 500)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits::DEADLINE;
    use std::sync::Mutex;

    #[test]
    fn settings_that_are_the_same_json_have_the_same_digest() {
        let digest = settings_digest(r#"{"b": 1, "a": [true]}"#);
        assert_eq!(digest, settings_digest(r#"{ "a":[ true ],"b":1}"#));
        assert_eq!(digest, HexDigest::of(r#"{"a":[true],"b":1}"#));
        assert_ne!(digest, settings_digest("{}"));
    }

    fn images() -> LoadedComponent<Images> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/plugins/images.wasm");
        let bytes = std::fs::read(path).unwrap();
        LoadedComponent::load(&PolicyEngine::start(None).unwrap(), &bytes, "{}").unwrap()
    }

    #[tokio::test]
    async fn a_call_that_is_not_quick_is_made_on_another_thread_until_it_is() {
        let component = images();
        let this = std::thread::current().id();
        let made: Arc<Mutex<Vec<(Deadline, bool)>>> = Arc::default();
        let call = |took: std::time::Duration| {
            let made = Arc::clone(&made);
            component.call_or_move(move |_, deadline| {
                let is_here = std::thread::current().id() == this;
                made.lock().unwrap().push((deadline, is_here));
                match deadline {
                    Deadline::Short if took > QUICK => Err(FaultKind::Deadline(100)),
                    _ => {
                        std::thread::sleep(took);
                        Ok(took)
                    }
                }
            })
        };
        let (quick, slow) = (std::time::Duration::ZERO, QUICK.saturating_mul(2));
        for took in [quick, slow, slow, quick] {
            assert_eq!(call(took).await, Ok(took));
        }
        let [here, begun_here, elsewhere] =
            [(Deadline::Short, true), (Deadline::Short, true), (Deadline::Full, false)];
        let expected = [here, begun_here, elsewhere, elsewhere, elsewhere];
        assert_eq!(*made.lock().unwrap(), expected);
        // No call is quick while others have the processor.
        let begun = Instant::now();
        loop {
            assert_eq!(call(quick).await, Ok(quick));
            let last = *made.lock().unwrap().last().unwrap();
            if last == here {
                break;
            }
            assert_eq!(last, elsewhere);
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it stays elsewhere");
        }
    }

    #[test]
    fn a_call_that_was_not_scheduled_is_not_interrupted() {
        let component = images();
        let schema = component.call(Deadline::Full, |world, store| {
            // As if other threads had the processor.
            std::thread::sleep(DEADLINE.saturating_mul(2));
            world.schema(store)
        });
        assert_eq!(schema.unwrap(), component.schema);
    }
}
