//! `cargo xtask test`: everything that CI runs, in the order in which failures are cheapest.

use crate::background::BackgroundStep;
use crate::cluster::Extent;
use crate::compiler::Compiler;
use crate::run::{
    ALL, at_lowest_priority, cargo, is_ci, output, step, target, test_programs, toolchain,
};
use crate::{
    actionlint, beside, checks, cluster, demo, faults, fuzz, generate, plugins, promtool, python,
    space, web,
};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Programs that the tests run, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 21] = [
    ("bwrap", "bubblewrap"),
    ("ssh", "openssh-client"),
    ("sshpass", "sshpass"),
    ("sshfs", "sshfs"),
    ("dbclient", "dropbear-bin"),
    ("plink", "putty-tools"),
    ("rsync", "rsync"),
    ("busybox", "busybox-static"),
    ("musl-gcc", "musl-tools"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3-venv"),
    ("pg_createcluster", "postgresql"),
    ("sqlite3", "sqlite3"),
    ("nginx", "nginx-light"),
    ("chromium", "chromium"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("clang-19", "clang-19"),
    ("wasm-ld-19", "lld-19"),
    ("valgrind", "valgrind"),
];
/// Installed in CI only, since Debian starts the server: elsewhere the comparison with it says that
/// it was not run.
const SERVER: (&str, &str) = ("sshd", "openssh-server");
/// What builds the Debian image, which only the whole of the cluster's tests needs.
const DEBOOTSTRAP: (&str, &str) = ("debootstrap", "debootstrap");
/// Programs for which Debian's packages are too old: how they print their version, and the oldest
/// that works.
const VERSIONS: [(&str, &str, (u32, u32), &str); 2] = [
    ("go", "version", (1, 26), "https://go.dev/dl"),
    ("node", "--version", (20, 0), "https://nodejs.org"),
];
/// How long each fuzz target runs here.
const FUZZ_SECONDS: u64 = 15;
/// Seeded runs with faults, at cdk's mint and at a Nutshell mint.
const FAULT_RUNS: u64 = 80;
const NUTSHELL_RUNS: u64 = 12;
/// Of which the tests on this machine make the first, to show that the program works.
const FAULT_RUNS_OF_THE_TESTS: &str = "1";
/// How much the tests do of what takes long: the variable that says it, its value in the short form, and
/// in the whole.
const AMOUNTS: [(&str, [&str; 2]); 5] = [
    // Over both ways in which policies take their settings.
    ("POLICY_REPLAYS", ["300", "10000"]),
    ("DISASTER_ROUNDS", ["1", "5"]),
    ("SWAP_ORDERS", ["1000", "10000"]),
    ("ATTACK_TOKENS", ["99", "999"]),
    ("RELAY_MESSAGES", ["600", "10000"]),
];
/// The test programs that later steps run.
const RUN_LATER: [&str; 6] =
    ["faults", "openssh", "http_clients", "languages", "cluster", "conformance"];

/// Every build of the workspace here: what one step has compiled, the others use.
const COMPILER: Compiler = Compiler::WithLints;

/// Without an extent no test runs on the real cluster. `xtask` is the command line of these
/// commands, which the documents show.
pub(crate) fn test(on_cluster: Option<Extent>, xtask: &clap::Command) -> Result<()> {
    space::check(on_cluster)?;
    // Both wait for the network, and the policies need none of those programs.
    let programs = BackgroundStep::start("the installation of the programs", move || {
        programs(on_cluster).and_then(|()| versions())
    });
    checks::source()?;
    toolchain(&[plugins::TARGET])?;
    step("format", &mut cargo(&["fmt", "--check"])?)?;
    // In a directory of its own, and like the other builds it has stretches with work for one core
    // only.
    let policies = BackgroundStep::start("the build of the policies", plugins::build);
    programs.finish()?;
    // Only some steps use both cores all the time.
    let testbed = on_cluster.is_some().then(cluster::build_in_background);
    // Both wait for the network.
    let packages = BackgroundStep::start("the installation of the packages", || {
        packages().and_then(|()| programs_of_go())
    });
    web::page()?;
    // All that the steps below run, and what nothing runs: benchmarks, libraries for their own sake.
    let mut build = COMPILER.cargo(&["build", "--quiet", "--all-targets"])?;
    step("build, with clippy and the documentation of each crate", build.args(ALL))?;
    generate::generate(generate::Mode::Check, COMPILER)?;
    policies.finish()?;
    let extent = on_cluster.unwrap_or(Extent::Short);
    let background =
        BackgroundStep::start("the steps in the background", move || in_background(extent));
    on_this_machine(xtask, extent)?;
    packages.finish()?;
    // A fast part of what `cargo xtask faults` does at length.
    faults::faults(COMPILER, 1, FAULT_RUNS, NUTSHELL_RUNS)?;
    other_programs()?;
    // The demo of the binary that the tests have built.
    demo::run(&["--once".to_owned()])?;
    match testbed {
        Some(testbed) => testbed.finish().and_then(|()| on_the_cluster(extent))?,
        None => {
            println!("NOT RUN: the tests on the real cluster, since --without-cluster was given");
        }
    }
    background.finish()?;
    space::forget("tmp/author")
}

/// What takes all of a core, at the lowest priority: the tests beside it wait more than they work.
fn in_background(extent: Extent) -> Result<()> {
    documented_examples()?;
    benchmarks()?;
    // A fast part of what `cargo xtask fuzz` does at length.
    fuzz::fuzz_briefly(FUZZ_SECONDS)?;
    languages(extent)?;
    // Its own workspace has another two engines to compile.
    match extent {
        Extent::Short => Ok(()),
        Extent::Whole => beside::test(),
    }
}

fn amounts(extent: Extent) -> impl Iterator<Item = (&'static str, &'static str)> {
    AMOUNTS.into_iter().map(move |(name, [short, whole])| match extent {
        Extent::Short => (name, short),
        Extent::Whole => (name, whole),
    })
}

fn on_this_machine(xtask: &clap::Command, extent: Extent) -> Result<()> {
    let mut tests = COMPILER.cargo(&["test", "--no-fail-fast", "--tests"])?;
    let tests = tests.args(ALL).env("FAULT_RUNS", FAULT_RUNS_OF_THE_TESTS);
    let tests = tests.envs(amounts(extent));
    step("tests on this machine", tests)?;
    checks::documented_commands(&target().join("debug/paygress"), xtask)?;
    if is_ci() {
        let mut build = COMPILER.cargo(&["test", "--no-run", "--quiet"])?;
        space::forget_tests(&test_programs(build.args(ALL))?, &RUN_LATER)?;
    }
    Ok(())
}

/// Those of libraries, as they stand in the documentation of their crates. Quiet: cargo warns of each
/// crate that cannot have any.
fn documented_examples() -> Result<()> {
    let mut command = COMPILER.cargo(&["test", "--no-fail-fast", "--doc", "--quiet"])?;
    let mut command = at_lowest_priority(command.args(ALL));
    step("examples in the documentation, at the lowest priority", &mut command)
}

/// Each once, of a debug build: they measure nothing, and show that `cargo xtask bench` works.
fn benchmarks() -> Result<()> {
    let mut command = COMPILER.cargo(&["test", "--quiet", "--bench", "order"])?;
    let mut command = at_lowest_priority(command.args(ALL));
    step("benchmarks, once, at the lowest priority", &mut command)
}

/// Other people's programs, against our servers.
fn other_programs() -> Result<()> {
    let ssh = BackgroundStep::start("the tests of the SSH server", || {
        let clients = ["--test", "openssh", "--", "--ignored"];
        let mut command = COMPILER.cargo(&["test"])?;
        step("tests of the pods' SSH server with other clients", command.args(ALL).args(clients))
    });
    let clients = ["--test", "http_clients", "--", "--ignored", "--test-threads", "2"];
    let mut command = COMPILER.cargo(&["test"])?;
    step("tests of the HTTP API with external clients", command.args(ALL).args(clients))?;
    ssh.finish()
}

fn languages(extent: Extent) -> Result<()> {
    let tests = ["--test", "languages", "--", "--ignored", "--test-threads", "2"];
    let mut command = COMPILER.cargo(&["test"])?;
    let command = command.args(ALL).args(tests).envs(amounts(extent));
    let mut command = at_lowest_priority(command);
    step("policies in five languages, at the lowest priority", &mut command)
}

/// What steps after the tests on this machine use.
fn packages() -> Result<()> {
    python::mint_and_relay()?;
    python::schemathesis()?;
    python::ssh_clients()?;
    web::packages("host/sshd/tests/clients")?;
    web::packages("examples/receipts")?;
    web::packages("examples/customer-js")
}

/// Each is compiled once.
fn programs_of_go() -> Result<()> {
    actionlint::check()?;
    promtool::check()
}

fn on_the_cluster(extent: Extent) -> Result<()> {
    match extent {
        Extent::Short => {
            cluster::warn_without_debian();
            println!("NOT RUN: the cluster's tests in full; `cargo xtask test --whole` does that");
        }
        Extent::Whole => cluster::build_debian()?,
    }
    cluster::up()?;
    let tested = cluster::test(COMPILER, extent);
    let down = cluster::down();
    tested.and(down)
}

fn programs(on_cluster: Option<Extent>) -> Result<()> {
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    };
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .chain(is_ci().then_some(&SERVER))
        .chain(matches!(on_cluster, Some(Extent::Whole)).then_some(&DEBOOTSTRAP))
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
        let version = output(Command::new(program).arg(argument))
            .with_context(|| format!("install {program} from {source}"))?;
        let mut numbers = version
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
