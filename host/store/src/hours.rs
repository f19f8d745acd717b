//! How many pods there were, hour by hour: from what began and what ended in each.

use crate::db::{Row, Transaction, Value};
use crate::sql_store::Result;
use paygress_core::backend::store::HourlyLeases;
use paygress_core::model::units::UnixTime;
use std::collections::BTreeMap;

pub(crate) const HOUR: u64 = 3600;

/// A number of orders, or of hours; what is below zero counts as nothing.
pub(crate) fn count(row: &mut Row) -> Result<u64> {
    Ok(u64::try_from(row.number()?).unwrap_or(0))
}

/// The hour of this time, since the epoch.
fn hour_of(time: UnixTime) -> u64 {
    time.0.checked_div(HOUR).unwrap_or(0)
}

fn start_of(hour: u64) -> u64 {
    hour.saturating_mul(HOUR)
}

/// How many rows fall into each hour.
fn by_hour(
    transaction: &mut dyn Transaction,
    statement: &str,
    values: &[Value],
) -> Result<BTreeMap<u64, u64>> {
    let pair = |mut row: Row| -> Result<(u64, u64)> { Ok((count(&mut row)?, count(&mut row)?)) };
    transaction.query(statement, values)?.into_iter().map(pair).collect()
}

pub(crate) fn hourly_leases(
    transaction: &mut dyn Transaction,
    since: UnixTime,
    until: UnixTime,
) -> Result<Vec<HourlyLeases>> {
    let hours = hour_of(since)..=hour_of(until);
    let from = Value::from(start_of(*hours.start()));
    let to = Value::from(start_of(hours.end().saturating_add(1)));
    let before = "SELECT count(*) FROM leases WHERE ends_at >= ?1 AND created_at < ?1";
    let mut running = match transaction.first(before, std::slice::from_ref(&from))? {
        Some(mut row) => count(&mut row)?,
        None => 0,
    };
    let range = [from, to];
    // A clock that jumped back may have left an end before its beginning.
    let begun = "SELECT created_at / 3600, count(*) FROM leases
         WHERE ends_at >= created_at AND created_at >= ?1 AND created_at < ?2
         GROUP BY created_at / 3600";
    let begun = by_hour(transaction, begun, &range)?;
    let ended = "SELECT ends_at / 3600, count(*) FROM leases
         WHERE ends_at >= ?1 AND ends_at < ?2 AND ends_at >= created_at
         GROUP BY ends_at / 3600";
    let ended = by_hour(transaction, ended, &range)?;
    let in_hour = |counts: &BTreeMap<u64, u64>, hour| counts.get(&hour).copied().unwrap_or(0);
    Ok(hours
        .map(|hour| {
            let begun = in_hour(&begun, hour);
            let all = running.saturating_add(begun);
            running = all.saturating_sub(in_hour(&ended, hour));
            HourlyLeases { from: UnixTime(start_of(hour)), begun, running: all }
        })
        .collect())
}
