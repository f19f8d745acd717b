//! The testbed of `k8s/testbed`.

use crate::images::{self, Architecture, Image};
use crate::run::{at_lowest_priority, root, step};
use anyhow::Result;
use clap::Subcommand;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Build Kubernetes, what runs its containers, its network policies and kwok, and install what
    /// they run on. About 15 minutes, once.
    Build,
    /// Start it, build and load the SSH image, and apply k8s/. Prints the KUBECONFIG.
    Up,
    /// Stop it and remove what it ran.
    Down,
}

pub(crate) fn cluster(action: &Action) -> Result<()> {
    match action {
        Action::Build => testbed(&["build"]),
        Action::Up => up(),
        Action::Down => down(),
    }
}

fn testbed(arguments: &[&str]) -> Result<()> {
    step(&format!("testbed {}", arguments.join(" ")), Command::new(script()).args(arguments))
}

fn script() -> PathBuf {
    root().join("k8s/testbed/cluster")
}

/// Builds the testbed and the pods' SSH server beside other steps, with what they leave of the
/// cores. Their directories are other ones than that of the tests' builds, which do not wait.
pub(crate) fn build_in_background() -> JoinHandle<Result<()>> {
    std::thread::spawn(|| {
        let mut testbed = Command::new(script());
        testbed.arg("build");
        step("testbed build, at the lowest priority", &mut at_lowest_priority(&testbed))?;
        let server = images::build_of_server(Architecture::Amd64)?;
        step("build the SSH server, at the lowest priority", &mut at_lowest_priority(&server))
    })
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
