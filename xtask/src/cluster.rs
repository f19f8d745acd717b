//! The testbed of `k8s/testbed`.

use crate::background::BackgroundStep;
use crate::compiler::Compiler;
use crate::images::{self, Architecture, Image};
use crate::run::{ALL, at_lowest_priority, cargo, root, step};
use crate::{plugins, python, web};
use anyhow::Result;
use clap::Subcommand;
use std::path::PathBuf;
use std::process::Command;

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Build Kubernetes, what runs its containers, its network policies, kwok and Helm, and install
    /// what they run on. About 15 minutes, once.
    Build,
    /// Start it, build and load the SSH image, and apply k8s/. Prints the KUBECONFIG.
    Up,
    /// Stop it and remove what it ran.
    Down,
    /// Run all of its tests, on the testbed that is up. About 40 minutes.
    Test,
    /// Build the Debian image and run the tests of whole pods, on the testbed that is up. The image
    /// needs the network, once.
    Machines,
    /// Measure the ways to pods on the testbed that is up, beside a port of the node: 200 sessions
    /// at once, 200 MB and logins. Builds in release; about 15 minutes.
    Reach,
    /// Measure thousands of leases on nodes that kwok plays, on the testbed that is up, beside the
    /// goals: memory, starts, requests to the API server, orders a second. Builds the program as it
    /// is released; some hours.
    Scale,
}

pub(crate) fn cluster(action: &Action) -> Result<()> {
    match action {
        Action::Build => testbed(&["build"]),
        Action::Up => up(),
        Action::Down => down(),
        Action::Test => {
            prepare()?;
            test(Compiler::Rustc, Extent::Whole)
        }
        Action::Machines => machines(),
        Action::Reach => reach(),
        Action::Scale => scale(),
    }
}

/// How much its tests do.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    /// Smaller crowds, and nothing that takes long and that another test shows too.
    Short,
    Whole,
}

/// The tests on the testbed that is up.
pub(crate) fn test(compiler: Compiler, extent: Extent) -> Result<()> {
    let mut command = compiler.cargo(&["test"])?;
    command.args(ALL).args(["--test", "cluster", "--test", "conformance", "--"]);
    // The cluster is one.
    command.args(["--ignored", "--test-threads", "1"]);
    match extent {
        Extent::Short => command.env("CLUSTER_TESTS", "short"),
        Extent::Whole => command.env_remove("CLUSTER_TESTS"),
    };
    step("tests on the real cluster", &mut command)
}

/// What the tests use.
fn prepare() -> Result<()> {
    plugins::build()?;
    python::mint_and_relay()?;
    web::packages("examples/customer-js")?;
    web::page()
}

fn testbed(arguments: &[&str]) -> Result<()> {
    step(&format!("testbed {}", arguments.join(" ")), Command::new(script()).args(arguments))
}

fn script() -> PathBuf {
    root().join("k8s/testbed/cluster")
}

/// Builds the testbed and the pods' SSH server beside other steps, with what they leave of the
/// cores. Their directories are other ones than that of the tests' builds, which do not wait.
pub(crate) fn build_in_background() -> BackgroundStep {
    BackgroundStep::start("the build of the testbed", || {
        let mut testbed = Command::new(script());
        testbed.arg("build");
        step("testbed build, at the lowest priority", &mut at_lowest_priority(&testbed))?;
        let server = images::build_of_server(Architecture::Amd64)?;
        step("build the SSH server, at the lowest priority", &mut at_lowest_priority(&server))
    })
}

/// The image that only these tests need is too large for the short form of all tests.
fn machines() -> Result<()> {
    build_debian()?;
    prepare()?;
    python::ssh_clients()?;
    let tests = ["--test", "cluster", "machines", "--", "--ignored", "--nocapture"];
    let mut command = cargo(&["test"])?;
    command.args(ALL).args(tests).args(["--test-threads", "1"]);
    step("tests of whole pods on the real cluster", &mut command)
}

/// In release: otherwise the figures would be those of cryptography that is not optimised.
fn reach() -> Result<()> {
    prepare()?;
    let tests = ["--release", "--test", "cluster", "reach::figures::figures", "--"];
    let mut command = cargo(&["test"])?;
    command.args(ALL).args(tests).args(["--ignored", "--exact", "--nocapture"]);
    command.env("REACH_FIGURES", "yes").env_remove("CLUSTER_TESTS");
    step("figures of the ways to pods on the real cluster", &mut command)
}

/// The service is the program that images have; the mint and the customers are in the tests, in
/// release.
fn scale() -> Result<()> {
    prepare()?;
    let program = images::build_service(Architecture::Amd64)?;
    let tests = ["--release", "--test", "cluster", "scale::figures", "--"];
    let mut command = cargo(&["test"])?;
    command.args(ALL).args(tests).args(["--ignored", "--exact", "--nocapture"]);
    command.env("SCALE_FIGURES", "yes").env("SCALE_PROGRAM", program).env_remove("CLUSTER_TESTS");
    step("figures of many leases on the real cluster", &mut command)
}

/// Builds the Debian image, unless it is there.
pub(crate) fn build_debian() -> Result<()> {
    images::build(Image::Debian, Architecture::Amd64)
}

/// Says which tests are left out without the Debian image.
pub(crate) fn warn_without_debian() {
    if !images::archive(Image::Debian, Architecture::Amd64).exists() {
        println!(
            "NOT RUN: a Debian pod, bought and used; `cargo xtask cluster machines` does that"
        );
    }
}

pub(crate) fn down() -> Result<()> {
    testbed(&["down"])
}

pub(crate) fn up() -> Result<()> {
    testbed(&["up"])?;
    images::build(Image::Ssh, Architecture::Amd64)?;
    let archive = images::archive(Image::Ssh, Architecture::Amd64);
    testbed(&["load", &archive.to_string_lossy()])?;
    testbed(&["kubectl", "apply", "-k", &root().join("k8s/base").to_string_lossy()])
}
