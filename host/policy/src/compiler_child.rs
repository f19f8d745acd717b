//! The process that compiles: its limits, which it sets before it reads anything, and its work.

use crate::compiler::{CompileLimits, EXIT_INVALID, EXIT_OUT_OF_MEMORY};
use crate::engine_config::{Metering, compiler_config};
use crate::limits::COMPONENT_BYTES;
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit, setsid,
};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use wasmtime::{Engine, OutOfMemory};

/// The largest component, and what its snapshot is made of: it has some more exports.
const INPUT_BYTES: usize = COMPONENT_BYTES * 2;

/// Beside standard input and output it has hardly any.
const OPEN_FILES: u64 = 64;

/// Compiles the component on standard input, within these limits, and prints the code. Only for a
/// process that does nothing else: it stays limited.
#[must_use]
pub fn compile_stdin(limits: CompileLimits, metering: Metering) -> ExitCode {
    if confine(limits).is_err() {
        return ExitCode::FAILURE;
    }
    let (code, output) = match compile(metering) {
        Ok(code) => (ExitCode::SUCCESS, code),
        Err(error) if error.chain().any(|cause| cause.is::<OutOfMemory>() || is_refused(cause)) => {
            (EXIT_OUT_OF_MEMORY.into(), Vec::new())
        }
        Err(error) => (EXIT_INVALID.into(), format!("{error:#}").into_bytes()),
    };
    match print(&output) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn is_refused(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
}

fn print(output: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(output)?;
    stdout.flush()
}

fn compile(metering: Metering) -> wasmtime::Result<Vec<u8>> {
    let mut component = Vec::new();
    let limit = u64::try_from(INPUT_BYTES).unwrap_or(u64::MAX);
    io::stdin().lock().take(limit).read_to_end(&mut component)?;
    Engine::new(&compiler_config(metering))?.precompile_component(&component)
}

/// A session of its own, an end with the thread that has started it, and limits that nothing can
/// raise.
fn confine(limits: CompileLimits) -> io::Result<()> {
    // It may lead a group already, if a shell has started it.
    let _ = setsid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Where a machine has no more memory, this process ends and not the service. Best effort.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let limit = |resource: Resource, value: u64| {
        let value = getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    limit(Resource::Core, 0)?;
    // It writes no file.
    limit(Resource::Fsize, 0)?;
    // The service's own limit is for its connections.
    limit(Resource::Nofile, OPEN_FILES)?;
    // Not the address space: an allocator reserves more of it than it ever uses.
    limit(Resource::Data, limits.memory_bytes)?;
    // SIGKILL at the hard limit, and before that SIGXCPU, by which the parent knows the reason.
    let seconds = limits.cpu_time.as_secs();
    limit(Resource::Cpu, seconds.saturating_add(5))?;
    let maximum = getrlimit(Resource::Cpu).maximum;
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum })?;
    Ok(())
}
