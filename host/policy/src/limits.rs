//! Every limit of a call into a component, each with its reason, and the limiter that enforces the
//! memory and table limits. The default policies need 30 microseconds, 1.2 MiB and 2 KiB per call.

use std::time::Duration;
use wasmtime::ResourceLimiter;

/// How often the epoch that deadlines are counted in advances: often enough to stop a spinning
/// guest soon, rarely enough to cost nothing.
pub const TICK: Duration = Duration::from_millis(5);
/// Wall-clock time of one call, including instantiation and `configure`: a customer waits for four
/// calls.
pub const DEADLINE: Duration = Duration::from_millis(100);
/// Time that a call may have on a thread that other work waits for. Another thread costs more than most
/// calls take.
pub(crate) const SHORT_DEADLINE: Duration = Duration::from_millis(10);
/// A call that took so long on another thread does without one the next time.
pub(crate) const QUICK: Duration = Duration::from_millis(1);
/// CPU time that a call must have used before the deadline ends it: a call that a busy machine did
/// not schedule is not at fault.
pub(crate) const CPU_TIME: Duration = Duration::from_millis(50);
/// Linear memory of one guest: enough for an interpreter (JavaScript, Python), not for hoarding.
pub const MEMORY_BYTES: usize = 64 << 20;
/// Output of one call, copied into the host: the largest template and four Services, with room to
/// spare. A list may repeat the same bytes, so the memory limit alone does not bound it.
pub const OUTPUT_BYTES: usize = 512 << 10;
/// A guest's stack, on the calling thread: tokio's blocking threads have 2 MiB.
pub(crate) const STACK_BYTES: usize = 512 << 10;
/// Elements of one table: the function pointers of a large interpreter.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;
/// Tables of one component: adapters of composed components need a few.
pub(crate) const TABLES: u32 = 16;
/// Core instances of one component: an interpreter built in parts has 38 (CPython), and an instance
/// costs no address space.
pub(crate) const INSTANCES: u32 = 64;
/// Initial table elements of a whole component: each instance holds them in the host's memory, 16
/// bytes each. CPython needs ten thousand.
pub(crate) const INITIAL_ELEMENTS: u32 = 40_000;
/// Concurrent calls. Each reserves address space (4 GiB per memory) that is not used until it is
/// touched.
pub(crate) const CALLS: u32 = 16;
/// Instances beyond [`CALLS`]: loading, testing and shadowing components do not take the place of a
/// call.
pub(crate) const SPARE_INSTANCES: u32 = 8;
/// Instances in an engine that instructions are counted of: one call at a time, and one to spare.
pub(crate) const COUNTED_INSTANCES: u32 = 2;
/// Memory of an instance that stays with the process for the next one, where the kernel does not
/// tell what has been written to: the first bytes, which are copied anew after each call.
pub(crate) const RESIDENT_BYTES: usize = 1 << 20;
/// The same where it tells: pages that calls have written to. Pages beyond these, and beyond 32
/// places, go back to the kernel, and each costs the next call a fault. An interpreter writes to
/// some hundred.
pub(crate) const WRITTEN_BYTES: usize = 4 << 20;
/// Initial memory that is mapped copy-on-write, however little of it is not zero; what extends over
/// more, and is less than half full, is copied for each call. The image of an interpreter extends
/// over 8 to 12 MiB before it is configured.
pub(crate) const IMAGE_BYTES: u64 = 32 << 20;
/// Size of a component: a JavaScript engine fits, with room to spare.
pub const COMPONENT_BYTES: usize = 32 << 20;
/// Size of the settings, as the contract specifies it.
pub(crate) const SETTINGS_BYTES: usize = 65_536;
/// Settings problems that are reported: more than anybody reads at once.
pub(crate) const SETTINGS_PROBLEMS: usize = 64;
/// Size of a snapshot: it is compiled like a component.
pub(crate) const SNAPSHOT_BYTES: usize = COMPONENT_BYTES;
/// Runs of bytes in one memory that are not zero: each costs the host 24 bytes while a snapshot is
/// made. An interpreter has a few million.
pub(crate) const SNAPSHOT_RUNS: usize = 4 << 20;
/// The way in which snapshots are made. To be raised when it changes: those that are cached are then
/// made again.
pub(crate) const SNAPSHOT_FORMAT: u32 = 2;
/// Wall-clock time of one compilation: the largest interpreters need two minutes of a debug build on
/// a busy machine.
pub(crate) const COMPILE_TIME: Duration = Duration::from_secs(600);
/// CPU time of one compilation, of all its threads.
pub(crate) const COMPILE_CPU_TIME: Duration = Duration::from_secs(600);
/// Memory that a compilation writes to: an interpreter of 10 MB needs 450 MiB on two processors. It has
/// to fit beside the service.
pub(crate) const COMPILE_MEMORY_BYTES: u64 = 1536 << 20;
/// Size of compiled code: a few times that of the largest component.
pub(crate) const COMPILED_BYTES: u64 = 256 << 20;
/// How often the process that compiles a component is killed from outside before that is an error.
/// A machine whose memory ran out for a moment has some again by then.
pub(crate) const COMPILE_KILLS: usize = 3;
/// The first pause after such a kill, and the longest: they double.
pub(crate) const COMPILE_KILL_PAUSE: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(4));
/// Crashes during the compilation of one component, after which it is no longer compiled.
pub(crate) const COMPILE_ATTEMPTS: usize = 3;
/// Size of the compiled-component cache: a compiled component is a few times as large as its
/// source.
pub(crate) const CACHE_BYTES: u64 = 512 << 20;
/// Frames of a trap's backtrace, in an engine for authors.
pub(crate) const BACKTRACE_FRAMES: usize = 20;

/// Bytes that all guests together may use. A process with less memory could be killed by hostile
/// guests, and all orders with it.
#[must_use]
pub fn max_total_memory() -> usize {
    usize::try_from(CALLS.saturating_add(SPARE_INSTANCES))
        .map_or(usize::MAX, |guests| guests.saturating_mul(MEMORY_BYTES))
}

/// Limits the memory and tables of one call.
#[derive(Default)]
pub(crate) struct CallLimiter {
    /// Size of all memories of this call.
    pub(crate) memory_bytes: usize,
}

/// A guest requested more than [`MEMORY_BYTES`]. An error of its own, to tell it from a panic.
#[derive(Debug, thiserror::Error)]
#[error("requested {0} bytes of memory; the limit is {MEMORY_BYTES}")]
pub(crate) struct MemoryLimitExceeded(usize);

impl ResourceLimiter for CallLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if bytes > MEMORY_BYTES {
            return Err(MemoryLimitExceeded(bytes).into());
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
