//! `cargo xtask test`: everything that CI runs, in the order in which failures are cheapest.

use crate::run::{ALL, cargo, output, step, target};
use crate::{cluster, demo, faults, fuzz, plugins, web};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Programs that the tests run, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 10] = [
    ("ssh", "openssh-client"),
    ("sshpass", "sshpass"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3-venv"),
    ("pg_createcluster", "postgresql"),
    ("nginx", "nginx-light"),
    ("chromium", "chromium"),
    ("clang-19", "clang-19"),
    ("wasm-ld-19", "lld-19"),
];
/// Programs that Debian's packages are too old for, how they tell their version, and the least that
/// is good.
const VERSIONS: [(&str, &str, (u32, u32), &str); 2] = [
    ("go", "version", (1, 25), "https://go.dev/dl"),
    ("node", "--version", (20, 0), "https://nodejs.org"),
];
/// How long each fuzz target runs here.
const FUZZ_SECONDS: u64 = 15;
/// Seeded runs with faults, at cdk's mint and at a Nutshell mint.
const FAULT_RUNS: u64 = 120;
const NUTSHELL_RUNS: u64 = 12;
/// What the Python parts are: a mint and a relay that are not ours…
const PYTHON: [&str; 4] = ["cashu==0.20.2", "marshmallow<4", "limits<4", "nostr-relay==1.14"];
/// …and what tries the HTTP door; apart, since both name their own versions of the same packages.
const SCHEMATHESIS: [&str; 1] = ["schemathesis==4.32.5"];

pub(crate) fn test(without_cluster: bool) -> Result<()> {
    programs()?;
    versions()?;
    plugins::build()?;
    web::page()?;
    step("format", &mut cargo(&["fmt", "--check"])?)?;
    step(
        "clippy",
        cargo(&["clippy", "--quiet", "--all-targets"])?
            .args(ALL)
            .args(["--", "--deny", "warnings"]),
    )?;
    step(
        "documentation",
        cargo(&["doc", "--quiet", "--no-deps"])?.args(ALL).env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    step("tests on this machine", cargo(&["test"])?.args(ALL))?;
    // A fast part of what `cargo xtask fuzz` and `cargo xtask faults` do at length.
    fuzz::fuzz(FUZZ_SECONDS, None)?;
    python()?;
    faults::faults(1, FAULT_RUNS, NUTSHELL_RUNS)?;
    web::packages("examples/customer-js")?;
    venv("venv-schemathesis", &SCHEMATHESIS)?;
    let door = ["--test", "http_clients", "--", "--ignored", "--test-threads", "1"];
    step("tests of the HTTP door with others' programs", cargo(&["test"])?.args(ALL).args(door))?;
    let languages = ["--test", "languages", "--", "--ignored", "--test-threads", "2"];
    step("policies in five languages", cargo(&["test"])?.args(ALL).args(languages))?;
    // The story as a visitor sees it, told by the binary that the tests have built.
    demo::tell(&["--once".to_owned()])?;
    if without_cluster {
        println!("NOT RUN: the tests on the real cluster, since --without-cluster was given");
        return Ok(());
    }
    cluster::up()?;
    let mut tests = cargo(&["test"])?;
    tests.args(ALL).args([
        "--test",
        "cluster",
        "--test",
        "conformance",
        "--",
        "--ignored",
        "--test-threads",
        "1",
    ]);
    let tested = step("tests on the real cluster", &mut tests);
    let down = cluster::down();
    tested.and(down)
}

fn programs() -> Result<()> {
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    };
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("   missing: {}", missing.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("install {} first", missing.join(" "));
    }
    step("apt-get update", Command::new("apt-get").args(["update", "-qq"]))?;
    step(
        "apt-get install",
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing),
    )
}

fn versions() -> Result<()> {
    for (program, argument, (major, minor), source) in VERSIONS {
        let told = output(Command::new(program).arg(argument))
            .with_context(|| format!("install {program} from {source}"))?;
        let mut numbers = told
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .map_while(|part| part.parse::<u32>().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if found < (major, minor) {
            bail!(
                "{program} is {}.{}, and {major}.{minor} is needed: install it from {source}",
                found.0,
                found.1
            );
        }
    }
    Ok(())
}

/// The mint and the relay in Python.
pub(crate) fn python() -> Result<()> {
    venv("venv", &PYTHON)
}

fn venv(name: &str, packages: &[&str]) -> Result<()> {
    let venv = target().join(name);
    let wanted = packages.join("\n");
    // Made once for what it holds.
    let mark = venv.join("holds");
    if std::fs::read_to_string(&mark).is_ok_and(|holds| holds == wanted) {
        return Ok(());
    }
    step("python3 -m venv", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    step(
        "pip install",
        Command::new(venv.join("bin/pip")).args(["install", "--quiet"]).args(packages),
    )?;
    std::fs::write(mark, wanted)?;
    Ok(())
}
