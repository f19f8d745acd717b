//! The main job on the real thing: Kubernetes of the testbed, a Nutshell mint, a relay in Python, a
//! customer on nostr-tools and cashu-ts, OpenSSH's client. Run by `cargo xtask test`, which sets
//! all of that up.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod access;
mod admission;
mod api_server;
mod capacity;
mod chart;
mod customers;
mod deployment;
mod doctor;
mod goal;
mod machines;
mod manifests;
mod monitoring;
mod network;
mod node;
mod node_host;
mod node_loss;
mod overlays;
mod policies;
mod probe;
mod reach;
mod release;
mod rights;
mod scale;
#[path = "../support/mod.rs"]
mod support;

use crate::support::testbed::kubectl;
use serde_json::Value;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a shell, YAML, JSON and a password file would each stumble over.
const PASSWORD: &str = r#"it's "$HOME"; a:b `x` \ %s"#;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// An RFC 3339 time in UTC as seconds.
fn seconds(answer: &Value, field: &str) -> u64 {
    let text = answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}"));
    let output = Command::new("date").args(["-u", "-d", text, "+%s"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

/// `kubectl` where the customers' pods are.
#[track_caller]
fn in_workloads(arguments: &[&str]) -> String {
    kubectl(&[&["-n", "user-workloads"], arguments].concat())
}

/// Whatever belongs to a lease, and to no probe.
const CUSTOMERS: &str = "app=paygress-ssh-pod,!paygress.dev/probe";

fn objects(kinds: &str) -> String {
    in_workloads(&["get", kinds, "-l", CUSTOMERS, "-o", "name"])
}

/// A field of the customers' pods.
fn pods(jsonpath: &str) -> String {
    in_workloads(&["get", "pod", "-l", CUSTOMERS, "-o", jsonpath])
}

fn pod_uid() -> String {
    pods("jsonpath={.items[*].metadata.uid}")
}
