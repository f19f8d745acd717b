//! The WebAssembly engine: its configuration, the clock that enforces deadlines, and the store of
//! one call.

use crate::cache::{CompileError, CompiledCache};
use crate::compiler::Compiler;
use crate::engine_config::{Metering, config, config_for_counts};
use crate::files::DirectoryError;
use crate::limits::{
    CALLS, CPU_TIME, CallLimiter, DEADLINE, INITIAL_ELEMENTS, OUTPUT_BYTES, SHORT_DEADLINE, TICK,
};
use paygress_core::backend::policy::{FaultKind, Placement, Rendered};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::HexDigest;
use paygress_core::sanitize::plain;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use wasmparser::{ElementItems, Parser, Payload};
use wasmtime::component::Component;
use wasmtime::{Config, Engine, Store, UpdateDeadline};

/// The cause of an error, of whichever library.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not run here: the processor, the address space or a limit of the system.
    #[error("the WebAssembly engine cannot start")]
    Engine(#[source] BoxError),
    /// The thread that enforces deadlines cannot start.
    #[error("the clock of the WebAssembly engine cannot start")]
    Clock(#[source] std::io::Error),
    /// The cache directory cannot be used.
    #[error(
        "the cache of compiled policies {} cannot be used: {source}; use a directory that only this user can read and write",
        .path.display()
    )]
    Cache {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: DirectoryError,
    },
}

/// Checks a rendered pod template against what the cluster allows.
pub type TemplateGuard = Box<dyn Fn(&Rendered, &Placement) -> Result<(), BoxError> + Send + Sync>;

/// How long one call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// [`SHORT_DEADLINE`] at most, whatever the machine does beside it.
    Short,
    /// [`DEADLINE`].
    Full,
}

/// Whether calls start from snapshots of configured components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshots {
    Off,
    On,
}

/// The engine with its clock and cache. One per process.
pub struct PolicyEngine {
    pub(crate) engine: Engine,
    cache: Option<CompiledCache>,
    compiler: Compiler,
    pub(crate) calls: Arc<Semaphore>,
    metering: Metering,
    snapshots: Snapshots,
    guard: Option<Arc<TemplateGuard>>,
    access: AccessModes,
}

impl PolicyEngine {
    /// Starts the engine. Compiled components are cached in the directory `cache`, if given. It
    /// must be accessible to this user only.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn start(cache: Option<&Path>) -> Result<Arc<Self>, EngineError> {
        Self::build(cache, Metering::Off)
    }

    /// An engine for tests that count the instructions of calls, the host's included, in a processor
    /// that another program emulates, such as valgrind's. That is slow, so nothing is interrupted: a
    /// component that spins does so for ever. The code is that of [`PolicyEngine::start`] for the
    /// oldest processor of this architecture; it must be compiled in this process. The cache as
    /// there.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn for_counts(cache: Option<&Path>) -> Result<Arc<Self>, EngineError> {
        let config = config_for_counts().map_err(|error| EngineError::Engine(error.into()))?;
        Self::with_config(cache, Metering::Off, &config).map(Arc::new)
    }

    /// An engine for authors: it counts instructions, and traps name source lines if the component
    /// has debug information. The limits are the same; it is slower. The cache as in
    /// [`PolicyEngine::start`].
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn with_fuel(cache: Option<&Path>) -> Result<Arc<Self>, EngineError> {
        Self::build(cache, Metering::Fuel)
    }

    /// The same engine; its components fault if they render a template that the guard rejects, also
    /// while they are loaded.
    #[must_use]
    pub fn with_template_guard(&self, guard: TemplateGuard) -> Arc<Self> {
        Arc::new(Self { guard: Some(Arc::new(guard)), ..self.copy() })
    }

    /// The same engine; while its components are loaded they are tried with pods that are reached so.
    #[must_use]
    pub fn with_access(&self, access: AccessModes) -> Arc<Self> {
        Arc::new(Self { access, ..self.copy() })
    }

    /// The same engine; its components take their settings once, when they are loaded, and calls
    /// start from a snapshot of that. Components of which no snapshot can be made take them before
    /// each call, as without this. They are compiled three times, so that it is for engines with a
    /// cache.
    #[must_use]
    pub fn with_snapshots(&self) -> Arc<Self> {
        Arc::new(Self { snapshots: Snapshots::On, ..self.copy() })
    }

    /// The same engine; its components are compiled there.
    #[must_use]
    pub fn with_compiler(&self, compiler: Compiler) -> Arc<Self> {
        Arc::new(Self { compiler, ..self.copy() })
    }

    #[cfg(test)]
    pub(crate) fn cache(&self) -> Option<&CompiledCache> {
        self.cache.as_ref()
    }

    pub(crate) fn makes_snapshots(&self) -> bool {
        self.snapshots == Snapshots::On
    }

    fn copy(&self) -> Self {
        let Self { engine, cache, compiler, calls, metering, snapshots, guard, access } = self;
        Self {
            engine: engine.clone(),
            cache: cache.clone(),
            compiler: compiler.clone(),
            calls: Arc::clone(calls),
            metering: *metering,
            snapshots: *snapshots,
            guard: guard.clone(),
            access: access.clone(),
        }
    }

    /// How pods are reached that its components are tried with.
    pub(crate) fn access(&self) -> &AccessModes {
        &self.access
    }

    pub(crate) fn check_template(
        &self,
        rendered: &Rendered,
        placement: &Placement,
    ) -> Result<(), FaultKind> {
        self.guard
            .as_ref()
            .map_or(Ok(()), |guard| guard(rendered, placement))
            .map_err(|error| FaultKind::Template(error.to_string()))
    }

    fn build(cache: Option<&Path>, metering: Metering) -> Result<Arc<Self>, EngineError> {
        let built = Self::with_config(cache, metering, &config(metering))?;
        start_clock(&built.engine).map_err(EngineError::Clock)?;
        Ok(Arc::new(built))
    }

    /// Without the clock.
    fn with_config(
        cache: Option<&Path>,
        metering: Metering,
        config: &Config,
    ) -> Result<Self, EngineError> {
        let open = |path: &Path| {
            CompiledCache::open(path)
                .map_err(|source| EngineError::Cache { path: path.to_owned(), source })
        };
        let cache = cache.map(open).transpose()?;
        let engine = Engine::new(config).map_err(|error| EngineError::Engine(error.into()))?;
        let calls = usize::try_from(CALLS).unwrap_or(1);
        Ok(Self {
            engine,
            cache,
            compiler: Compiler::default(),
            calls: Arc::new(Semaphore::new(calls)),
            metering,
            snapshots: Snapshots::Off,
            guard: None,
            access: AccessModes::default(),
        })
    }

    /// A store for one call on this thread.
    pub(crate) fn store(&self, deadline: Deadline) -> Store<CallLimiter> {
        let mut store = Store::new(&self.engine, CallLimiter::default());
        store.limiter(|limits| limits);
        Self::start_deadline(&mut store, deadline);
        store.set_hostcall_fuel(OUTPUT_BYTES);
        if self.metering == Metering::Fuel {
            // Counted, not limited: the deadline limits it.
            let _ = store.set_fuel(u64::MAX);
        }
        store
    }

    /// Gives the store the time of one call, from now on.
    pub(crate) fn start_deadline(store: &mut Store<CallLimiter>, deadline: Deadline) {
        let ticks = |time: Duration| {
            u64::try_from(time.as_millis().div_ceil(TICK.as_millis().max(1))).unwrap_or(1)
        };
        match deadline {
            Deadline::Short => {
                store.set_epoch_deadline(ticks(SHORT_DEADLINE));
                store.epoch_deadline_trap();
            }
            Deadline::Full => {
                let begun = thread_time();
                // One more: the first tick may come at once.
                store.set_epoch_deadline(ticks(DEADLINE).saturating_add(1));
                store.epoch_deadline_callback(move |_| {
                    let over = thread_time().saturating_sub(begun) >= CPU_TIME;
                    Ok(if over { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
                });
            }
        }
    }

    /// Instructions of a store's call; 0 unless they are counted.
    pub(crate) fn fuel(&self, store: &Store<CallLimiter>) -> u64 {
        match self.metering {
            Metering::Fuel => store.get_fuel().map_or(0, |left| u64::MAX.saturating_sub(left)),
            Metering::Off => 0,
        }
    }

    /// Compiles a component, or loads it from the cache.
    pub(crate) fn compile(
        &self,
        bytes: &[u8],
        digest: &HexDigest,
    ) -> Result<Component, CompileError> {
        self.get_or_compile(digest.as_str(), || self.parse(bytes))
    }

    /// What the cache has under a key, or what is compiled now.
    pub(crate) fn get_or_compile<E: From<CompileError>>(
        &self,
        key: &str,
        compile: impl FnOnce() -> Result<Component, E>,
    ) -> Result<Component, E> {
        match &self.cache {
            Some(cache) => cache.get_or_compile(&self.engine, key, compile),
            None => compile(),
        }
    }

    /// Compiles a component, past the cache.
    pub(crate) fn parse(&self, bytes: &[u8]) -> Result<Component, CompileError> {
        check_elements(bytes)?;
        let Compiler::Child(child) = &self.compiler else {
            return Component::from_binary(&self.engine, bytes)
                .map_err(|error| CompileError::Invalid(plain(&format!("{error:#}"), 500)));
        };
        let code = child.compile(bytes, self.metering)?;
        // SAFETY: this is what `Engine::precompile_component` has made in a process of this user's
        // that runs the program that the operator runs. wasmtime checks that its version and its
        // settings are those of this engine.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize(&self.engine, &code) };
        component.map_err(|error| CompileError::Failed(plain(&format!("{error:#}"), 500)))
    }
}

/// Starts the thread that advances the epoch. It ends with the engine.
fn start_clock(engine: &Engine) -> std::io::Result<()> {
    let weak = engine.weak();
    let run = move || {
        let mut next = Instant::now();
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            // On schedule, so that late ticks do not add up; but missed ticks are not made up for,
            // at the expense of the calls.
            let now = Instant::now();
            let delayed = now.checked_add(TICK).unwrap_or(now);
            next = next.checked_add(TICK).filter(|next| *next > now).unwrap_or(delayed);
            std::thread::sleep(next.saturating_duration_since(now));
        }
    };
    std::thread::Builder::new().name("policy-clock".to_owned()).spawn(run).map(drop)
}

/// Limits the initial elements of tables: they would fill the host's memory.
fn check_elements(component: &[u8]) -> Result<(), CompileError> {
    let invalid = |error: wasmparser::BinaryReaderError| {
        CompileError::Invalid(plain(&error.to_string(), 500))
    };
    let mut elements = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let Payload::ElementSection(section) = payload.map_err(invalid)? else { continue };
        for element in section {
            elements = elements.saturating_add(match element.map_err(invalid)?.items {
                ElementItems::Functions(items) => items.count(),
                ElementItems::Expressions(_, items) => items.count(),
            });
        }
    }
    if elements > INITIAL_ELEMENTS { Err(CompileError::TooManyElements(elements)) } else { Ok(()) }
}

/// CPU time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
