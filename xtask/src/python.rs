//! The tests' programs in Python.

use crate::run::{step, target};
use anyhow::Result;
use std::process::Command;

/// A mint and a relay that are not ours.
const MINT_AND_RELAY: [&str; 4] =
    ["cashu==0.20.2", "marshmallow<4", "limits<4", "nostr-relay==1.14"];
/// Tests the HTTP API; apart, since both name their own versions of the same packages.
const SCHEMATHESIS: [&str; 1] = ["schemathesis==4.32.5"];

/// Clients of the pods' SSH server.
const SSH_CLIENTS: [&str; 2] = ["ansible-core==2.19.14", "paramiko==5.1.0"];

pub(crate) fn mint_and_relay() -> Result<()> {
    venv("venv", &MINT_AND_RELAY)
}

pub(crate) fn schemathesis() -> Result<()> {
    venv("venv-schemathesis", &SCHEMATHESIS)
}

pub(crate) fn ssh_clients() -> Result<()> {
    venv("venv-ssh", &SSH_CLIENTS)
}

fn venv(name: &str, packages: &[&str]) -> Result<()> {
    let venv = target().join(name);
    let wanted = packages.join("\n");
    // Made once for these packages.
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
