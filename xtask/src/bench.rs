//! `cargo xtask bench`: runs the benchmarks, and prints what the host adds to the bare libraries.

use crate::run::{cargo, step, target};
use anyhow::{Context, Result};

/// The rows: criterion's directories of the bare library's figure, if there is one, and of ours.
const ROWS: [(&str, Option<&str>, &str); 5] = [
    ("fresh policy call", Some("policy call/bare"), "policy call/host"),
    ("four calls of one order", None, "four calls of one order/host"),
    (
        "unwrap of one gift wrap",
        Some("unwrap of one gift wrap/bare"),
        "unwrap of one gift wrap/host",
    ),
    ("ledger transition", Some("ledger transition/bare"), "ledger transition/host"),
    ("whole order, in process", Some("whole order/bare"), "whole order/host"),
];

pub(crate) fn bench() -> Result<()> {
    crate::plugins::build()?;
    step(
        "benchmarks",
        &mut cargo(&[
            "bench",
            "--quiet",
            "--package",
            "paygress",
            "--features",
            "demo",
            "--bench",
            "order",
        ])?,
    )?;
    println!("{:<28} {:>14} {:>14} {:>14}", "median", "bare library", "paygress", "the host adds");
    for (name, bare, host) in ROWS {
        let bare = bare.map(median).transpose()?;
        let host = median(host)?;
        let added = bare.map_or_else(String::new, |bare| time(host - bare));
        println!(
            "{name:<28} {:>14} {:>14} {added:>14}",
            bare.map_or_else(String::new, time),
            time(host)
        );
    }
    step(
        "live orders",
        &mut cargo(&[
            "bench",
            "--quiet",
            "--package",
            "paygress",
            "--features",
            "demo",
            "--bench",
            "live",
        ])?,
    )
}

/// Criterion's estimate, in nanoseconds.
fn median(id: &str) -> Result<f64> {
    // A group is a directory of its own; a slash in a single name becomes an underscore.
    let (group, function) = id.split_once('/').context("no function")?;
    let criterion = target().join("criterion");
    let candidates = [criterion.join(group).join(function), criterion.join(id.replace('/', "_"))];
    let directory = candidates
        .iter()
        .find(|path| path.exists())
        .with_context(|| format!("no measurement of {id}"))?;
    let text = std::fs::read_to_string(directory.join("new/estimates.json"))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    estimates
        .pointer("/median/point_estimate")
        .and_then(serde_json::Value::as_f64)
        .with_context(|| format!("no median of {id}"))
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds.abs() {
        short if short < 1e3 => format!("{nanoseconds:.0} ns"),
        short if short < 1e6 => format!("{:.1} µs", nanoseconds / 1e3),
        _ => format!("{:.2} ms", nanoseconds / 1e6),
    }
}
