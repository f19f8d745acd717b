//! Builds a project of every language for every slot, and the examples in other languages than
//! Rust; what they make is checked, and does what its suite says. For this the languages have to be
//! installed: `cargo xtask test` sees to that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use paygress_core::backend::policy::Slot;
use paygress_policy_tools::Language;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::tempdir;

/// What is kept from one build to the next.
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

/// The program, for the build files and for what comes after them.
const PAYGRESS: &str = env!("CARGO_BIN_EXE_paygress");

/// One installation for all projects: they have the same package-lock.json.
fn node_modules(project: &Path) -> PathBuf {
    static MODULES: OnceLock<PathBuf> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let folder = cache("npm");
        fs::create_dir_all(&folder).unwrap();
        let same =
            |file: &str| fs::read(folder.join(file)).ok() == fs::read(project.join(file)).ok();
        if !folder.join("node_modules").exists() || !same("package-lock.json") {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(project.join(file), folder.join(file)).unwrap();
            }
            run(
                "npm ci",
                Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder),
            );
        }
        folder.join("node_modules")
    });
    modules.clone()
}

/// Builds the project, and looks at what it made.
fn build(project: &Path, language: Language, slot: Slot) {
    let what = format!("{} ({language}, {slot})", project.display());
    if language == Language::JavaScript {
        std::os::unix::fs::symlink(node_modules(project), project.join("node_modules")).unwrap();
    }
    let mut command = Command::new("sh");
    command.arg("build.sh").current_dir(project).env("PAYGRESS", PAYGRESS);
    command.env("CARGO_TARGET_DIR", cache("cargo")).env("POLICY_VENV", cache("venv"));
    run(&what, &mut command);
    assert!(!project.join("policy.wasm.part").exists(), "{what}");
    let mut check = Command::new(PAYGRESS);
    check.args(["policy", "check", slot.as_str(), "policy.wasm"]).current_dir(project);
    if project.join("settings.json").exists() {
        check.args(["--settings", "settings.json"]);
    }
    run(&what, &mut check);
    if project.join("order.json").exists() {
        let mut eval = Command::new(PAYGRESS);
        run(
            &what,
            eval.args(["policy", "eval", slot.as_str(), "policy.wasm", "order.json"])
                .current_dir(project),
        );
    }
    run(&what, Command::new(PAYGRESS).args(["policy", "test", "suite.yaml"]).current_dir(project));
}

fn builds(language: Language) {
    for slot in Slot::ALL {
        let folder = tempdir().unwrap();
        let project = folder.path().join(format!("my-{slot}"));
        let mut new = Command::new(PAYGRESS);
        run(
            "policy new",
            new.args(["policy", "new", "--lang", language.as_str(), slot.as_str()]).arg(&project),
        );
        build(&project, language, slot);
    }
}

#[test]
#[ignore = "wants Rust's target wasm32-unknown-unknown"]
fn builds_rust() {
    builds(Language::Rust);
}

#[test]
#[ignore = "wants Node.js"]
fn builds_js() {
    builds(Language::JavaScript);
}

#[test]
#[ignore = "wants Python"]
fn builds_python() {
    builds(Language::Python);
}

#[test]
#[ignore = "wants Go"]
fn builds_go() {
    builds(Language::Go);
}

#[test]
#[ignore = "wants clang and lld"]
fn builds_c() {
    builds(Language::C);
}

/// Copies a project's sources, and what its symbolic links lead to.
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

#[test]
#[ignore = "wants all languages"]
fn builds_examples() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policies");
    for (name, language, slot) in [
        ("loyalty", Language::JavaScript, Slot::Pricing),
        ("npub-allowlist", Language::Python, Slot::Images),
        ("night-rate", Language::C, Slot::Pricing),
        ("bulk-bonus", Language::Go, Slot::Duration),
    ] {
        let folder = tempdir().unwrap();
        copy(&examples.join(name), folder.path());
        build(folder.path(), language, slot);
        if language == Language::Go {
            run(
                "the tests of bulk-bonus",
                Command::new("go").args(["test", "./bonus"]).current_dir(folder.path()),
            );
        }
    }
}
