//! `cargo xtask bench`: runs the benchmarks, and prints what the host adds to the bare libraries.

use crate::run::{cargo, step, target};
use anyhow::{Context, Result};

/// The rows: criterion's directories of the bare library's figure, if there is one, and of ours.
const ROWS: [(&str, Option<&str>, &str); 7] = [
    ("fresh policy call", Some("policy call/bare"), "policy call/host"),
    ("the same, from a snapshot", Some("policy call/bare"), "policy call/snapshot"),
    ("four calls of one order", None, "four calls of one order/host"),
    ("the same, from snapshots", None, "four calls of one order/snapshot"),
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
    println!(
        "{:<28} {:>14} {:>14} {:>14} {:>8}",
        "median", "bare library", "paygress", "the host adds", "ratio"
    );
    for (name, bare, host) in ROWS {
        println!("{}", row(name, bare.map(median).transpose()?, median(host)?));
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

/// A line of the table: what the host adds, and how many times the bare library's it takes.
fn row(name: &str, bare: Option<f64>, host: f64) -> String {
    let (bare, added, ratio) = match bare {
        Some(bare) => (time(bare), time(host - bare), format!("{:.2}", host / bare)),
        None => <(String, String, String)>::default(),
    };
    let line = format!("{name:<28} {bare:>14} {:>14} {added:>14} {ratio:>8}", time(host));
    line.trim_end().to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_the_host_adds_and_how_many_times_the_bare_time_it_is() {
        let columns = |row: &str| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let with_bare = row("call", Some(50_000.0), 100_000.0);
        assert_eq!(
            columns(&with_bare),
            ["call", "50.0", "µs", "100.0", "µs", "50.0", "µs", "2.00"]
        );
        assert_eq!(columns(&row("calls", None, 2e6)), ["calls", "2.00", "ms"]);
    }
}
