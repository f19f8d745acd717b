//! `cargo xtask bench`: runs the benchmarks, and prints what the host adds to the bare libraries.
//! With `--languages`: what a call costs in each language.

use crate::run::{ALL, cargo, step, target};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Names the file of pairs to the benchmark.
const PAIRS_FILE: &str = "PAYGRESS_BENCH_PAIRS";

/// What is printed.
enum Row {
    /// Measured in turn with the bare library; named by the benchmark.
    Pair(&'static str),
    /// There is no bare figure: its name, and criterion's directory.
    Alone(&'static str, &'static str),
}

const ROWS: [Row; 7] = [
    Row::Pair("fresh policy call"),
    Row::Pair("the same, from a snapshot"),
    Row::Alone("four calls of one order", "four calls of one order/host"),
    Row::Alone("the same, from snapshots", "four calls of one order/snapshot"),
    Row::Pair("unwrap of one gift wrap"),
    Row::Pair("ledger transition"),
    Row::Pair("whole order, in process"),
];

/// The rounds in which the bare library and the host did the same, in nanoseconds.
struct Pair {
    bare: Vec<f64>,
    host: Vec<f64>,
}

pub(crate) fn bench() -> Result<()> {
    crate::plugins::build()?;
    // The benchmark runs in the directory of its package.
    let pairs = std::path::absolute(target().join("bench-pairs.jsonl"))?;
    if pairs.exists() {
        std::fs::remove_file(&pairs)?;
    }
    step("benchmarks", benchmark("order")?.env(PAIRS_FILE, &pairs))?;
    println!(
        "{:<28} {:>14} {:>14} {:>14} {:>8} {:>12} {:>12}",
        "median", "bare library", "paygress", "the host adds", "ratio", "p10..p90", "p99"
    );
    for row in ROWS {
        let line = match row {
            Row::Pair(name) => Pair::read(&pairs, name)?.line(name),
            Row::Alone(name, id) => line_alone(name, median(id)?, &calls(&pairs, id)?),
        };
        println!("{line}");
    }
    step("live orders", &mut benchmark("live")?)
}

/// Builds a pricing policy in each language, and measures its calls.
pub(crate) fn languages() -> Result<()> {
    crate::plugins::build_defaults()?;
    step("a pricing policy in five languages", &mut benchmark("languages")?)
}

fn benchmark(name: &str) -> Result<Command> {
    let mut command = cargo(&["bench", "--quiet"])?;
    // Of the whole workspace: the dependencies are those of the figures on the testbed.
    command.args(ALL).args(["--bench", name]);
    Ok(command)
}

impl Pair {
    fn read(file: &Path, name: &str) -> Result<Self> {
        let measured = measurement(file, name)?;
        let [bare, host] = ["bare", "host"].map(|side| numbers(&measured, side));
        let (bare, host) = bare.zip(host).context(name.to_owned())?;
        Ok(Self { bare, host })
    }

    /// A line of the table. The ratio is that of each round: what slows both sides of one down does
    /// not change it.
    fn line(&self, name: &str) -> String {
        let ratios: Vec<f64> =
            self.host.iter().zip(&self.bare).map(|(host, bare)| host / bare).collect();
        let added: Vec<f64> =
            self.host.iter().zip(&self.bare).map(|(host, bare)| host - bare).collect();
        let [ratio, low, high] =
            [50, 10, 90].map(|percent| format!("{:.2}", percentile(&ratios, percent)));
        let [bare, host, added] =
            [&self.bare, &self.host, &added].map(|values| time(percentile(values, 50)));
        format!("{name:<28} {bare:>14} {host:>14} {added:>14} {ratio:>8} {low:>6}..{high}")
    }
}

/// What the benchmark has recorded under this name.
fn measurement(file: &Path, name: &str) -> Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    for line in text.lines() {
        let measured: Value = serde_json::from_str(line)?;
        if measured.get("name").and_then(Value::as_str) == Some(name) {
            return Ok(measured);
        }
    }
    bail!("no measurement of {name}")
}

fn numbers(measured: &Value, key: &str) -> Option<Vec<f64>> {
    measured.get(key).and_then(Value::as_array)?.iter().map(Value::as_f64).collect()
}

/// The times of single calls, in nanoseconds.
fn calls(file: &Path, name: &str) -> Result<Vec<f64>> {
    numbers(&measurement(file, name)?, "calls").context(name.to_owned())
}

/// A line of the table without a bare figure.
fn line_alone(name: &str, median: f64, calls: &[f64]) -> String {
    let [median, p99] = [median, percentile(calls, 99)].map(time);
    format!("{name:<28} {:>14} {median:>14} {:>14} {:>8} {:>12} {p99:>12}", "", "", "", "")
}

/// The smallest value that so many in a hundred do not exceed; not a number if there is none.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = values.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or(f64::NAN)
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
    let estimates: Value = serde_json::from_str(&text)?;
    estimates
        .pointer("/median/point_estimate")
        .and_then(Value::as_f64)
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
    fn a_line_has_the_medians_and_the_spread_of_the_ratios() {
        let bare: Vec<f64> = (1..=10).map(|round| f64::from(round) * 1e5).collect();
        // The machine is slower in each round, and one round of the host met something else.
        let ratio = |round| if round == 10 { 9.0 } else { 2.0 };
        let host = (1..=10).zip(&bare).map(|(round, bare)| bare * ratio(round)).collect();
        let line = Pair { bare, host }.line("call");
        let columns: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            columns,
            ["call", "500.0", "µs", "1.00", "ms", "500.0", "µs", "2.00", "2.00..2.00"]
        );
    }

    #[test]
    fn a_line_without_a_bare_figure_has_the_p99_of_single_calls() {
        let calls: Vec<f64> = (1..=100).map(|call| f64::from(call) * 1e3).collect();
        let line = line_alone("call", 49_500.0, &calls);
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["call", "49.5", "µs", "99.0", "µs"]
        );
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let found = [10, 50, 90].map(|percent| percentile(&values, percent));
        assert_eq!(found.map(|value| value.to_string()), ["20", "100", "180"]);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn a_pair_is_found_by_its_name() {
        let file = std::env::temp_dir().join(format!("pairs-{}.jsonl", std::process::id()));
        let lines = [
            r#"{"name":"a","bare":[1.5],"host":[3]}"#,
            r#"{"name":"b","bare":[1]}"#,
            r#"{"name":"d","calls":[2,4.5]}"#,
        ];
        std::fs::write(&file, lines.join("\n")).unwrap();
        let pair = Pair::read(&file, "a");
        let errors = ["b", "c", "d"].map(|name| Pair::read(&file, name).is_err());
        let alone = ["d", "a"].map(|name| calls(&file, name).ok());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(alone, [Some(vec![2.0, 4.5]), None]);
        let Pair { bare, host } = pair.unwrap();
        assert_eq!((bare, host), (vec![1.5], vec![3.0]));
        assert_eq!(errors, [true; 3]);
    }
}
