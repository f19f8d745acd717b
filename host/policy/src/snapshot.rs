//! Snapshots: a component that has taken its settings, as another component.
//!
//! ```text
//! component ─▶ instrument ─▶ compile ─▶ configure ─▶ read memories and globals ─▶ component that starts with them
//!              (wizer)                  (limits of a call)                         (compiled, cached)
//! ```
//!
//! Without imports a component's state after `configure` depends on nothing but its bytes and its
//! settings, so an instance of the snapshot is what a fresh instance is once it has been
//! configured. What has state elsewhere than in memories and globals is refused, and then takes its
//! settings before each call.
//!
//! wizer reads what the component's author has written: its panics are caught, and what makes it
//! need much memory is bounded before it runs.

use crate::bindings::common::paygress::policy::types as wit;
use crate::cache::CompileError;
use crate::contract::{ContractVersion, PACKAGE};
use crate::engine::{Deadline, PolicyEngine};
use crate::fault::classify;
use crate::limits::{
    CallLimiter, MEMORY_BYTES, OUTPUT_BYTES, SNAPSHOT_BYTES, SNAPSHOT_FORMAT, SNAPSHOT_RUNS,
};
use paygress_core::backend::policy::FaultKind;
use paygress_core::model::ids::HexDigest;
use paygress_core::sanitize::plain;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use wasmparser::{CanonicalFunction, Parser, Payload};
use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Instance, Lift, Linker};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

/// Why there is no snapshot. Logged: the component is used without one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Its state is not only in memories and globals, or wizer does not know what it uses.
    /// Sanitized: the text may come from the component.
    #[error("no snapshot of it can be made: {0}")]
    Unsupported(String),
    #[error("a snapshot of it has {0} bytes; the limit is {SNAPSHOT_BYTES}")]
    TooLarge(usize),
    #[error("its memory is too scattered for a snapshot: more than {SNAPSHOT_RUNS} runs of bytes")]
    TooScattered,
    #[error("it failed while its snapshot was made: {0}")]
    Faulty(FaultKind),
    #[error("its snapshot cannot be compiled: {0}")]
    NotCompiled(#[from] CompileError),
    /// It behaves otherwise than the component.
    #[error("its snapshot does not return the same schema, or does not fit the contract")]
    Differs,
}

impl SnapshotError {
    fn unsupported(error: &wasmtime::Error) -> Self {
        Self::Unsupported(plain(&format!("{error:#}"), 500))
    }

    fn faulty(error: &wasmtime::Error) -> Self {
        Self::Faulty(classify(error))
    }
}

/// A component that took its settings when it was loaded.
#[derive(Clone, Copy)]
pub(crate) struct Configuration<'a> {
    pub(crate) component: &'a [u8],
    /// Of the component.
    pub(crate) digest: &'a HexDigest,
    pub(crate) settings: &'a str,
    pub(crate) contract: ContractVersion,
}

impl Configuration<'_> {
    /// The same for the same bytes and the same settings, as long as snapshots are made in the
    /// same way.
    fn key(&self) -> String {
        let settings = hex::encode(Sha256::digest(self.settings));
        format!("{}-{settings}-{SNAPSHOT_FORMAT}", self.digest)
    }
}

/// The compiled snapshot, from the cache if it is there. Blocks: it compiles twice.
pub(crate) fn get_or_make(
    engine: &PolicyEngine,
    configuration: &Configuration<'_>,
) -> Result<Component, SnapshotError> {
    engine.get_or_compile(&configuration.key(), || {
        let snapshot = catch_unwind(AssertUnwindSafe(|| make(engine, configuration)))
            .unwrap_or_else(|_| Err(SnapshotError::Unsupported("wizer panicked".to_owned())))?;
        Ok(engine.parse(&snapshot)?)
    })
}

fn make(
    engine: &PolicyEngine,
    configuration: &Configuration<'_>,
) -> Result<Vec<u8>, SnapshotError> {
    check_canonical_functions(configuration.component)?;
    let mut wizer = Wizer::new();
    // No function is only for the initialization.
    wizer.keep_init_func(true);
    let (context, instrumented) = wizer
        .instrument_component(configuration.component)
        .map_err(|error| SnapshotError::unsupported(&error))?;
    let mut state = ConfiguredState::new(engine, &instrumented, configuration)?;
    drop(instrumented);
    let snapshot = at_once(wizer.snapshot_component(&context, &mut state));
    if let Some(error) = state.error {
        return Err(error);
    }
    let snapshot = snapshot
        .ok_or_else(|| SnapshotError::Unsupported("wizer waits".to_owned()))?
        .map_err(|error| SnapshotError::unsupported(&error))?;
    match snapshot.len() {
        bytes if bytes > SNAPSHOT_BYTES => Err(SnapshotError::TooLarge(bytes)),
        _ => Ok(snapshot),
    }
}

/// The result of a future that never waits; `None` if it does.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// Refuses what has state that the engine holds, such as handles of resources: a snapshot would
/// lose it.
fn check_canonical_functions(component: &[u8]) -> Result<(), SnapshotError> {
    let unsupported = |error: wasmparser::BinaryReaderError| {
        SnapshotError::Unsupported(plain(&error.to_string(), 500))
    };
    for payload in Parser::new(0).parse_all(component) {
        let Payload::ComponentCanonicalSection(section) = payload.map_err(unsupported)? else {
            continue;
        };
        for function in section {
            match function.map_err(unsupported)? {
                CanonicalFunction::Lift { .. } | CanonicalFunction::Lower { .. } => {}
                _ => {
                    let reason = "it uses resources, or another built-in function with state";
                    return Err(SnapshotError::Unsupported(reason.to_owned()));
                }
            }
        }
    }
    Ok(())
}

/// An instance that has been configured, for wizer to read.
struct ConfiguredState {
    store: Store<CallLimiter>,
    instance: Instance,
    /// By accessor: wizer reads each memory twice, and each access changes it.
    memories: BTreeMap<String, Vec<u8>>,
    /// The first error. What wizer makes is worthless then.
    error: Option<SnapshotError>,
}

impl ConfiguredState {
    /// Instantiates and configures, within the limits of a call.
    fn new(
        engine: &PolicyEngine,
        instrumented: &[u8],
        configuration: &Configuration<'_>,
    ) -> Result<Self, SnapshotError> {
        let component = engine.parse(instrumented)?;
        let mut store = engine.store(Deadline::Full);
        let configured = Linker::<CallLimiter>::new(&engine.engine)
            .instantiate_pre(&component)
            .and_then(|pre| pre.instantiate(&mut store))
            .and_then(|instance| {
                let configured = configure(&mut store, instance, configuration)?;
                Ok((instance, configured))
            });
        let (instance, configured) = configured.map_err(|error| SnapshotError::faulty(&error))?;
        if let Err(problems) = configured {
            let first = problems.first().map(|problem| plain(&problem.message, 500));
            return Err(SnapshotError::Faulty(FaultKind::Settings(first.unwrap_or_default())));
        }
        // Reading copies all memory.
        store.set_hostcall_fuel(MEMORY_BYTES.saturating_add(OUTPUT_BYTES));
        Ok(Self { store, instance, memories: BTreeMap::new(), error: None })
    }

    /// Calls one of the functions that wizer has added.
    fn read<R: Lift + 'static>(&mut self, interface: &str, name: &str) -> wasmtime::Result<R> {
        // Time passes while wizer works on what it has read.
        PolicyEngine::start_deadline(&mut self.store, Deadline::Full);
        let export = export(&mut self.store, self.instance, interface, name)?;
        let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, &export)?;
        let (value,) = function.call(&mut self.store, ())?;
        Ok(value)
    }

    fn value<R: Lift + Default + 'static>(&mut self, interface: &str, name: &str) -> R {
        self.read(interface, name).unwrap_or_else(|error| {
            self.error.get_or_insert(SnapshotError::faulty(&error));
            R::default()
        })
    }

    /// Which NaN it is gets lost on its way out of a component.
    fn refuse_nan(&mut self) {
        let reason = "a global of it is not a number".to_owned();
        self.error.get_or_insert(SnapshotError::Unsupported(reason));
    }

    fn memory(&mut self, interface: &str, name: &str) -> Vec<u8> {
        let memory: Vec<u8> = self.value(interface, name);
        if runs(&memory) > SNAPSHOT_RUNS {
            self.error.get_or_insert(SnapshotError::TooScattered);
            return Vec::new();
        }
        memory
    }
}

impl ComponentInstanceState for ConfiguredState {
    fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) -> impl Future<Output = ()> + Send {
        let memory = self.memories.remove(func).unwrap_or_else(|| self.memory(instance, func));
        contents(&memory);
        self.memories.insert(func.to_owned(), memory);
        ready(())
    }

    fn call_func_ret_s32(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = i32> + Send {
        ready(self.value::<i32>(instance, func))
    }

    fn call_func_ret_s64(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = i64> + Send {
        ready(self.value::<i64>(instance, func))
    }

    fn call_func_ret_f32(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = u32> + Send {
        let value: f32 = self.value(instance, func);
        if value.is_nan() {
            self.refuse_nan();
        }
        ready(value.to_bits())
    }

    fn call_func_ret_f64(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = u64> + Send {
        let value: f64 = self.value(instance, func);
        if value.is_nan() {
            self.refuse_nan();
        }
        ready(value.to_bits())
    }
}

fn configure(
    store: &mut Store<CallLimiter>,
    instance: Instance,
    configuration: &Configuration<'_>,
) -> wasmtime::Result<Result<(), Vec<wit::Problem>>> {
    let interface = format!("{PACKAGE}settings@{}", configuration.contract.as_str());
    let export = export(store, instance, &interface, "configure")?;
    let function = instance
        .get_typed_func::<(&str,), (Result<(), Vec<wit::Problem>>,)>(&mut *store, &export)?;
    let (configured,) = function.call(&mut *store, (configuration.settings,))?;
    Ok(configured)
}

fn export(
    store: &mut Store<CallLimiter>,
    instance: Instance,
    interface: &str,
    name: &str,
) -> wasmtime::Result<ComponentExportIndex> {
    instance
        .get_export_index(&mut *store, None, interface)
        .and_then(|interface| instance.get_export_index(&mut *store, Some(&interface), name))
        .ok_or_else(|| wasmtime::format_err!("there is no {name} in {interface}"))
}

/// Runs of bytes that are not zero. wizer makes a record of each before it joins them.
fn runs(memory: &[u8]) -> usize {
    let begins = |before: u8, byte: u8| usize::from(before == 0 && byte != 0);
    let (runs, _) = memory.iter().fold((0_usize, 0_u8), |(runs, before), byte| {
        (runs.saturating_add(begins(before, *byte)), *byte)
    });
    runs
}
