//! Statistics and comparisons as tables.

use paygress_core::backend::policy::SlotStats;
use paygress_policy::{Comparison, Difference, MAX_DIFFERENCES, ShadowReport};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) fn shadow(report: &ShadowReport) -> String {
    let mut text =
        format!("since {}\n\n{}\n", report.since.rfc3339(), stats(&report.candidates, None));
    text.push_str(&comparison(&report.comparison));
    if report.skipped > 0 {
        text.push_str(&format!(
            "\n{} orders were skipped: the candidates could not keep up\n",
            report.skipped
        ));
    }
    text
}

/// How often each code was answered.
fn refusals(stats: &SlotStats) -> String {
    let codes = stats.refusals.iter().map(|(code, count)| format!("{} {count}", code.as_str()));
    codes.collect::<Vec<_>>().join(", ")
}

/// One row per slot; with earlier statistics, also calls per second.
pub(super) fn stats(stats: &[SlotStats], before: Option<&[SlotStats]>) -> String {
    let calls: HashMap<&str, u64> = before
        .unwrap_or_default()
        .iter()
        .map(|stats| (stats.digest.as_str(), stats.calls))
        .collect();
    let mut text = format!(
        "{:<14}{:<14}{:>9}{:>8}{:>9}{:>8}{:>9}{:>9}{:>9}  {:<11}{}\n",
        "SLOT",
        "DIGEST",
        "CALLS",
        "/S",
        "REFUSED",
        "FAULTS",
        "P50 US",
        "P99 US",
        "KIB",
        "CONFIGURED",
        "REFUSALS"
    );
    for stats in stats {
        let refused = stats.refusals.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let bound = |percent| {
            stats.percentile_us(percent).map_or_else(|| "-".to_owned(), |bound| bound.to_string())
        };
        let rate = calls.get(stats.digest.as_str()).map_or_else(
            || "-".to_owned(),
            |before| stats.calls.saturating_sub(*before).to_string(),
        );
        let codes = refusals(stats);
        text.push_str(&format!(
            "{:<14}{:<14.12}{:>9}{:>8}{:>9}{:>8}{:>9}{:>9}{:>9}  {:<11}{}\n",
            stats.slot.as_str(),
            stats.digest,
            stats.calls,
            rate,
            refused,
            stats.faults,
            bound(50),
            bound(99),
            stats.memory_bytes.div_ceil(1_024),
            stats.configured.as_str(),
            codes
        ));
    }
    text
}

pub(super) fn comparison(comparison: &Comparison) -> String {
    let Comparison { orders, same, faults, .. } = comparison;
    let mut text = format!("{orders} orders, {same} of them the same, {faults} faults\n");
    if orders == same {
        return text;
    }
    text.push_str(&format!("\n\n{:<34}{:>16}{:>16}{:>16}\n", "", "was", "would be", "difference"));
    text.push_str(&row("income in sat", comparison.income_sat.0, comparison.would_be_income_sat.0));
    text.push_str(&row(
        "sold, in seconds",
        comparison.sold_seconds.0,
        comparison.would_be_sold_seconds.0,
    ));
    let codes = comparison.refused.keys().chain(comparison.would_be_refused.keys());
    for code in codes.collect::<BTreeSet<_>>() {
        let count = |counts: &BTreeMap<_, u64>| counts.get(code).copied().unwrap_or_default();
        let (was, would_be) = (count(&comparison.refused), count(&comparison.would_be_refused));
        text.push_str(&row(&format!("refused, {}", code.as_str()), was, would_be));
    }
    let differing: Vec<String> =
        comparison.differing.iter().map(|(aspect, count)| format!("{aspect} {count}")).collect();
    text.push_str(&format!("\norders that differ, by aspect: {}\n\n", differing.join(", ")));
    for Difference { order, aspect, was, would_be } in &comparison.differences {
        text.push_str(&format!("{order}  {:<12}  {was}  →  {would_be}\n", aspect.to_string()));
    }
    if comparison.differences.len() >= MAX_DIFFERENCES {
        text.push_str(&format!("… the first {MAX_DIFFERENCES} differences\n"));
    }
    text
}

fn row(name: &str, was: u64, would_be: u64) -> String {
    let sign = if would_be < was { "-" } else { "+" };
    let difference = format!("{sign}{}", was.abs_diff(would_be));
    format!("{name:<34}{was:>16}{would_be:>16}{difference:>16}\n")
}
