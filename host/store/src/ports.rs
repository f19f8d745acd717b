use crate::db::{Dialect, Row, Transaction, Value};
use crate::ownership::check_unfinished;
use crate::rows::{readable, unreadable_row};
use crate::sql_store::{Result, SqlStore};
use async_trait::async_trait;
use paygress_core::backend::capacity::{Capacity, Demand, NoCapacity, Reservation};
use paygress_core::backend::store::{LedgerError, PortAllocator};
use paygress_core::model::ids::LeaseId;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The first column of the first row, if there is one.
fn number(
    transaction: &mut dyn Transaction,
    statement: &str,
    values: &[Value],
) -> Result<Option<i64>> {
    Ok(transaction.first(statement, values)?.map(|mut row| row.number()).transpose()?)
}

fn port(number: i64) -> Result<u16> {
    u16::try_from(number)
        .map_err(|_| LedgerError::unreadable(format!("{number} is not a port number")))
}

/// One transaction after the other changes what is reserved. What each of them does depends on all
/// rows: at the same time they would undo each other, again and again. SQLite has one writer
/// anyway. Must come first: what is read before may be out of date once the lock is had.
pub(crate) fn lock(transaction: &mut dyn Transaction) -> Result<()> {
    match transaction.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => {
            let lock = "LOCK TABLE ports IN SHARE ROW EXCLUSIVE MODE";
            Ok(transaction.execute(lock, &[]).map(drop)?)
        }
    }
}

/// Numbers that are no port stand for the places of leases without one: in one table, since both are
/// counted together.
const FIRST_PLACE: i64 = 65_536;

/// The number of the lease's port or place.
fn current(transaction: &mut dyn Transaction, lease: &LeaseId) -> Result<Option<i64>> {
    let statement = "SELECT port FROM ports WHERE lease = ?1";
    number(transaction, statement, &[Value::from(lease.as_str())])
}

pub(crate) fn count(transaction: &mut dyn Transaction) -> Result<u32> {
    let count = number(transaction, "SELECT count(*) FROM ports", &[])?;
    Ok(u32::try_from(count.unwrap_or_default()).unwrap_or(u32::MAX))
}

/// Gives the lease a free port of the range, in the place of the one that it has.
fn assign(
    transaction: &mut dyn Transaction,
    lease: &LeaseId,
    range: &RangeInclusive<u16>,
) -> Result<Option<u16>> {
    let (first, last) = (i64::from(*range.start()), i64::from(*range.end()));
    assign_number(transaction, lease, first, last)?.map(port).transpose()
}

/// Gives the lease a free number from the first to the last, in the place of the one that it has.
fn assign_number(
    transaction: &mut dyn Transaction,
    lease: &LeaseId,
    first: i64,
    last: i64,
) -> Result<Option<i64>> {
    // From a random port on, not from the lowest: a port that was just released is left alone for a
    // while, so that old clients do not meet a new pod's host key.
    let find_free = "WITH RECURSIVE probe (port, tried) AS (
             SELECT CAST(?3 AS BIGINT), CAST(?1 AS BIGINT)
             UNION ALL
             SELECT CASE WHEN port < ?2 THEN port + 1 ELSE ?1 END, tried + 1 FROM probe
             WHERE tried < ?2)
         SELECT port FROM probe
         WHERE NOT EXISTS (SELECT 1 FROM ports WHERE ports.port = probe.port) LIMIT 1";
    let from = i64::from(getrandom::u32().unwrap_or_default())
        .checked_rem(last.saturating_sub(first).saturating_add(1))
        .map_or(first, |offset| first.saturating_add(offset));
    let values = [first.into(), last.into(), from.into()];
    let Some(free) = number(transaction, find_free, &values)? else {
        return Ok(None);
    };
    let take = "INSERT INTO ports (port, lease) VALUES (?1, ?2)
         ON CONFLICT (lease) DO UPDATE SET port = excluded.port";
    transaction.execute(take, &[free.into(), Value::from(lease.as_str())])?;
    Ok(Some(free))
}

fn reserve_place(transaction: &mut dyn Transaction, lease: &LeaseId, most: u32) -> Result<bool> {
    lock(transaction)?;
    check_unfinished(transaction, lease)?;
    if current(transaction, lease)?.is_some() {
        return Ok(true);
    }
    if count(transaction)? >= most {
        return Ok(false);
    }
    let last = FIRST_PLACE.saturating_add(i64::from(most)).saturating_sub(1);
    Ok(assign_number(transaction, lease, FIRST_PLACE, last)?.is_some())
}

pub(crate) fn release(transaction: &mut dyn Transaction, lease: &LeaseId) -> Result<()> {
    let statement = "DELETE FROM ports WHERE lease = ?1";
    Ok(transaction.execute(statement, &[Value::from(lease.as_str())]).map(drop)?)
}

fn release_unused(transaction: &mut dyn Transaction) -> Result<u32> {
    lock(transaction)?;
    let unused = "SELECT lease FROM ports
         WHERE NOT EXISTS (SELECT 1 FROM leases WHERE id = ports.lease AND state <> 'ended')
            AND NOT EXISTS (SELECT 1 FROM orders WHERE lease = ports.lease
                AND state NOT IN ('active', 'ended', 'refused', 'refunded'))";
    let mut released = 0_u32;
    for mut row in transaction.query(unused, &[])? {
        // A damaged one may be a running pod's.
        let Ok(lease) = LeaseId::parse(row.text()?) else { continue };
        release(transaction, &lease)?;
        released = released.saturating_add(1);
    }
    Ok(released)
}

/// What [`read_port`] takes. Databases of earlier versions, which the audit reads, have these columns.
pub(crate) const SELECT_PORTS: &str = "SELECT lease FROM ports";

/// Whose a port is.
pub(crate) fn read_port(row: &mut Row) -> Result<LeaseId> {
    let lease = row.text()?;
    let parsed = LeaseId::parse(lease.as_str()).map_err(LedgerError::unreadable);
    parsed.map_err(|error| unreadable_row("port of lease", &lease, error))
}

fn read_reservation(mut row: Row) -> Result<Reservation> {
    Ok(Reservation { lease: read_port(&mut row)?, demand: Demand::new(row.text()?) })
}

pub(crate) fn reservations(transaction: &mut dyn Transaction) -> Result<Vec<Reservation>> {
    let rows = transaction.query("SELECT lease, demand FROM ports ORDER BY lease", &[])?;
    Ok(readable(rows, read_reservation))
}

fn own_reservation(transaction: &mut dyn Transaction, lease: &LeaseId) -> Result<Vec<Reservation>> {
    let statement = "SELECT lease, demand FROM ports WHERE lease = ?1";
    let rows = transaction.query(statement, &[Value::from(lease.as_str())])?;
    Ok(readable(rows, read_reservation))
}

fn reserve_capacity(
    transaction: &mut dyn Transaction,
    lease: &LeaseId,
    demand: &Demand,
    capacity: Option<&dyn Capacity>,
) -> Result<std::result::Result<(), NoCapacity>> {
    lock(transaction)?;
    check_unfinished(transaction, lease)?;
    let reserved = match capacity {
        Some(_) => reservations(transaction)?,
        // Nothing is compared with the others'.
        None => own_reservation(transaction, lease)?,
    };
    let (own, others): (Vec<_>, Vec<_>) =
        reserved.into_iter().partition(|reserved| reserved.lease == *lease);
    if own.iter().any(|reserved| reserved.demand == *demand) {
        return Ok(Ok(()));
    }
    if let Some(Err(none)) = capacity.map(|capacity| capacity.check(&others, demand)) {
        return Ok(Err(none));
    }
    let statement = "UPDATE ports SET demand = ?2 WHERE lease = ?1";
    let values = [Value::from(lease.as_str()), Value::from(demand.as_str())];
    match transaction.execute(statement, &values)? {
        0 => Err(LedgerError::database(format!("lease {lease} has no port and no place"))),
        _ => Ok(Ok(())),
    }
}

#[async_trait]
impl PortAllocator for SqlStore {
    async fn reserve_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>> {
        let lease = lease.clone();
        self.database
            .transact(move |transaction| {
                lock(transaction)?;
                check_unfinished(transaction, &lease)?;
                match current(transaction, &lease)? {
                    Some(current) if current < FIRST_PLACE => port(current).map(Some),
                    Some(_) | None => assign(transaction, &lease, &range),
                }
            })
            .await
    }

    async fn reassign_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>> {
        let lease = lease.clone();
        self.database
            .transact(move |transaction| {
                lock(transaction)?;
                check_unfinished(transaction, &lease)?;
                assign(transaction, &lease, &range)
            })
            .await
    }

    async fn reserve_place(&self, lease: &LeaseId, most: u32) -> Result<bool> {
        let lease = lease.clone();
        self.database.transact(move |transaction| reserve_place(transaction, &lease, most)).await
    }

    async fn reserve_capacity(
        &self,
        lease: &LeaseId,
        demand: &Demand,
        capacity: Option<Arc<dyn Capacity>>,
    ) -> Result<std::result::Result<(), NoCapacity>> {
        let (lease, demand) = (lease.clone(), demand.clone());
        self.database
            .transact(move |transaction| {
                reserve_capacity(transaction, &lease, &demand, capacity.as_deref())
            })
            .await
    }

    async fn reservations(&self) -> Result<Vec<Reservation>> {
        self.database.transact(reservations).await
    }

    async fn release_port(&self, lease: &LeaseId) -> Result<()> {
        let lease = lease.clone();
        self.database
            .transact(move |transaction| {
                lock(transaction)?;
                check_unfinished(transaction, &lease)?;
                release(transaction, &lease)
            })
            .await
    }

    async fn release_unused_ports(&self) -> Result<u32> {
        self.database.transact(release_unused).await
    }

    async fn ports_in_use(&self) -> Result<u32> {
        self.database.transact(count).await
    }

    async fn has_free_port(&self, range: RangeInclusive<u16>) -> Result<bool> {
        self.database
            .transact(move |transaction| {
                let (first, last) = (i64::from(*range.start()), i64::from(*range.end()));
                let taken = "SELECT count(*) FROM ports WHERE port BETWEEN ?1 AND ?2";
                let taken = number(transaction, taken, &[first.into(), last.into()])?;
                Ok(taken.unwrap_or_default() <= last.saturating_sub(first))
            })
            .await
    }
}
