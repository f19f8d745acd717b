//! `cargo xtask faults`: many seeded runs with faults injected everywhere, on several processes.

use crate::compiler::Compiler;
use crate::run::{ALL, remove_directory, root, step, target, test_programs};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs wait more than they work: more of them than there are cores.
const PROCESSES: u64 = 6;
/// Tokens that are locked to the service.
const LOCKS: &str = "tokens_that_are_locked_to_the_service_are_received";
/// Starting a Nutshell mint.
const TIMEOUT: Duration = Duration::from_secs(60);

/// `runs` at cdk's mint, then `nutshell` at a Nutshell mint, from this seed on.
pub(crate) fn faults(compiler: Compiler, seed: u64, runs: u64, nutshell: u64) -> Result<()> {
    crate::plugins::build()?;
    let program = program(compiler)?;
    seeded(&program, seed, runs)?;
    if nutshell > 0 {
        let mint = Nutshell::start()?;
        step("locked tokens at a Nutshell mint", mint.used_by(&mut tests(&program, LOCKS)))?;
        let mut command = run(&program, seed, nutshell);
        step(&format!("{nutshell} runs at a Nutshell mint"), mint.used_by(&mut command))?;
    }
    Ok(())
}

/// Runs in several processes, and what they met, together.
fn seeded(program: &PathBuf, seed: u64, runs: u64) -> Result<()> {
    let each = runs.div_ceil(PROCESSES);
    let begun = Instant::now();
    println!("── {runs} runs at cdk's mint");
    let logs = target().join("faults");
    std::fs::create_dir_all(&logs)?;
    let mut processes = Vec::new();
    for n in 0..PROCESSES {
        let done = n.saturating_mul(each).min(runs);
        let (first, count) = (seed.saturating_add(done), each.min(runs.saturating_sub(done)));
        if count > 0 {
            let mut command = run(program, first, count);
            let log = logs.join(format!("{first}.log"));
            let file = File::create(&log)?;
            processes.push((command.stdout(file.try_clone()?).stderr(file).spawn()?, log));
        }
    }
    let (mut failed, mut met) = (Vec::new(), BTreeMap::<String, u64>::new());
    for (mut process, log) in processes {
        let ended = process.wait()?;
        let text = std::fs::read_to_string(&log)?;
        count(&text, &mut met);
        if !ended.success() || !text.contains("0 sats unaccounted for") {
            let panic = text.lines().skip_while(|line| !line.contains("panicked")).take(60);
            failed.push(panic.collect::<Vec<_>>().join("\n"));
        }
    }
    for (fault, times) in &met {
        println!("   {fault}: {times}");
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    println!("── {runs} runs: 0 sats unaccounted for, in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Adds the faults that a run's log lists, as `  fault: times`.
fn count(log: &str, met: &mut BTreeMap<String, u64>) {
    let lines = log.lines().filter_map(|line| line.strip_prefix("  ")?.rsplit_once(": "));
    for (fault, times) in lines {
        let sum = met.entry(fault.to_owned()).or_default();
        *sum = sum.saturating_add(times.parse().unwrap_or(0));
    }
}

/// The test program, built.
fn program(compiler: Compiler) -> Result<PathBuf> {
    let mut build = compiler.cargo(&["test", "--no-run", "--quiet"])?;
    step("build the fault tests", build.args(ALL).args(["--test", "faults"]))?;
    let ours = test_programs(&mut build)?.into_iter().find(|program| program.name == "faults");
    Ok(ours.context("cargo does not say where the test program is")?.path)
}

/// Those of the program's tests that have this name.
fn tests(program: &PathBuf, name: &str) -> Command {
    let mut command = Command::new(program);
    command.args([name, "--nocapture"]).current_dir(root().join("host/cli"));
    command
}

fn run(program: &PathBuf, first: u64, runs: u64) -> Command {
    let mut command = tests(program, "no_sat_is_lost_and_none_is_spent_twice");
    command.env("FAULT_SEED", first.to_string()).env("FAULT_RUNS", runs.to_string());
    command
}

/// The tests' own.
const SETTINGS: &str = include_str!("../../host/cli/tests/support/nutshell.env");

/// A Nutshell mint of the tests' Python.
struct Nutshell {
    child: Child,
    url: String,
    database: PathBuf,
}

impl Nutshell {
    /// The same command, at this mint.
    fn used_by<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("FAULT_MINT", &self.url).env("FAULT_MINT_DATABASE", &self.database)
    }

    fn start() -> Result<Self> {
        crate::python::mint_and_relay()?;
        let directory = target().join("faults/nutshell");
        remove_directory(&directory)?;
        std::fs::create_dir_all(&directory)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(directory.join("log"))?;
        let database = directory.join("mint");
        let child = Command::new(target().join("venv/bin/mint"))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .current_dir(&directory)
            .envs(SETTINGS.lines().filter_map(|line| line.split_once('=')))
            .env("MINT_DATABASE", &database)
            .env("CASHU_DIR", directory.join("cashu"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the Nutshell mint cannot be started")?;
        let mint = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            database: database.join("mint.sqlite3"),
        };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > TIMEOUT {
                bail!("the Nutshell mint does not start; see {}", directory.join("log").display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(mint)
    }
}

impl Drop for Nutshell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
