//! `cargo xtask fuzz`: libFuzzer on stable Rust. The compiler's own sanitizer coverage is all that
//! it takes.

use crate::run::{ALL, at_lowest_priority, cargo, root, step, target};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

const TARGETS: [&str; 4] = ["token", "message", "template", "component"];
/// Coverage for libFuzzer, and every overflow a panic.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table";
/// After how many seconds an input counts as one that hangs; and where it waits for the cores.
const SLOWEST: u64 = 20;
const SLOWEST_IN_BACKGROUND: u64 = 300;
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Runs the targets, each for so many seconds; the corpus they grow stays in `target/fuzz-corpus`.
pub(crate) fn fuzz(seconds: u64, only: Option<&str>) -> Result<()> {
    let targets: Vec<&str> =
        TARGETS.into_iter().filter(|target| only.is_none_or(|only| only == *target)).collect();
    if targets.is_empty() {
        bail!("no such target; there are {}", TARGETS.join(", "));
    }
    crate::plugins::build()?;
    let mut build = cargo(&["build", "--quiet", "--profile", "fuzz", "--target", TRIPLE])?;
    build.args(["--package", "paygress-fuzz", "--features", "targets"]);
    step("build the fuzz targets", build.env("RUSTFLAGS", FLAGS))?;
    for name in targets {
        let mut command = command(&target().join(TRIPLE).join("fuzz"), name, seconds)?;
        command.arg(format!("-timeout={SLOWEST}"));
        step(&format!("fuzz {name} for {seconds} s"), &mut command)?;
    }
    Ok(())
}

/// All targets at the lowest priority, with coverage of the workspace only: the dependencies are
/// those of the tests, which saves a second build of them.
pub(crate) fn fuzz_briefly(seconds: u64) -> Result<()> {
    // With a test among them the dependencies have the features that they have for tests.
    let mut build = cargo(&["build", "--quiet", "--test", "seeds"])?;
    build.args(ALL).args(["--features", "paygress-fuzz/targets"]);
    for name in TARGETS {
        build.args(["--bin", &format!("fuzz-{name}")]);
    }
    let wrapper = root().join("host/fuzz/rustc-with-coverage");
    build.env("RUSTC_WORKSPACE_WRAPPER", wrapper).env("FUZZ_FLAGS", FLAGS);
    step("build the fuzz targets, at the lowest priority", &mut at_lowest_priority(&build))?;
    for name in TARGETS {
        let mut command = command(&target().join("debug"), name, seconds)?;
        command.arg(format!("-timeout={SLOWEST_IN_BACKGROUND}"));
        let what = format!("fuzz {name} for {seconds} s, at the lowest priority");
        step(&what, &mut at_lowest_priority(&command))?;
    }
    Ok(())
}

fn command(programs: &Path, name: &str, seconds: u64) -> Result<Command> {
    let corpus = target().join("fuzz-corpus").join(name);
    std::fs::create_dir_all(&corpus)?;
    let seeds = root().join("host/fuzz/seeds").join(name);
    let mut command = Command::new(programs.join(format!("fuzz-{name}")));
    command.arg(&corpus);
    for seeds in [
        seeds,
        if name == "component" { target().join("plugins") } else { Path::new("").to_owned() },
    ] {
        if seeds.is_dir() {
            command.arg(seeds);
        }
    }
    let artifacts =
        format!("-artifact_prefix={}/crash-{name}-", target().join("fuzz-corpus").display());
    let longest = if name == "component" { 131_072 } else { 8_192 };
    command.args([
        &format!("-max_total_time={seconds}"),
        &format!("-max_len={longest}"),
        "-rss_limit_mb=4096",
    ]);
    command
        .args([&artifacts, "-print_final_stats=1", "-verbosity=0"])
        .env("FUZZ_PLUGINS", target().join("plugins"));
    Ok(command)
}
