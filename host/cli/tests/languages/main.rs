//! Builds a project in every language for every slot, and the examples in languages other than
//! Rust; checks the components and runs their suites. One project goes on to a service, as
//! docs/writing-policies.md says. The languages must be installed: `cargo xtask test` installs them.
#![cfg(test)]

#[path = "../../../policy/tests/support/both_ways.rs"]
mod both_ways;
mod first_policy;
#[path = "../support/mod.rs"]
mod support;

use both_ways::BothWays;
use paygress_core::backend::policy::{Configured, Slot};
use paygress_policy_tools::Language;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::tempdir;

/// A directory that is reused by later builds.
fn cache(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("author").join(name)
}

fn run(what: &str, command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        output.status.success(),
        "{what}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The program, for the build scripts and the checks.
const PAYGRESS: &str = env!("CARGO_BIN_EXE_paygress");

/// One installation for all projects: they share a package-lock.json.
fn node_modules(project: &Path) -> PathBuf {
    static MODULES: OnceLock<PathBuf> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let directory = cache("npm");
        fs::create_dir_all(&directory).unwrap();
        let same =
            |file: &str| fs::read(directory.join(file)).ok() == fs::read(project.join(file)).ok();
        if !directory.join("node_modules").exists() || !same("package-lock.json") {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(project.join(file), directory.join(file)).unwrap();
            }
            run(
                "npm ci",
                Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&directory),
            );
        }
        directory.join("node_modules")
    });
    modules.clone()
}

/// One virtual environment for all projects: they share a requirements.txt. The build script of a
/// project would make it, and two at once would make half of it each.
fn venv(project: &Path) -> PathBuf {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    let venv = VENV.get_or_init(|| {
        let directory = cache("venv");
        run("python3 -m venv", Command::new("python3").args(["-m", "venv"]).arg(&directory));
        let mut install = Command::new(directory.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
        run("pip install", install.arg("--requirement").arg(project.join("requirements.txt")));
        directory
    });
    venv.clone()
}

/// Builds the project, and tests the component.
fn build(project: &Path, language: Language, slot: Slot) {
    let what = format!("{} ({language}, {slot})", project.display());
    if language == Language::JavaScript {
        std::os::unix::fs::symlink(node_modules(project), project.join("node_modules")).unwrap();
    }
    let mut command = Command::new("sh");
    command.arg("build.sh").current_dir(project).env("PAYGRESS", PAYGRESS);
    command.env("CARGO_TARGET_DIR", cache("cargo"));
    if language == Language::Python {
        command.env("POLICY_VENV", venv(project));
    }
    run(&what, &mut command);
    if language == Language::Rust {
        let mut test = Command::new("cargo");
        test.args(["test", "--quiet"]).current_dir(project).env("CARGO_TARGET_DIR", cache("cargo"));
        run(&what, &mut test);
    }
    assert!(!project.join("policy.wasm.part").exists(), "{what}");
    let mut check = Command::new(PAYGRESS);
    check.args(["policy", "check", slot.as_str(), "policy.wasm"]).current_dir(project);
    if project.join("settings.json").exists() {
        check.args(["--settings", "settings.json"]);
    }
    run(&what, &mut check);
    if project.join("order.json").exists() {
        call_again(&what, project, slot);
    }
    run(&what, Command::new(PAYGRESS).args(["policy", "test", "suite.yaml"]).current_dir(project));
}

/// The commands that an author of a new project runs again and again.
fn call_again(what: &str, project: &Path, slot: Slot) {
    run_again(what, project, &["eval", slot.as_str(), "policy.wasm", "order.json"]);
    run_again(what, project, &["test", "suite.yaml"]);
    // Its first call compiles three times, so only one slot of a language has it. Few calls: what is
    // timed is the way to them.
    if slot == Slot::Pricing {
        run_again(what, project, &["bench", slot.as_str(), "policy.wasm", "--calls", "10"]);
    }
}

/// From the second time on what is compiled is in the cache. The processor's time is measured, since these
/// tests have the lowest priority on a busy machine; where two threads share a core it is more.
fn run_again(what: &str, project: &Path, arguments: &[&str]) {
    const SECOND: Duration = Duration::from_secs(1);
    const TRIES: usize = 10;
    let timed = || {
        let mut command = Command::new(PAYGRESS);
        processor_time(what, command.arg("policy").args(arguments).current_dir(project))
    };
    timed();
    let mut took: Vec<Duration> = Vec::new();
    while took.last().is_none_or(|last| *last >= SECOND) {
        assert!(took.len() < TRIES, "{what}, {arguments:?}: all but the first took long: {took:?}");
        took.push(timed());
    }
}

/// Runs it; the time that the processors worked for it.
fn processor_time(what: &str, command: &mut Command) -> Duration {
    /// In which Linux counts it for programs.
    const TICK: Duration = Duration::from_millis(10);
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = || log.reopen().unwrap();
    let mut child = command.stdout(output()).stderr(output()).spawn().unwrap();
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(&child)), ended).unwrap();
    // It is there until the child is waited for.
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let user_and_system = fields.split_whitespace().skip(11).take(2);
    let ticks: u32 = user_and_system.map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    let status = child.wait().unwrap();
    assert!(status.success(), "{what}: {}", fs::read_to_string(log.path()).unwrap());
    TICK.saturating_mul(ticks)
}

/// The same in every language.
fn assert_schema(project: &Path, language: Language, slot: Slot) {
    let output = Command::new(PAYGRESS)
        .args(["policy", "schema", slot.as_str(), "policy.wasm"])
        .current_dir(project)
        .output()
        .unwrap();
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schemas");
    let expected = fs::read(schemas.join(format!("{slot}.json"))).unwrap();
    let [found, expected]: [serde_json::Value; 2] =
        [&output.stdout, &expected].map(|json| serde_json::from_slice(json).unwrap());
    assert_eq!(found, expected, "{language}, {slot}");
}

fn builds(language: Language) {
    for slot in Slot::ALL {
        let directory = tempdir().unwrap();
        let project = directory.path().join(format!("my-{slot}"));
        let mut new = Command::new(PAYGRESS);
        run(
            "policy new",
            new.args(["policy", "new", "--lang", language.as_str(), slot.as_str()]).arg(&project),
        );
        build(&project, language, slot);
        if language != Language::Rust {
            assert_schema(&project, language, slot);
        }
    }
}

#[test]
#[ignore = "needs Rust's target wasm32-unknown-unknown"]
fn builds_rust() {
    builds(Language::Rust);
}

#[test]
#[ignore = "needs Node.js"]
fn builds_js() {
    builds(Language::JavaScript);
}

#[test]
#[ignore = "needs Python"]
fn builds_python() {
    builds(Language::Python);
}

#[test]
#[ignore = "needs Go"]
fn builds_go() {
    builds(Language::Go);
}

#[test]
#[ignore = "needs clang and lld"]
fn builds_c() {
    builds(Language::C);
}

/// Copies a project's sources, and the targets of its symbolic links.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        let made =
            ["node_modules", ".venv", "build", "policy.wasm"].iter().any(|made| name == *made);
        match fs::metadata(&path).unwrap().is_dir() {
            _ if made => {}
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// With its settings in each call, and from a snapshot, which each language's examples have.
fn decides_the_same_both_ways(name: &str, project: &Path, slot: Slot) {
    let ways = BothWays::start(Some(&project.join("compiled")));
    let component = fs::read(project.join("policy.wasm")).unwrap();
    let settings = fs::read_to_string(project.join("settings.json")).unwrap();
    let way = ways.assert_same(name, slot, &component, &settings);
    assert_eq!(way, Configured::Snapshot, "{name}");
}

#[test]
#[ignore = "needs all languages"]
fn builds_examples() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policies");
    for (name, language, slot) in [
        ("loyalty", Language::JavaScript, Slot::Pricing),
        ("npub-allowlist", Language::Python, Slot::Images),
        ("night-rate", Language::C, Slot::Pricing),
        ("bulk-bonus", Language::Go, Slot::Duration),
    ] {
        let directory = tempdir().unwrap();
        copy(&examples.join(name), directory.path());
        build(directory.path(), language, slot);
        decides_the_same_both_ways(name, directory.path(), slot);
        if language == Language::Go {
            run(
                "the tests of bulk-bonus",
                Command::new("go").args(["test", "./bonus"]).current_dir(directory.path()),
            );
        }
    }
}

/// The modules that read settings, on this machine: they are held to the cases of the SDK's tests,
/// which are outside of their projects.
#[test]
#[ignore = "needs all languages"]
fn settings_are_read_the_same() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policies");
    let directory = tempdir().unwrap();
    let program = directory.path().join("settings");
    let mut compile = Command::new("cc");
    compile.args(["-std=c17", "-Wall", "-Wextra", "-Werror", "-I", "tests", "-I", "lib"]);
    compile.args(["tests/settings.c", "lib/settings.c", "lib/json.c", "lib/text.c", "-o"]);
    run("cc", compile.arg(&program).current_dir(examples.join("night-rate")));
    run("settings.c", &mut Command::new(&program));
    for (name, command) in [
        ("loyalty", "node --test settings.test.js"),
        ("npub-allowlist", "python3 -B -m unittest discover tests"),
        ("bulk-bonus", "go test ./settings"),
    ] {
        let mut test = Command::new("sh");
        run(command, test.args(["-c", command]).current_dir(examples.join(name)));
    }
}
