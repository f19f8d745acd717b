use crate::db::{Retention, Row, Transaction, Value};
use crate::hours::{HOUR, count, hourly_leases};
use crate::orders::{find_orders, find_readable_orders};
use crate::ports::{SELECT_PORTS, read_port};
use crate::rows::{
    REPORTS, SELECT_LEASES, SELECT_ORDERS, customer_text, read_lease, read_order, read_state,
    readable, shorten_refused, time,
};
use crate::sql_store::{Result, SqlStore};
use async_trait::async_trait;
use paygress_core::backend::store::{
    HourlyLeases, HourlyRevenue, LeasePlace, LeaseStates, LedgerError, RefusedLimits, Reporting,
    StateCount,
};
use paygress_core::model::ids::{Customer, LeaseId, OrderId};
use paygress_core::model::order::{Lease, Order};
use paygress_core::model::units::{SignedSat, UnixTime};

/// A row of a page of leases: its place, and the lease if it can be read.
fn read_place(mut row: Row) -> Result<(LeasePlace, Row)> {
    let created_at = UnixTime(row.amount()?);
    let id = LeaseId::parse(row.text()?).map_err(LedgerError::unreadable)?;
    Ok((LeasePlace { created_at, id }, row))
}

fn read_hour(mut row: Row) -> Result<HourlyRevenue> {
    let hour = count(&mut row)?;
    Ok(HourlyRevenue {
        from: UnixTime(hour.saturating_mul(HOUR)),
        orders: count(&mut row)?,
        earned: SignedSat(row.number()?),
    })
}

fn read_state_count(mut row: Row) -> Result<StateCount> {
    Ok(StateCount { state: read_state(&row.text()?)?, orders: count(&mut row)? })
}

#[async_trait]
impl Reporting for SqlStore {
    async fn page(&self, after: Option<&OrderId>, limit: u32) -> Result<Vec<Order>> {
        let after = after.cloned();
        self.database
            .transact(move |transaction| {
                let limit = Value::Number(limit.into());
                match &after {
                    None => find_orders(transaction, "ORDER BY created_at, id LIMIT ?1", &[limit]),
                    Some(id) => {
                        let rest = "WHERE (created_at, id) >
                                (SELECT created_at, id FROM orders WHERE id = ?1)
                             ORDER BY created_at, id LIMIT ?2";
                        find_orders(transaction, rest, &[Value::from(id.as_str()), limit])
                    }
                }
            })
            .await
    }

    async fn damaged(&self) -> Result<Vec<String>> {
        let tables = [
            Table {
                name: "orders",
                key: "id",
                select: SELECT_ORDERS,
                read: |row| read_order(row).map(drop),
            },
            Table {
                name: "leases",
                key: "id",
                select: SELECT_LEASES,
                read: |row| read_lease(row).map(drop),
            },
            Table {
                name: "ports",
                key: "lease",
                select: SELECT_PORTS,
                read: |mut row| read_port(&mut row).map(drop),
            },
        ];
        let mut damaged = Vec::new();
        for table in tables {
            let mut after = Some(String::new());
            while let Some(from) = after.filter(|_| damaged.len() < REPORTS) {
                let (found, last) = self
                    .database
                    .transact(move |transaction| damaged_page(transaction, table, &from))
                    .await?;
                damaged.extend(found);
                after = last;
            }
        }
        damaged.truncate(REPORTS);
        Ok(damaged)
    }

    async fn revenue(&self, since: UnixTime) -> Result<Vec<HourlyRevenue>> {
        self.database
            .transact(move |transaction| {
                let statement = "SELECT created_at / 3600, count(CASE WHEN earned > 0 THEN 1 END),
                        CAST(sum(earned) AS BIGINT)
                     FROM orders WHERE earned <> 0 AND created_at >= ?1
                     GROUP BY created_at / 3600 ORDER BY 1";
                transaction.query(statement, &[time(since)])?.into_iter().map(read_hour).collect()
            })
            .await
    }

    async fn count_by_state(&self) -> Result<Vec<StateCount>> {
        self.database
            .transact(move |transaction| {
                let statement = "SELECT state, count(*) FROM orders GROUP BY state";
                Ok(readable(transaction.query(statement, &[])?, read_state_count))
            })
            .await
    }

    async fn hourly_leases(&self, since: UnixTime, until: UnixTime) -> Result<Vec<HourlyLeases>> {
        self.database.transact(move |transaction| hourly_leases(transaction, since, until)).await
    }

    async fn lease_page(
        &self,
        states: LeaseStates,
        of: Option<&Customer>,
        after: Option<&LeasePlace>,
        limit: u32,
    ) -> Result<(Vec<Lease>, Option<LeasePlace>)> {
        let (statement, values) = page_of_leases(states, of, after, limit);
        self.database
            .transact(move |transaction| {
                let rows = transaction.query(&statement, &values)?;
                let is_full = usize::try_from(limit).is_ok_and(|limit| rows.len() >= limit);
                let placed = readable(rows, read_place);
                let last = placed.last().map(|(place, _)| place.clone()).filter(|_| is_full);
                let leases = placed.into_iter().map(|(_, row)| row).collect();
                Ok((readable(leases, read_lease), last))
            })
            .await
    }

    async fn forget_refused(&self, before: UnixTime, limits: RefusedLimits) -> Result<u64> {
        self.database
            .transact(move |transaction| {
                let old = format!("{} AND delivered <> 0 AND created_at < ?1", REFUSED.kind);
                let mut forgotten = forget(transaction, &old, &[time(before)])?;
                if let Some(first) = REFUSED.first_beyond(transaction, limits.most)? {
                    let count = forget(transaction, &REFUSED.beyond(), &first)?;
                    forgotten = forgotten.saturating_add(count);
                }
                if let Some(first) = WHOLE.first_beyond(transaction, limits.whole)? {
                    shorten(transaction, &first)?;
                }
                Ok(forgotten)
            })
            .await
    }
}

/// The statement of a page of leases, and its values. Its rows are for [`read_place`].
fn page_of_leases(
    states: LeaseStates,
    of: Option<&Customer>,
    after: Option<&LeasePlace>,
    limit: u32,
) -> (String, Vec<Value>) {
    let mut values = vec![Value::Number(limit.into())];
    let mut conditions = match states {
        LeaseStates::Current => "state <> 'ended'",
        LeaseStates::Ended => "state = 'ended'",
        LeaseStates::All => "TRUE",
    }
    .to_owned();
    if of.is_some() {
        values.push(customer_text(of));
        conditions.push_str(" AND customer = ?2");
    }
    if let Some(LeasePlace { created_at, id }) = after {
        let (first, second) = (values.len().saturating_add(1), values.len().saturating_add(2));
        conditions = format!("{conditions} AND (created_at, id) < (?{first}, ?{second})");
        values.extend([time(*created_at), Value::from(id.as_str())]);
    }
    let statement = format!(
        "SELECT created_at, id, id, body FROM leases WHERE {conditions}
         ORDER BY created_at DESC, id DESC LIMIT ?1"
    );
    (statement, values)
}

/// Rows that are read in one transaction, so that others need not wait long.
const PAGE: u32 = 500;

/// A table whose rows one damaged row keeps nobody from reading.
#[derive(Clone, Copy)]
struct Table {
    name: &'static str,
    /// The column, a text, that tells its rows apart.
    key: &'static str,
    select: &'static str,
    read: fn(Row) -> Result<()>,
}

/// Why rows behind this key cannot be read, and the last key that was looked at; `None` at the end.
fn damaged_page(
    transaction: &mut dyn Transaction,
    Table { name, key, select, read }: Table,
    after: &str,
) -> Result<(Vec<String>, Option<String>)> {
    let last = format!(
        "SELECT max({key}) FROM
            (SELECT {key} FROM {name} WHERE {key} > ?1 ORDER BY {key} LIMIT {PAGE}) AS page"
    );
    let last = match transaction.first(&last, &[Value::from(after)])? {
        Some(mut row) => row.optional_text()?,
        None => None,
    };
    let Some(last) = last else { return Ok((Vec::new(), None)) };
    let rows = format!("{select} WHERE {key} > ?1 AND {key} <= ?2 ORDER BY {key}");
    let rows = transaction.query(&rows, &[Value::from(after), Value::from(&last)])?;
    let reasons = rows.into_iter().filter_map(|row| read(row).err());
    Ok((reasons.map(|error| error.to_string()).collect(), Some(last)))
}

/// Refused orders.
const REFUSED: Retention =
    Retention { table: "orders", time: "created_at", kind: "state = 'refused'" };
/// Those that are not shortened.
const WHOLE: Retention = Retention { kind: "state = 'refused' AND delivered < 2", ..REFUSED };
/// Orders that are shortened in one transaction, so that others need not wait long.
const SHORTENED_AT_ONCE: u32 = 1_000;

/// Deletes the orders that `condition` selects, and the leases that only these have.
fn forget(transaction: &mut dyn Transaction, condition: &str, values: &[Value]) -> Result<u64> {
    forget_leases(transaction, condition, values)?;
    let orders = format!("DELETE FROM orders WHERE {condition}");
    Ok(transaction.execute(&orders, values)?)
}

fn forget_leases(
    transaction: &mut dyn Transaction,
    condition: &str,
    values: &[Value],
) -> Result<()> {
    let leases = format!(
        "DELETE FROM leases WHERE state = 'ended'
            AND id IN (SELECT lease FROM orders WHERE {condition})
            AND NOT EXISTS
                (SELECT 1 FROM orders WHERE lease = leases.id AND state <> 'refused')"
    );
    Ok(transaction.execute(&leases, values).map(drop)?)
}

/// Keeps of these orders what it takes to answer again.
fn shorten(transaction: &mut dyn Transaction, beyond: &[Value]) -> Result<()> {
    let condition = WHOLE.beyond();
    forget_leases(transaction, &condition, beyond)?;
    let whole = format!(
        "WHERE {condition}
         ORDER BY created_at DESC, id DESC LIMIT {SHORTENED_AT_ONCE}"
    );
    for order in find_readable_orders(transaction, &whole, beyond)? {
        shorten_refused(transaction, &order)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rusqlite::{Connection, StatementStatus, params, params_from_iter};
    use std::collections::BTreeSet;

    const LEASES: u32 = 5_000;
    const OF_A_CUSTOMER: u32 = LEASES / 100;
    const LIMIT: u32 = 50;
    /// Steps of SQLite's machine for a row that is looked at, and for one that a page has: what is
    /// read grows with them, however fast the machine is.
    const STEPS_OF_A_ROW: u32 = 8;
    const STEPS_OF_A_LEASE: u32 = 25;

    /// Whether this lease has ended.
    type HasEnded = fn(u32) -> bool;

    fn customer(n: u32) -> Customer {
        Customer::parse(&format!("{:064}", n % 100)).unwrap()
    }

    /// The ledger with so many leases of 100 customers, of which these have ended.
    fn ledger(has_ended: HasEnded) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        for step in SqlStore::SCHEMA.steps {
            connection.execute_batch(step.sqlite).unwrap();
        }
        let transaction = connection.transaction().unwrap();
        for n in 0..LEASES {
            let id = LeaseId::of(&OrderId::random());
            let state = if has_ended(n) { "ended" } else { "live" };
            let insert = "INSERT INTO leases (id, pod, customer, state, created_at, body)
                 VALUES (?1, ?1, ?2, ?3, ?4, '{}')";
            // Some have begun in the same second.
            let (id, customer) = (id.as_str(), customer(n).to_string());
            // Of the connection, and not of our own trait.
            Connection::execute(&transaction, insert, params![id, customer, state, n / 3]).unwrap();
        }
        transaction.commit().unwrap();
        connection
    }

    /// A page, and the steps that it took.
    fn read(
        connection: &Connection,
        (statement, values): (String, Vec<Value>),
    ) -> (Vec<LeasePlace>, u32) {
        let mut prepared = connection.prepare(&statement).unwrap();
        let rows = prepared.query_map(params_from_iter(values), |row| {
            Ok((row.get::<_, u32>("created_at")?, row.get::<_, String>("id")?))
        });
        let rows: Vec<(u32, String)> = rows.unwrap().map(std::result::Result::unwrap).collect();
        let places = rows.into_iter().map(|(created_at, id)| LeasePlace {
            created_at: UnixTime(created_at.into()),
            id: LeaseId::parse(id).unwrap(),
        });
        let steps = prepared.get_status(StatementStatus::VmStep);
        (places.collect(), u32::try_from(steps).unwrap())
    }

    /// How many leases all pages have together, and the steps of each page.
    fn pages(
        connection: &Connection,
        states: LeaseStates,
        of: Option<&Customer>,
    ) -> (u32, Vec<u32>) {
        let (mut ids, mut steps, mut after) = (BTreeSet::new(), Vec::new(), None);
        loop {
            let (page, taken) = read(connection, page_of_leases(states, of, after.as_ref(), LIMIT));
            steps.push(taken);
            let is_full = page.len() == usize::try_from(LIMIT).unwrap();
            for place in &page {
                assert!(ids.insert(place.id.to_string()), "it is on two pages");
            }
            after = page.into_iter().last().filter(|_| is_full);
            if after.is_none() {
                return (u32::try_from(ids.len()).unwrap(), steps);
            }
        }
    }

    #[test]
    fn a_page_of_thousands_of_leases_reads_no_more_than_it_has() {
        let customer = customer(7);
        let nothing: HasEnded = |_| false;
        let most = LEASES - OF_A_CUSTOMER;
        let rows: [(HasEnded, _, _, _); 7] = [
            (nothing, LeaseStates::Current, None, LEASES),
            (nothing, LeaseStates::All, None, LEASES),
            (|n| n % 100 == 0, LeaseStates::Current, None, most),
            (|n| n % 100 != 0, LeaseStates::Current, None, OF_A_CUSTOMER),
            (|_| true, LeaseStates::Current, None, 0),
            (|n| n % 100 != 0, LeaseStates::Ended, None, most),
            (nothing, LeaseStates::Current, Some(&customer), OF_A_CUSTOMER),
        ];
        for (has_ended, states, of, expected) in rows {
            let (found, steps) = pages(&ledger(has_ended), states, of);
            assert_eq!(found, expected, "{states:?}");
            let longest = steps.into_iter().max().unwrap();
            // Those of a customer that began in the same second are sorted.
            let bound = LIMIT * STEPS_OF_A_LEASE * if of.is_some() { 2 } else { 1 };
            assert!(longest <= bound, "{states:?}: {longest} steps for a page");
        }
    }

    /// All pages together look at each lease once.
    #[test]
    fn what_is_rare_among_thousands_of_leases_is_found_by_looking_at_each_once() {
        let customer = customer(7);
        let rows: [(HasEnded, _, _, _); 3] = [
            (|n| n % 100 == 0, LeaseStates::Ended, None, OF_A_CUSTOMER),
            (|_| true, LeaseStates::Ended, Some(&customer), OF_A_CUSTOMER),
            (|_| false, LeaseStates::All, Some(&customer), OF_A_CUSTOMER),
        ];
        for (has_ended, states, of, expected) in rows {
            let (found, steps) = pages(&ledger(has_ended), states, of);
            assert_eq!(found, expected, "{states:?}");
            let steps: u32 = steps.into_iter().sum();
            assert!(steps <= LEASES * STEPS_OF_A_ROW, "{states:?}: {steps} steps");
        }
    }
}
