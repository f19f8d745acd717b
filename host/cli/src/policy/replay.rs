//! `paygress policy replay`: what would a candidate have decided on the orders in the ledger?

use super::candidates::Candidates;
use super::tables;
use super::util::blocking;
use crate::app::{OpenMode, guard, open_stores};
use crate::commands::ledger::PAGE_SIZE;
use crate::compiler::compiler;
use crate::config::Config;
use crate::output::{print, print_line};
use anyhow::{Result, anyhow};
use clap::Args;
use paygress_core::backend::store::Reporting;
use paygress_core::model::units::UnixTime;
use paygress_policy::{
    Candidate, Comparison, ComponentRefs, PolicyEngine, Source, Sources, SwapError, history,
    load_active,
};
use serde_json::Value;
use std::sync::Arc;

#[derive(Args)]
pub struct Arguments {
    /// Orders after this time: 7d, 12h, or a time like 2026-11-01T00:00:00Z.
    #[arg(long)]
    since: String,
    /// Orders before this time. Default: now.
    #[arg(long)]
    until: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    candidates: Candidates,
}

/// Parses a point in time, or how long ago it was.
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
        anyhow!("{text} is neither a time nor a duration; write 7d, 12h or 2026-11-01T00:00:00Z")
    })?;
    Ok(UnixTime(u64::try_from(at.as_second()).unwrap_or(0)))
}

pub(super) async fn replay(config: &Config, arguments: Arguments) -> Result<()> {
    let Arguments { since, until, json, candidates } = arguments;
    let since = time(&since)?;
    let until = until.as_deref().map(time).transpose()?.unwrap_or(UnixTime(u64::MAX));
    let candidate = Arc::new(candidate(config, candidates).await?);
    let (ledger, _) = open_stores(config, OpenMode::ReadOnly).await?;
    let mut comparison = Comparison::default();
    let mut last = None;
    loop {
        let page = ledger.page(last.as_ref(), PAGE_SIZE).await?;
        let Some(end) = page.last() else { break };
        last = Some(end.id.clone());
        let candidate = Arc::clone(&candidate);
        comparison = blocking(move || {
            let orders = page.iter().filter(|order| (since..until).contains(&order.created_at));
            orders.for_each(|order| comparison.add(order, &candidate));
            Ok(comparison)
        })
        .await?;
    }
    match json {
        true => print_line(serde_json::to_string_pretty(&comparison)?),
        false => print(tables::comparison(&comparison)),
    }
    Ok(())
}

/// The candidates among the active components of the service.
async fn candidate(config: &Config, candidates: Candidates) -> Result<Candidate> {
    let state = config.policy_state.clone();
    let (given, active) = blocking(move || {
        let revisions = history(&state)?;
        let active = revisions.into_iter().next_back().map(|last| last.set).unwrap_or_default();
        Ok((candidates.read()?, active))
    })
    .await?;
    let active: ComponentRefs = active;
    let mut sources = Sources::new();
    for (slot, candidate) in given {
        let settings = match (candidate.settings, active.get(&slot)) {
            (Some(settings), _) => Value::Object(settings).to_string(),
            (None, Some(active)) => active.settings.clone(),
            (None, None) => "{}".to_owned(),
        };
        let component = candidate.component.fetch(config).await?;
        sources.insert(slot, Source { component, settings });
    }
    let (cache, state) = (config.policy_cache.clone(), config.policy_state.clone());
    let (guard, access) = (guard(config.allowed.clone()), config.access.modes().clone());
    blocking(move || {
        let engine = PolicyEngine::start(Some(&cache))?
            .with_compiler(compiler())
            .with_snapshots()
            .with_access(access)
            .with_template_guard(guard);
        let set =
            load_active(&engine, &state)?.with(&engine, &sources).map_err(SwapError::Rejected)?;
        Ok(Candidate::new(set, sources.into_keys().collect()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_durations() {
        assert_eq!(time("1970-01-01T00:01:00Z").unwrap(), UnixTime(60));
        let ago = UnixTime::now().since(time("7d").unwrap()).0;
        assert!((7 * 86_400..7 * 86_400 + 10).contains(&ago), "{ago}");
        assert!(time("12h").unwrap() > time("13h").unwrap());
        assert!(time("yesterday").is_err());
    }
}
