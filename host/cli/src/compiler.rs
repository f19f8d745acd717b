//! Where this program compiles policies. Set by `main`: programs that have the service in
//! themselves, as tests do, cannot be started again to compile.

use clap::Args;
use paygress_policy::{CompileLimits, Compiler, CompilerProcess, Metering, compile_stdin};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

static COMPILER: OnceLock<Compiler> = OnceLock::new();

/// Arguments of the hidden command that compiles one component.
#[derive(Args)]
pub struct CompilerArguments {
    /// Processor time.
    #[arg(long)]
    cpu_seconds: u64,
    /// Memory.
    #[arg(long)]
    memory_bytes: u64,
    /// Count instructions.
    #[arg(long)]
    fuel: bool,
}

/// Compiles the component on standard input, for a parent that reads the code.
#[must_use]
pub fn run(arguments: &CompilerArguments) -> ExitCode {
    let limits = CompileLimits {
        cpu_time: Duration::from_secs(arguments.cpu_seconds),
        memory_bytes: arguments.memory_bytes,
        ..CompileLimits::default()
    };
    compile_stdin(limits, if arguments.fuel { Metering::Fuel } else { Metering::Off })
}

/// Compiles in child processes from now on. Only for a program that runs [`run`] for the hidden
/// command.
pub fn use_this_program() {
    // A second time changes nothing.
    let _ = COMPILER.set(Compiler::Child(CompilerProcess::this_program()));
}

/// Where policies are compiled.
pub(crate) fn compiler() -> Compiler {
    COMPILER.get().cloned().unwrap_or_default()
}
