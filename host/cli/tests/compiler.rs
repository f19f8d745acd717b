//! The process in which the program compiles policies, with its limits.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use paygress_core::backend::policy::{Configured, SettingsDigests, Slot};
use paygress_core::backend::receipt::ReceiptSigner;
use paygress_core::model::units::UnixTime;
use paygress_core::protocol::{ReceiptKind, sorted};
use paygress_core::testing;
use paygress_nostr::{Keys, ServiceReceipts};
use paygress_policy::{
    COMPILER_COMMAND, CompileError, CompileLimits, Compiler, CompilerProcess, ComponentRef,
    Harness, PolicyEngine, RejectReason, Source, read_component, settings_digest,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAYGRESS: &str = env!("CARGO_BIN_EXE_paygress");

fn built(path: &str) -> Vec<u8> {
    read_component(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(path)).unwrap()
}

fn in_child(engine: &PolicyEngine, limits: CompileLimits) -> Arc<PolicyEngine> {
    let process = CompilerProcess::new(PAYGRESS.into()).with_limits(limits);
    engine.with_compiler(Compiler::Child(process))
}

fn load(engine: &Arc<PolicyEngine>, component: &[u8]) -> Result<Harness, RejectReason> {
    Harness::load(engine, Slot::Pricing, component, "{}")
}

fn refusal(engine: &Arc<PolicyEngine>, component: &[u8]) -> CompileError {
    match load(engine, component).map(drop) {
        Err(RejectReason::NotAComponent(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Appends a number as LEB128.
fn number(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

fn section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    number(bytes, content.len());
    bytes.extend_from_slice(content);
}

/// A component of one module with as many functions, each of which multiplies its parameter some
/// times.
fn large(functions: usize) -> Vec<u8> {
    let mut body = vec![0, 0x20, 0];
    for _ in 0..30 {
        // i32.const 3, i32.mul, local.tee 0
        body.extend_from_slice(&[0x41, 3, 0x6c, 0x22, 0]);
    }
    body.push(0x0b);
    let (mut types, mut code) = (Vec::new(), Vec::new());
    number(&mut types, functions);
    number(&mut code, functions);
    types.resize(types.len() + functions, 0);
    for _ in 0..functions {
        number(&mut code, body.len());
        code.extend_from_slice(&body);
    }
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // One type: from i32 to i32.
    section(&mut module, 1, &[1, 0x60, 1, 0x7f, 1, 0x7f]);
    section(&mut module, 3, &types);
    section(&mut module, 10, &code);
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    section(&mut component, 1, &module);
    component
}

fn files(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect()
}

#[test]
fn what_a_process_compiles_is_what_this_one_compiles() {
    let component = built("plugins/pricing.wasm");
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    for start in [PolicyEngine::start, PolicyEngine::with_fuel] {
        let engines = [
            start(Some(&here)).unwrap().with_snapshots(),
            in_child(&start(Some(&there)).unwrap().with_snapshots(), CompileLimits::default()),
        ];
        for engine in engines {
            assert_eq!(load(&engine, &component).unwrap().configured(), Configured::Snapshot);
        }
    }
    let names = |path| {
        let mut names: Vec<_> =
            files(path).iter().map(|file| file.file_name().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    // Of two engines, a component and a snapshot each; and no lock or mark.
    assert_eq!(names(&here).len(), 4);
    assert_eq!(names(&here), names(&there));
}

#[test]
fn errors_of_a_component_are_reported_as_by_this_process() {
    let engine = PolicyEngine::start(None).unwrap();
    let child = in_child(&engine, CompileLimits::default());
    let mut cut = built("plugins/pricing.wasm");
    cut.truncate(cut.len() / 2);
    for component in [cut, b"\0asm\x01\0\0\0".to_vec(), Vec::new()] {
        assert_eq!(refusal(&child, &component), refusal(&engine, &component));
    }
}

#[test]
fn a_component_that_takes_too_much_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("compiled");
    let engine = PolicyEngine::start(Some(&cache)).unwrap();
    let component = large(150_000);
    let defaults = CompileLimits::default();
    let refused = |limits| refusal(&in_child(&engine, limits), &component);
    let cpu_time = Duration::from_secs(1);
    assert_eq!(
        refused(CompileLimits { cpu_time, ..defaults }),
        CompileError::TooMuchTime { seconds: 1 }
    );
    let memory_bytes = 32 << 20;
    assert_eq!(
        refused(CompileLimits { memory_bytes, ..defaults }),
        CompileError::OutOfMemory { mebibytes: 32 }
    );
    let time = Duration::from_millis(200);
    assert_eq!(refused(CompileLimits { time, ..defaults }), CompileError::TimedOut { seconds: 0 });
    assert_eq!(files(&cache), Vec::<PathBuf>::new());
    // Nothing was the component's but its size.
    let small = refusal_of_contract(&in_child(&engine, defaults), &large(10));
    assert!(small.contains("does not export"), "{small}");
}

fn refusal_of_contract(engine: &Arc<PolicyEngine>, component: &[u8]) -> String {
    match load(engine, component).map(drop) {
        Err(RejectReason::ContractMismatch(reasons)) => reasons.join("; "),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_is_hidden_and_compiles_what_it_reads() {
    let help = Command::new(PAYGRESS).arg("--help").output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains(COMPILER_COMMAND));
    let compile = |memory: &str| {
        Command::new(PAYGRESS)
            .args([COMPILER_COMMAND, "--cpu-seconds", "60", "--memory-bytes", memory])
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let empty = compile("1073741824");
    assert_eq!(empty.status.code(), Some(3), "{empty:?}");
    assert!(!empty.stdout.is_empty());
}

/// The state of a process and its parent's id; `None` if it is gone.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have anything in it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn child_of(parent: u32) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| stat(*pid).is_some_and(|(_, ppid)| ppid == parent))
}

/// Waits until this gives something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process in which this command compiles, other than this one.
fn compiling(command: &mut Child, other_than: Option<u32>) -> u32 {
    until("it does not compile", || {
        let child = child_of(command.id()).filter(|child| Some(*child) != other_than);
        let is_running = child.is_some() || command.try_wait().unwrap().is_none();
        assert!(is_running, "it has compiled in itself, or was not started again");
        child
    })
}

/// A command that compiles for long, with what it stores.
fn check_large(directory: &Path) -> Child {
    let component = directory.join("large.wasm");
    std::fs::write(&component, large(150_000)).unwrap();
    Command::new(PAYGRESS)
        .args(["policy", "check", "pricing"])
        .arg(&component)
        .env_clear()
        .env("XDG_CACHE_HOME", directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn it_ends_with_the_command_that_has_started_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = check_large(directory.path());
    let child = compiling(&mut command, None);
    command.kill().unwrap();
    command.wait().unwrap();
    // Whoever inherits it may leave it a zombie.
    until("it goes on", || stat(child).is_none_or(|(state, _)| state == 'Z').then_some(()));
}

/// The kernel takes it before the service, and it may be killed by others: it is started again.
#[test]
fn it_is_the_first_that_the_kernel_kills_and_is_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = check_large(directory.path());
    let first = compiling(&mut command, None);
    let score = || std::fs::read_to_string(format!("/proc/{first}/oom_score_adj")).unwrap();
    until("its score stays", || (score().trim() == "1000").then_some(()));
    let limits = || std::fs::read_to_string(format!("/proc/{first}/limits")).unwrap();
    let few = ["Max", "open", "files", "64", "64", "files"];
    until("it may open as many files as the service", || {
        limits().lines().any(|line| line.split_whitespace().eq(few)).then_some(())
    });
    let killed = Command::new("kill").args(["-9", &first.to_string()]).status().unwrap();
    assert!(killed.success());
    let second = compiling(&mut command, Some(first));
    assert!(stat(second).is_some());
    command.kill().unwrap();
    command.wait().unwrap();
}

/// A receipt of what this component has admitted.
fn receipt(images: &Source) -> String {
    let mut agreement = testing::agreement();
    let of_settings = settings_digest(&images.settings);
    let digests = &mut agreement.decision.digests;
    digests.images = ComponentRef::of(images).digest;
    digests.settings = Some(SettingsDigests { images: of_settings, ..SettingsDigests::default() });
    let orders = vec![testing::receipt_order(agreement)];
    let content = testing::receipt(ReceiptKind::Access, "ssh-pod-a", orders);
    let signer = ServiceReceipts::new(Keys::generate());
    sorted(&signer.sign(sorted(&content).to_string(), UnixTime(7)).unwrap()).to_string()
}

#[test]
fn a_receipt_is_recomputed_in_a_process_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let images = Source::plain(large(150_000));
    std::fs::write(directory.path().join("images.wasm"), &images.component).unwrap();
    let file = directory.path().join("receipt.json");
    std::fs::write(&file, receipt(&images)).unwrap();
    let mut command = Command::new(PAYGRESS)
        .args(["receipt", "verify"])
        .arg(&file)
        .arg("--components")
        .arg(directory.path())
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    compiling(&mut command, None);
    command.kill().unwrap();
    command.wait().unwrap();
}
