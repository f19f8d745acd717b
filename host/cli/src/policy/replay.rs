//! What would a candidate have said of the orders in the ledger?
#![allow(clippy::print_stdout)]

use super::Candidates;
use crate::app::{OpenMode, books, guard};
use crate::commands::PAGE;
use crate::config::Config;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use paygress_core::backend::policy::Slot;
use paygress_core::backend::store::Reporting;
use paygress_core::model::units::UnixTime;
use paygress_policy::{
    Candidate, Comparison, ComponentRef, DIFFERENCES_TOLD, PolicyEngine, Source, Sources, history,
    in_force,
};
use std::collections::BTreeMap;

/// Arguments of `paygress policy replay`.
#[derive(Args)]
pub struct Arguments {
    /// Orders that came after this: 7d, 12h, or a time like 2026-11-01T00:00:00Z.
    #[arg(long)]
    since: String,
    /// And before this; left out: until now.
    #[arg(long)]
    until: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    candidates: Candidates,
}

/// A point in time, or so long ago.
fn time(text: &str) -> Result<UnixTime> {
    let at = text.parse::<jiff::Timestamp>().or_else(|_| {
        let ago: jiff::Span = text.parse()?;
        Ok::<_, jiff::Error>(
            jiff::Zoned::now()
                .with_time_zone(jiff::tz::TimeZone::UTC)
                .checked_sub(ago)?
                .timestamp(),
        )
    });
    let at = at.map_err(|_| {
        anyhow!("{text} is neither a time nor so long ago; write 7d, 12h or 2026-11-01T00:00:00Z")
    })?;
    Ok(UnixTime(u64::try_from(at.as_second()).unwrap_or(0)))
}

pub(super) async fn replay(config: &Config, arguments: &Arguments) -> Result<()> {
    let since = time(&arguments.since)?;
    let until = arguments.until.as_deref().map(time).transpose()?.unwrap_or(UnixTime(u64::MAX));
    let candidate = candidate(config, &arguments.candidates).await?;
    let (book, _) = books(config, OpenMode::ReadOnly).await?;
    let mut comparison = Comparison::default();
    let mut last = None;
    loop {
        let page = book.page(last.as_ref(), PAGE).await?;
        let Some(end) = page.last() else { break };
        last = Some(end.id.clone());
        let asked = page.iter().filter(|order| (since..until).contains(&order.created_at));
        tokio::task::block_in_place(|| asked.for_each(|order| comparison.add(order, &candidate)));
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&comparison)?),
        false => print!("{}", table(&comparison)),
    }
    Ok(())
}

/// The candidates among what the service has in force.
async fn candidate(config: &Config, candidates: &Candidates) -> Result<Candidate> {
    let machine =
        PolicyEngine::start(Some(&config.policy_cache))?.guarded(guard(config.allowed.clone()));
    let set = in_force(&machine, &config.policy_state).map_err(|why| anyhow!("{why}"))?;
    let publications = history(&config.policy_state)?;
    let settings: &BTreeMap<Slot, ComponentRef> =
        &publications.last().context("nothing is in force")?.set;
    let mut sources = Sources::new();
    for (slot, candidate) in candidates.read()? {
        let kept = || {
            settings.get(&slot).map_or_else(|| "{}".to_owned(), |filling| filling.settings.clone())
        };
        let settings = candidate
            .settings
            .map_or_else(kept, |settings| serde_json::Value::Object(settings).to_string());
        sources.insert(
            slot,
            Source { component: candidate.component.obtained(config).await?, settings },
        );
    }
    let set = set
        .with(&machine, &sources)
        .map_err(|errors| anyhow!("{}", paygress_policy::StartError::from(errors)))?;
    Ok(Candidate::new(set, sources.keys().copied().collect()))
}

/// A comparison, for an operator to read.
pub(super) fn table(comparison: &Comparison) -> String {
    let Comparison { orders, same, faults, .. } = comparison;
    let mut text = format!("{orders} orders, {same} of them the same, {faults} faults\n");
    if orders == same {
        return text;
    }
    let mut row = |name: &str, was: u64, would_be: u64| {
        let (sign, by) = if would_be < was {
            ("-", was.abs_diff(would_be))
        } else {
            ("+", would_be.abs_diff(was))
        };
        text.push_str(&format!("{name:<34}{was:>16}{would_be:>16}{:>16}\n", format!("{sign}{by}")));
    };
    row("income in sat", comparison.income_sat.0, comparison.would_be_income_sat.0);
    row("sold, in seconds", comparison.sold_seconds.0, comparison.would_be_sold_seconds.0);
    let codes = comparison.refused.keys().chain(comparison.would_be_refused.keys());
    for code in codes.collect::<std::collections::BTreeSet<_>>() {
        let count = |counts: &BTreeMap<_, u64>| counts.get(code).copied().unwrap_or_default();
        row(
            &format!("refused, {}", code.as_str()),
            count(&comparison.refused),
            count(&comparison.would_be_refused),
        );
    }
    let text = text.split_once('\n').map(|(first, rows)| {
        format!("{first}\n\n{:<34}{:>16}{:>16}{:>16}\n{rows}", "", "was", "would be", "difference")
    });
    let mut text = text.unwrap_or_default();
    let differing: Vec<String> =
        comparison.differing.iter().map(|(what, count)| format!("{what} {count}")).collect();
    text.push_str(&format!("\norders that differ, by what: {}\n\n", differing.join(", ")));
    for difference in &comparison.differences {
        text.push_str(&format!(
            "{}  {:<12}  {}  →  {}\n",
            difference.order,
            difference.what.to_string(),
            difference.was,
            difference.would_be
        ));
    }
    if comparison.differences.len() >= DIFFERENCES_TOLD {
        text.push_str(&format!("… the first {DIFFERENCES_TOLD} differences\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_so_long_ago() {
        assert_eq!(time("1970-01-01T00:01:00Z").unwrap(), UnixTime(60));
        let ago = UnixTime::now().since(time("7d").unwrap()).0;
        assert!((7 * 86_400..7 * 86_400 + 10).contains(&ago), "{ago}");
        assert!(time("12h").unwrap() > time("13h").unwrap());
        assert!(time("yesterday").is_err());
    }
}
