//! Running other programs, and failing when they fail.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The same arguments for every build of the tests, so that nothing is built twice: other packages
/// or features make other libraries.
pub(crate) const ALL: [&str; 3] = ["--workspace", "--features", "demo"];

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .components()
        .collect::<PathBuf>()
        .canonicalize()
        .unwrap_or_default()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// cargo, with the protobuf compiler that the test mint's build asks for.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    // What cargo has set for this program would be another environment than a user's, and build
    // scripts that watch it would run again at each change between the two.
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"CARGO_MANIFEST_") || bytes.starts_with(b"CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    command.env(
        "PROTOC",
        protoc_bin_vendored::protoc_bin_path().context("no protobuf compiler for this platform")?,
    );
    // What is built once needs no record of how; it would be as large again. Nor does anybody debug
    // it: panics name their lines without what each of the many test programs would carry for it.
    if is_ci() {
        command.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    }
    Ok(command)
}

/// Whether this is the run of a checkout that is built once.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// A test program that is built.
pub(crate) struct TestProgram {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The programs of `build`, a `cargo test --no-run`.
pub(crate) fn test_programs(build: &mut Command) -> Result<Vec<TestProgram>> {
    let built = output(build.args(["--message-format", "json-render-diagnostics"]))?;
    let artifacts =
        built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs = artifacts.filter_map(|artifact| {
        let is_test = artifact.pointer("/profile/test")?.as_bool()?;
        let name = artifact.pointer("/target/name")?.as_str()?.to_owned();
        let path = PathBuf::from(artifact.get("executable")?.as_str()?);
        is_test.then_some(TestProgram { name, path })
    });
    Ok(programs.collect())
}

/// Installs what `rust-toolchain.toml` asks for: rustup does so for a toolchain that it installs,
/// but adds nothing to one that is there already.
pub(crate) fn toolchain(targets: &[&str]) -> Result<()> {
    let rustlib = PathBuf::from(output(
        Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()),
    )?)
    .join("lib/rustlib");
    for target in targets.iter().filter(|target| !rustlib.join(target).exists()) {
        step(
            &format!("install {target}"),
            Command::new("rustup").args(["target", "add", target]).current_dir(root()),
        )?;
    }
    for (program, component) in [("cargo-clippy", "clippy"), ("rustfmt", "rustfmt")] {
        if !rustlib.join("../../bin").join(program).exists() {
            step(
                &format!("install {component}"),
                Command::new("rustup").args(["component", "add", component]).current_dir(root()),
            )?;
        }
    }
    Ok(())
}

/// The same command with what other steps leave of the cores.
pub(crate) fn at_lowest_priority(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        nice.current_dir(directory);
    }
    nice
}

/// Runs a step: prints its name and how long it took, and fails if it does.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("── {name}");
    let begun = Instant::now();
    let status = command.status().with_context(|| {
        format!("{name}: {} cannot be started", command.get_program().to_string_lossy())
    })?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    println!("── {name}: done in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Removes a directory, if it exists.
pub(crate) fn remove_directory(directory: &Path) -> Result<()> {
    match directory.exists() {
        true => std::fs::remove_dir_all(directory)
            .with_context(|| format!("{} cannot be removed", directory.display())),
        false => Ok(()),
    }
}

/// What a program prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be started"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_the_lowest_priority_is_the_same_otherwise() {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo "$(nice) $(pwd) $STEP ${HOME-none}""#]);
        command.current_dir("/").env("STEP", "one").env_remove("HOME");
        assert_eq!(output(&mut at_lowest_priority(&command)).unwrap(), "19 / one none");
    }
}
