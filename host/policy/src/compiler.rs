//! Compiling in a process of its own, with limits.
//!
//! ```text
//! component ─▶ standard input ─▶ PROGRAM policy-compiler … ─▶ standard output ─▶ compiled code
//!                                (no environment, no files, limits of time and memory)
//! ```
//!
//! The process is in a session of its own, and no process is left of it however it ends: it is
//! killed with its group, and ends with the thread that has started it.

use crate::cache::CompileError;
use crate::engine_config::Metering;
use crate::limits::{
    COMPILE_CPU_TIME, COMPILE_KILL_PAUSE, COMPILE_KILLS, COMPILE_MEMORY_BYTES, COMPILE_TIME,
    COMPILED_BYTES,
};
use paygress_core::backoff::doubling;
use paygress_core::sanitize::plain;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

/// The hidden command of a program that compiles one component.
pub const COMPILER_COMMAND: &str = "policy-compiler";
/// Its exit code when the component is not valid. Standard output has the reason.
pub(crate) const EXIT_INVALID: u8 = 3;
/// Its exit code when memory was refused, and it could end in order.
pub(crate) const EXIT_OUT_OF_MEMORY: u8 = 4;

/// Where components are compiled.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// On the thread that loads them, without limits: for tests and measurements.
    #[default]
    InProcess,
    /// In a child process for each.
    Child(CompilerProcess),
}

/// What compiling one component may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Wall-clock time.
    pub time: Duration,
    /// CPU time of all its threads, in whole seconds.
    pub cpu_time: Duration,
    /// Memory that it may write to.
    pub memory_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { time: COMPILE_TIME, cpu_time: COMPILE_CPU_TIME, memory_bytes: COMPILE_MEMORY_BYTES }
    }
}

/// A program that runs [`compile_stdin`](crate::compile_stdin) for [`COMPILER_COMMAND`].
#[derive(Clone, Debug)]
pub struct CompilerProcess {
    program: PathBuf,
    limits: CompileLimits,
}

/// What a process has printed.
enum Output {
    All(Vec<u8>),
    TooLarge,
}

/// A process that is killed, with its group, and reaped when this is dropped.
struct Running {
    child: Child,
    /// Then its id may be that of another process.
    is_reaped: bool,
}

impl Running {
    fn kill(&mut self) {
        // Its group is not there yet if it has just started.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.kill();
    }

    /// Ends it, if it has not ended by itself, and returns how it did.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.is_reaped {
            self.kill();
        }
        self.is_reaped = true;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl CompilerProcess {
    /// This very program, also once its file is that of another version.
    #[must_use]
    pub fn this_program() -> Self {
        Self::new("/proc/self/exe".into())
    }

    /// This program, of the same version as the engine.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, limits: CompileLimits::default() }
    }

    /// The same program with other limits.
    #[must_use]
    pub fn with_limits(self, limits: CompileLimits) -> Self {
        Self { limits, ..self }
    }

    /// The compiled component. Blocks. A process that is killed from outside, which is no fault of the
    /// component's, is started again after a pause.
    pub(crate) fn compile(
        &self,
        component: &[u8],
        metering: Metering,
    ) -> Result<Vec<u8>, CompileError> {
        let (first, longest) = COMPILE_KILL_PAUSE;
        for pause in doubling(first, longest).take(COMPILE_KILLS.saturating_sub(1)) {
            match self.compile_once(component, metering) {
                Err(CompileError::Killed) => {
                    tracing::warn!(?pause, "the process that compiles a policy was killed");
                    thread::sleep(pause);
                }
                done => return done,
            }
        }
        self.compile_once(component, metering)
    }

    fn compile_once(&self, component: &[u8], metering: Metering) -> Result<Vec<u8>, CompileError> {
        let failed = |error: io::Error| {
            CompileError::Failed(plain(&format!("its process does not run: {error}"), 500))
        };
        let child = self.spawn(metering).map_err(failed)?;
        let mut running = Running { child, is_reaped: false };
        let output = self.output(&mut running, component).map_err(failed)?;
        match output {
            None => Err(CompileError::TimedOut { seconds: self.limits.time.as_secs() }),
            Some(Output::TooLarge) => Err(CompileError::TooLarge),
            Some(Output::All(bytes)) => {
                let status = running.end().map_err(failed)?;
                if status.success() { Ok(bytes) } else { Err(self.error(status, &bytes)) }
            }
        }
    }

    fn spawn(&self, metering: Metering) -> io::Result<Child> {
        let CompileLimits { cpu_time, memory_bytes, .. } = self.limits;
        let mut command = Command::new(&self.program);
        command
            .arg0("paygress")
            .arg(COMPILER_COMMAND)
            .arg("--cpu-seconds")
            .arg(cpu_time.as_secs().max(1).to_string())
            .arg("--memory-bytes")
            .arg(memory_bytes.to_string());
        if metering == Metering::Fuel {
            command.arg("--fuel");
        }
        command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    }

    /// What the process prints before it ends; `None` if that takes too long.
    fn output(&self, running: &mut Running, component: &[u8]) -> io::Result<Option<Output>> {
        let pid = Pid::from_child(&running.child);
        let (stdin, stdout) = (running.child.stdin.take(), running.child.stdout.take());
        thread::scope(|scope| {
            let (sender, ended) = channel();
            let named = || thread::Builder::new().name("policy-compiler".to_owned());
            let output = named()
                .spawn_scoped(scope, move || write(stdin, component))
                .and_then(|_| named().spawn_scoped(scope, move || read(stdout, pid, &sender)))
                .map(|_| ended.recv_timeout(self.limits.time).ok());
            if !matches!(output, Ok(Some(Output::All(_)))) {
                // The threads end with it. It is reaped when it is dropped.
                running.kill();
            }
            output
        })
    }

    /// Why a process has failed.
    fn error(&self, status: ExitStatus, printed: &[u8]) -> CompileError {
        let is = |signal: Signal| status.signal() == Some(signal.as_raw());
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        // It aborts where its own limit refuses it memory.
        let is_out_of_memory = code == Some(EXIT_OUT_OF_MEMORY) || is(Signal::ABORT);
        if code == Some(EXIT_INVALID) {
            CompileError::Invalid(plain(&String::from_utf8_lossy(printed), 500))
        } else if is(Signal::XCPU) {
            CompileError::TooMuchTime { seconds: self.limits.cpu_time.as_secs() }
        } else if is_out_of_memory {
            CompileError::OutOfMemory { mebibytes: self.limits.memory_bytes >> 20 }
        } else if is(Signal::KILL) {
            // Not by this process, whose own kills are for lack of time and are known by that: by the
            // kernel where the machine or the container has no memory left, or by an operator.
            CompileError::Killed
        } else {
            CompileError::Failed(format!("its process ended: {status}"))
        }
    }
}

fn write(stdin: Option<ChildStdin>, component: &[u8]) {
    // A process that has ended does not read. Its status says why.
    let _ = stdin.map(|mut stdin| stdin.write_all(component));
}

/// Reads to the end, and waits for the process without reaping it.
fn read(stdout: Option<ChildStdout>, pid: Pid, ended: &Sender<Output>) {
    let mut bytes = Vec::new();
    // What was read of a process that failed is of no use, and its status says why.
    let _ =
        stdout.map(|stdout| stdout.take(COMPILED_BYTES.saturating_add(1)).read_to_end(&mut bytes));
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let output = if size > COMPILED_BYTES {
        Output::TooLarge
    } else {
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        Output::All(bytes)
    };
    // Nobody receives it if that took too long.
    let _ = ended.send(output);
}
