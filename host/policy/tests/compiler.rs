//! What a process that compiles may do wrong costs the component that it compiles, and nothing else.
#![cfg(test)]

use paygress_core::backend::policy::Slot;
use paygress_policy::{
    CompileError, CompileLimits, Compiler, CompilerProcess, LoadError, PolicyDir, PolicyEngine,
    Publisher, RejectReason, Source, Sources, SwapError, Trigger,
};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// For a compilation: others are loaded and published meanwhile, by a debug build.
const TIME: Duration = Duration::from_secs(20);

fn built(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(path);
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
    })
}

fn pricing(name: &str) -> Sources {
    Sources::from([(Slot::Pricing, Source::plain(built(&format!("plugins-examples/{name}.wasm"))))])
}

/// A service whose default policies, and the flat price, are compiled already.
struct Fixture {
    directory: tempfile::TempDir,
    publisher: Publisher,
}

impl Fixture {
    fn new(program: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policies = directory.path().join("policies");
        fs::create_dir(&policies).unwrap();
        for slot in Slot::ALL {
            let component = built(&format!("plugins/{slot}.wasm"));
            fs::write(policies.join(format!("{slot}.wasm")), component).unwrap();
        }
        let engine = PolicyEngine::start(Some(&directory.path().join("compiled"))).unwrap();
        let open = |engine: &Arc<PolicyEngine>| {
            let directory_of_files = PolicyDir::new(policies.clone(), BTreeMap::new());
            let state = directory.path().join("state");
            Publisher::open(Arc::clone(engine), &state, directory_of_files).unwrap()
        };
        let publisher = open(&engine);
        publisher.publish(&pricing("flat-price"), Trigger::Operator).unwrap();
        publisher.rollback(None).unwrap();
        drop(publisher);
        let limits = CompileLimits { time: TIME, ..CompileLimits::default() };
        let compiler = CompilerProcess::new(program.to_owned()).with_limits(limits);
        let publisher = open(&engine.with_compiler(Compiler::Child(compiler)));
        Self { directory, publisher }
    }

    /// What is in the cache besides compiled components.
    fn leftovers(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.directory.path().join("compiled")).unwrap();
        files
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().unwrap() != "cwasm")
            .collect()
    }

    fn refusal(&self) -> CompileError {
        refusal(self.publisher.publish(&pricing("surge-price"), Trigger::Operator))
    }
}

fn refusal<T: std::fmt::Debug>(published: Result<T, SwapError>) -> CompileError {
    match published {
        Err(SwapError::Rejected(errors)) => match &errors[0].reason {
            RejectReason::NotAComponent(error) => error.clone(),
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

type Expected = fn(&CompileError) -> bool;

/// Nothing is left of it, and others are published.
fn assert_refused(program: &Path, expected: Expected) {
    let fixture = Fixture::new(program);
    let error = fixture.refusal();
    assert!(expected(&error), "{}: {error:?}", program.display());
    assert_eq!(fixture.leftovers(), Vec::<PathBuf>::new());
    fixture.publisher.publish(&pricing("flat-price"), Trigger::Operator).unwrap();
}

/// One test: no other thread may start a process while a program is being written.
#[test]
fn a_process_that_hangs_dies_or_lies_is_refused_and_nothing_is_left() {
    let programs = tempfile::tempdir().unwrap();
    let program = |name: &str, lines: &str| {
        let path = programs.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    };
    let pid = programs.path().join("pid");
    let hangs = program("hangs", &format!("echo $$ > {}\nexec setsid sleep 1000", pid.display()));
    let killed = program("killed", "echo >> \"$0.starts\"; kill -9 $$");
    let aborts = program("aborts", "kill -6 $$");
    let lies = program("lies", "cat > /dev/null; echo compiled");
    let fails = program("fails", "exit 7");
    let invalid = program("invalid", "printf '\\033[2Jnot valid'; exit 3");

    let fixture = Fixture::new(&hangs);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| fixture.refusal());
        let is_running = || fs::read_to_string(&pid).is_ok_and(|pid| !pid.is_empty());
        while !is_running() && !slow.is_finished() {
            std::thread::yield_now();
        }
        // Meanwhile others publish, and read what is active.
        fixture.publisher.publish(&pricing("flat-price"), Trigger::Operator).unwrap();
        assert!(!slow.is_finished(), "it still compiles");
        assert_eq!(slow.join().unwrap(), CompileError::TimedOut { seconds: TIME.as_secs() });
    });
    let pid = fs::read_to_string(&pid).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "it was killed and reaped");
    assert_eq!(fixture.leftovers(), Vec::<PathBuf>::new());

    let cases: [(PathBuf, Expected); 6] = [
        (killed, |error| matches!(error, CompileError::Killed)),
        (aborts, |error| matches!(error, CompileError::OutOfMemory { .. })),
        (lies, |error| matches!(error, CompileError::Failed(_))),
        (fails, |error| matches!(error, CompileError::Failed(reason) if reason.contains('7'))),
        (
            invalid,
            |error| matches!(error, CompileError::Invalid(reason) if reason.ends_with("not valid") && !reason.contains('\u{1b}')),
        ),
        (programs.path().join("none"), |error| matches!(error, CompileError::Failed(_))),
    ];
    for (program, expected) in cases {
        assert_refused(&program, expected);
    }
    assert_eq!(fs::read(programs.path().join("killed.starts")).unwrap().len(), 3);
}

/// Whose machine had no memory for a while is not refused the same component later.
#[test]
fn a_kill_from_outside_does_not_refuse_the_component_for_good() {
    let rejected = |error: CompileError| {
        let reason = RejectReason::NotAComponent(error);
        SwapError::Rejected(vec![LoadError { slot: Slot::Pricing, reason }]).is_final()
    };
    assert!(!rejected(CompileError::Killed));
    assert!(rejected(CompileError::OutOfMemory { mebibytes: 1 }));
}
