//! What a customer has ordered, from one index: up to a number of orders, the first one, and those of
//! the last day. Orders of earlier days are not read.
//!
//! While replicas of an earlier version are being replaced they write orders without what counts of
//! them. Another index has these orders, and they are counted before their customer's history is read.

use crate::db::{Transaction, Value};
use crate::rows::{SELECT_ORDERS, customer_text, read_order, readable, time, write_counted};
use crate::sql_store::Result;
use paygress_core::backend::policy::CustomerHistory;
use paygress_core::backend::store::LedgerError;
use paygress_core::limits;
use paygress_core::model::ids::{Customer, OrderId};
use paygress_core::model::units::{Sat, Seconds, UnixTime};

/// Which orders of a customer an earlier version has written. In `sql/ledger_9.sql` their index has the
/// same condition.
macro_rules! uncounted {
    () => {
        "customer = ?1 AND counted_state IS DISTINCT FROM state
            AND (state <> 'refused' OR counted_sat IS NOT NULL)"
    };
}

const STATEMENT: &str = concat!(
    "SELECT
        (SELECT count(*) FROM (SELECT 1 FROM orders
            WHERE customer = ?1 AND counted_sat IS NOT NULL AND id <> ?2 LIMIT ?4) AS counted),
        (SELECT created_at FROM orders
            WHERE customer = ?1 AND counted_sat IS NOT NULL AND id <> ?2
            ORDER BY created_at LIMIT 1),
        CAST(coalesce(sum(counted_sat), 0) AS BIGINT),
        CAST(coalesce(sum(counted_seconds), 0) AS BIGINT),
        min(created_at),
        count(*) - count(counted_seconds),
        (SELECT count(*) FROM orders WHERE ",
    uncounted!(),
    ")
     FROM orders
     WHERE customer = ?1 AND counted_sat IS NOT NULL AND id <> ?2 AND created_at > ?3"
);

/// After [`SELECT_ORDERS`].
const UNCOUNTED: &str = concat!("WHERE ", uncounted!());

/// Without the order `besides`, at this time.
pub(crate) fn customer_history(
    transaction: &mut dyn Transaction,
    customer: &Customer,
    besides: Option<&OrderId>,
    now: UnixTime,
) -> Result<CustomerHistory> {
    let values = [
        customer_text(Some(customer)),
        besides.map_or("", OrderId::as_str).into(),
        time(now.minus(Seconds(limits::HISTORY_DAY))),
        Value::Number(limits::HISTORY_ORDERS.into()),
    ];
    let (history, uncounted) = read(transaction, &values, now)?;
    if uncounted == 0 {
        return Ok(history);
    }
    count(transaction, customer)?;
    // Those that are left cannot be read.
    Ok(read(transaction, &values, now)?.0)
}

/// The history as it is counted, and how many orders are not.
fn read(
    transaction: &mut dyn Transaction,
    values: &[Value],
    now: UnixTime,
) -> Result<(CustomerHistory, u64)> {
    let row = transaction.first(STATEMENT, values)?;
    let mut row = row.ok_or_else(|| LedgerError::unreadable("a sum has no row"))?;
    let ago = |at: u64| now.since(UnixTime(at));
    let history = CustomerHistory {
        orders: u32::try_from(row.amount()?).unwrap_or(limits::HISTORY_ORDERS),
        first_ago: row.optional_amount()?.map(ago),
        last_day_paid: Sat(row.amount()?),
        last_day_bought: Seconds(row.amount()?),
        last_day_first_ago: row.optional_amount()?.map(ago),
        last_day_undecided: u32::try_from(row.amount()?).unwrap_or(u32::MAX),
    };
    Ok((history, row.amount()?))
}

/// Counts the orders of this customer that an earlier version has written.
fn count(transaction: &mut dyn Transaction, customer: &Customer) -> Result<()> {
    let statement = format!("{SELECT_ORDERS} {UNCOUNTED}");
    let rows = transaction.query(&statement, &[customer_text(Some(customer))])?;
    for order in readable(rows, read_order) {
        write_counted(transaction, &order)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{STATEMENT, UNCOUNTED};
    use crate::SqlStore;
    use crate::db::Value;
    use crate::rows::SELECT_ORDERS;
    use rusqlite::{Connection, params_from_iter};
    use std::iter::repeat_n;

    const FIND_UNCOUNTED: &str = "SEARCH orders USING INDEX orders_uncounted (customer=?)";

    /// How SQLite finds the rows of this statement with so many values.
    fn plan(statement: &str, values: usize) -> Vec<String> {
        let connection = Connection::open_in_memory().unwrap();
        for step in SqlStore::SCHEMA.steps {
            connection.execute_batch(step.sqlite).unwrap();
        }
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        explained
            .query_map(params_from_iter(repeat_n(Value::Null, values)), |row| row.get("detail"))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn a_history_is_read_from_its_indexes_alone() {
        let plan = plan(STATEMENT, 4);
        let searches = plan.iter().filter(|step| step.contains("orders"));
        let (uncounted, counted): (Vec<&String>, Vec<&String>) =
            searches.partition(|step| *step == FIND_UNCOUNTED);
        let index = "SEARCH orders USING COVERING INDEX orders_counted (customer=?";
        assert_eq!((uncounted.len(), counted.len()), (1, 3), "{plan:?}");
        assert!(counted.iter().all(|step| step.starts_with(index)), "{plan:?}");
        assert!(plan.iter().any(|step| step.contains("created_at>?")), "{plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:?}");
    }

    #[test]
    fn what_an_earlier_version_has_written_is_found_by_its_index() {
        assert_eq!(plan(&format!("{SELECT_ORDERS} {UNCOUNTED}"), 1), [FIND_UNCOUNTED]);
    }
}
