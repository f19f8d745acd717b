//! The engine that runs policies, and everything that bounds them.

use crate::files::{private_directory, write_privately};
use paygress_core::backend::policy::{FaultKind, Placement, Rendered};
use paygress_core::sanitize::plain;
use sha2::{Digest, Sha256};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;
use wasmparser::{ElementItems, Parser, Payload};
use wasmtime::component::Component;
use wasmtime::{
    Config, Engine, PoolingAllocationConfig, ResourceLimiter, Store, UpdateDeadline,
    WasmBacktraceDetails,
};

// The limits of one call. The default policies need 30 microseconds, 1.2 MiB and 2 KiB.

/// How often the clock ticks that deadlines are counted in: fine enough to stop a spinning guest
/// soon, coarse enough to cost nothing.
pub const TICK: Duration = Duration::from_millis(5);
/// The time of one call with instantiation and `configure`: a customer waits for four of them.
pub const DEADLINE: Duration = Duration::from_millis(100);
/// What of it a call must have run to be ended: one that was kept from running on a busy machine is
/// not to blame.
const RUN: Duration = Duration::from_millis(50);
/// All linear memory of a guest: room for an interpreter (JavaScript, Python), not for hoarding.
pub const MEMORY_BYTES: usize = 64 << 20;
/// What a guest may hand back in one call, copied into the host: the largest template and four
/// Services, with air. A list may name the same bytes over and over, so the memory cap alone does
/// not bound it.
pub const OUTPUT_BYTES: usize = 512 << 10;
/// A guest's stack, on the thread that calls it: tokio's blocking threads have 2 MiB.
const STACK_BYTES: usize = 512 << 10;
/// Entries of a guest's tables: function pointers of a large interpreter.
const TABLE_ELEMENTS: usize = 20_000;
/// Tables of one component: adapters of composed components need a few.
const TABLES: u32 = 16;
/// Core instances of one component: an interpreter in parts has 38 (CPython), and one costs no
/// address space.
const INSTANCES: u32 = 64;
/// What tables begin with, in a whole component: each instance holds it in the host's memory, in 16
/// bytes each. CPython needs ten thousand.
const ELEMENTS: u32 = 40_000;
/// Calls at the same time. Each reserves address space (4 GiB a memory), none of it used before it
/// is touched.
const CALLS: u32 = 16;
/// Instances besides: components that are tried or loaded, and the shadow's, take no call's place.
const SPARE: u32 = 8;
/// Processes that may have ended while they compiled a component, before it is given up.
const ATTEMPTS: usize = 3;
/// Compiled components that are kept, in bytes: one is a few times as large as its component.
const CACHE_BYTES: u64 = 512 << 20;
/// A component file: a JavaScript engine fits, with air.
pub const COMPONENT_BYTES: usize = 32 << 20;

/// Frames of a trap that an author is shown.
const FRAMES: usize = 20;

/// What guests may use together, in bytes: a process with less would die of hostile ones, and all
/// orders with it.
#[must_use]
pub fn memory_at_once() -> usize {
    usize::try_from(CALLS.saturating_add(SPARE))
        .map_or(usize::MAX, |guests| guests.saturating_mul(MEMORY_BYTES))
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not run here: the processor, the address space or a limit of the system.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
    /// The cache's directory cannot be used.
    #[error(
        "the cache of compiled policies {path} cannot be used: {why}; give it a directory that only this user can read and write"
    )]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Says, in words, what of a rendered template the place where pods run does not allow.
pub type Guard = Box<dyn Fn(&Rendered, &Placement) -> Result<(), String> + Send + Sync>;

/// The engine with its clock and cache. One for the whole process.
pub struct PolicyEngine {
    pub(crate) engine: Engine,
    cache: Option<PathBuf>,
    pub(crate) calls: Arc<Semaphore>,
    metered: bool,
    guard: Option<Guard>,
}

impl PolicyEngine {
    /// Starts the engine. Compiled components are kept in `cache`, if one is given: a directory for
    /// this user alone, since whoever can write there decides what code this process runs.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn start(cache: Option<&Path>) -> Result<Arc<Self>, EngineError> {
        if let Some(path) = cache {
            private_directory(path)
                .map_err(|why| EngineError::Cache { path: path.to_owned(), why })?;
        }
        Self::build(&config(), cache, false)
    }

    /// One for who writes policies: it counts instructions, and traps name the lines of the source
    /// where the component brings debug information. The limits are the same; it is slower.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn with_fuel() -> Result<Arc<Self>, EngineError> {
        let mut config = config();
        let frames = NonZeroUsize::new(FRAMES);
        config
            .consume_fuel(true)
            .wasm_backtrace_max_frames(frames)
            .wasm_backtrace_details(WasmBacktraceDetails::Enable);
        Self::build(&config, None, true)
    }

    /// One whose components render nothing that this guard does not allow: to do so is a fault,
    /// also when one is tried.
    #[must_use]
    pub fn guarded(&self, guard: Guard) -> Arc<Self> {
        let Self { engine, cache, calls, metered, guard: _ } = self;
        let (engine, cache, calls) = (engine.clone(), cache.clone(), Arc::clone(calls));
        Arc::new(Self { engine, cache, calls, metered: *metered, guard: Some(guard) })
    }

    /// Whether a template may be.
    pub(crate) fn allows(
        &self,
        rendered: &Rendered,
        placement: &Placement,
    ) -> Result<(), FaultKind> {
        self.guard
            .as_ref()
            .map_or(Ok(()), |guard| guard(rendered, placement))
            .map_err(FaultKind::Template)
    }

    fn build(
        config: &Config,
        cache: Option<&Path>,
        metered: bool,
    ) -> Result<Arc<Self>, EngineError> {
        let engine =
            Engine::new(config).map_err(|error| EngineError::Engine(format!("{error:#}")))?;
        let weak = engine.weak();
        let clock = std::thread::Builder::new().name("policy-clock".to_owned()).spawn(move || {
            let mut next = Instant::now();
            // Ends with the engine.
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                // On time, so that late ticks do not add up; but what was missed is not made up
                // for, at the cost of the calls.
                let now = Instant::now();
                let late = now.checked_add(TICK).unwrap_or(now);
                next = next.checked_add(TICK).filter(|next| *next > now).unwrap_or(late);
                std::thread::sleep(next.saturating_duration_since(now));
            }
        });
        clock.map_err(|error| EngineError::Engine(error.to_string()))?;
        let calls = usize::try_from(CALLS).unwrap_or(1);
        Ok(Arc::new(Self {
            engine,
            cache: cache.map(Path::to_owned),
            calls: Arc::new(Semaphore::new(calls)),
            metered,
            guard: None,
        }))
    }

    /// A store for one call on this thread.
    pub(crate) fn store(&self) -> Store<Limits> {
        let mut store = Store::new(&self.engine, Limits::default());
        store.limiter(|limits| limits);
        let begun = thread_time();
        let ticks = DEADLINE.as_millis().div_ceil(TICK.as_millis().max(1));
        // One more: the first tick may come at once.
        store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(1).saturating_add(1));
        store.epoch_deadline_callback(move |_| {
            let over = thread_time().saturating_sub(begun) >= RUN;
            Ok(if over { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        store.set_hostcall_fuel(OUTPUT_BYTES);
        if self.metered {
            // Counted, not bounded: the deadline does that.
            let _ = store.set_fuel(u64::MAX);
        }
        store
    }

    /// The instructions that a store's call took; 0 unless they are counted.
    pub(crate) fn fuel(&self, store: &Store<Limits>) -> u64 {
        if self.metered {
            store.get_fuel().map_or(0, |left| u64::MAX.saturating_sub(left))
        } else {
            0
        }
    }

    /// Compiles a component, or takes it from the cache.
    pub(crate) fn compile(&self, bytes: &[u8], digest: &str) -> Result<Component, String> {
        let Some(cache) = &self.cache else { return self.parse(bytes) };
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        let path = cache.join(format!("{digest}-{:016x}.cwasm", hasher.finish()));
        if let Some(component) = self.cached(&path) {
            return Ok(component);
        }
        let component = attempt(&cache.join(format!("{digest}.trying")), || self.parse(bytes))?;
        if let Err(error) =
            component.serialize().map_err(|error| error.to_string()).and_then(|code| {
                write_privately(&path, &[&code, &Sha256::digest(&code)])
                    .map_err(|error| error.to_string())
            })
        {
            tracing::warn!(error, path = %path.display(), "a compiled policy could not be cached");
        }
        tidy(cache, &path);
        Ok(component)
    }

    /// Compiles a component.
    pub(crate) fn parse(&self, bytes: &[u8]) -> Result<Component, String> {
        check_elements(bytes)?;
        Component::from_binary(&self.engine, bytes)
            .map_err(|error| plain(&format!("{error:#}"), 500))
    }

    fn cached(&self, path: &Path) -> Option<Component> {
        let code = std::fs::read(path).ok()?;
        // The file ends with a digest of itself: a torn write is not run.
        let (code, seal) = code.split_at_checked(code.len().checked_sub(SEAL_BYTES)?)?;
        if Sha256::digest(code).as_slice() != seal {
            return None;
        }
        // SAFETY: only code that `Component::serialize` made may come here. The directory belongs
        // to this user and nobody else can write there (checked at start), and the seal rules out a
        // file that was cut short.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize(&self.engine, code) };
        // Used just now: others are removed first. Best effort.
        let _ = std::fs::File::options()
            .append(true)
            .open(path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        component.ok()
    }
}

/// Tables may begin with so much, and not with what would fill the host's memory.
fn check_elements(component: &[u8]) -> Result<(), String> {
    let told = |error: wasmparser::BinaryReaderError| plain(&error.to_string(), 500);
    let mut elements = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let Payload::ElementSection(section) = payload.map_err(told)? else { continue };
        for element in section {
            elements = elements.saturating_add(match element.map_err(told)?.items {
                ElementItems::Functions(items) => items.count(),
                ElementItems::Expressions(_, items) => items.count(),
            });
        }
    }
    if elements > ELEMENTS {
        Err(format!("its tables begin with {elements} elements, and may with {ELEMENTS}"))
    } else {
        Ok(())
    }
}

/// Does what may be the end of this process, for want of memory for instance, and remembers that it
/// was begun: a service that is started again must not die of the same component for ever.
fn attempt<T>(mark: &Path, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let before = std::fs::read(mark).map_or(0, |marks| marks.len());
    if before >= ATTEMPTS {
        return Err(format!(
            "the service ended {before} times while it compiled it; remove {} to have it tried again",
            mark.display()
        ));
    }
    let begun = std::fs::File::options()
        .create(true)
        .append(true)
        .open(mark)
        .and_then(|mut file| file.write_all(b"."));
    if let Err(error) = begun {
        tracing::warn!(%error, path = %mark.display(), "it is not remembered that a policy is being compiled");
    }
    let done = work();
    // What is gone already is gone.
    let _ = std::fs::remove_file(mark);
    done
}

/// The time that this thread has run.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Removes what was not used for longest, until the rest is small enough. Best effort: the next
/// time comes.
fn tidy(cache: &Path, but: &Path) {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let mut compiled: Vec<(SystemTime, u64, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .filter_map(|path| {
            std::fs::metadata(&path)
                .ok()
                .and_then(|file| Some((file.modified().ok()?, file.len(), path)))
        })
        .collect();
    compiled.sort();
    let mut bytes = compiled.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
    for (_, size, path) in compiled {
        if bytes <= CACHE_BYTES {
            return;
        }
        if path != but && std::fs::remove_file(&path).is_ok() {
            bytes = bytes.saturating_sub(size);
        }
    }
}

const SEAL_BYTES: usize = 32;

fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let at_once = CALLS.saturating_add(SPARE);
    pool.total_component_instances(at_once)
        .total_core_instances(at_once.saturating_mul(INSTANCES))
        .total_memories(at_once.saturating_mul(2))
        .total_tables(at_once.saturating_mul(TABLES))
        .max_core_instances_per_component(INSTANCES)
        .max_memories_per_component(2)
        .max_tables_per_component(TABLES)
        .max_memory_size(MEMORY_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(1 << 16);
    let mut config = Config::new();
    config
        .allocation_strategy(pool)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // The same input gives the same decision, on every processor.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false);
    config
}

/// Bounds memory and tables; exceeding the memory is an error of its own, so that it can be told
/// from a panic.
#[derive(Default)]
pub(crate) struct Limits {
    /// What all memories of this call have.
    pub(crate) memory_bytes: usize,
}

/// A guest asked for more memory than [`MEMORY_BYTES`].
#[derive(Debug, thiserror::Error)]
#[error("asked for {0} bytes of memory, may have {MEMORY_BYTES}")]
pub(crate) struct MemoryCap(usize);

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if bytes > MEMORY_BYTES {
            return Err(MemoryCap(bytes).into());
        }
        self.memory_bytes = bytes;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }
}
