//! What a customer has ordered, from one index: up to a number of orders, the first one, and those of
//! the last day. Orders of earlier days are not read.

use crate::db::{Transaction, Value};
use crate::rows::{customer_text, time};
use crate::sql_store::Result;
use paygress_core::backend::policy::CustomerHistory;
use paygress_core::backend::store::LedgerError;
use paygress_core::limits;
use paygress_core::model::ids::{Customer, OrderId};
use paygress_core::model::units::{Sat, Seconds, UnixTime};

const STATEMENT: &str = "SELECT
        (SELECT count(*) FROM (SELECT 1 FROM orders
            WHERE customer = ?1 AND counted_sat IS NOT NULL AND id <> ?2 LIMIT ?4) AS counted),
        (SELECT created_at FROM orders
            WHERE customer = ?1 AND counted_sat IS NOT NULL AND id <> ?2
            ORDER BY created_at LIMIT 1),
        CAST(coalesce(sum(counted_sat), 0) AS BIGINT),
        CAST(coalesce(sum(counted_seconds), 0) AS BIGINT),
        min(created_at),
        count(*) - count(counted_seconds)
     FROM orders
     WHERE customer = ?1 AND counted_sat IS NOT NULL AND id <> ?2 AND created_at > ?3";

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
    let row = transaction.first(STATEMENT, &values)?;
    let mut row = row.ok_or_else(|| LedgerError::unreadable("a sum has no row"))?;
    let ago = |at: u64| now.since(UnixTime(at));
    Ok(CustomerHistory {
        orders: u32::try_from(row.amount()?).unwrap_or(limits::HISTORY_ORDERS),
        first_ago: row.optional_amount()?.map(ago),
        last_day_paid: Sat(row.amount()?),
        last_day_bought: Seconds(row.amount()?),
        last_day_first_ago: row.optional_amount()?.map(ago),
        last_day_undecided: u32::try_from(row.amount()?).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::STATEMENT;
    use crate::SqlStore;
    use crate::db::Value;
    use rusqlite::{Connection, params_from_iter};
    use std::iter::repeat_n;

    #[test]
    fn a_history_is_read_from_its_index_alone() {
        let connection = Connection::open_in_memory().unwrap();
        for step in SqlStore::SCHEMA.steps {
            connection.execute_batch(step.sqlite).unwrap();
        }
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {STATEMENT}")).unwrap();
        let plan: Vec<String> = explained
            .query_map(params_from_iter(repeat_n(Value::Null, 4)), |row| row.get("detail"))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let searches: Vec<&String> = plan.iter().filter(|step| step.contains("orders")).collect();
        let index = "SEARCH orders USING COVERING INDEX orders_counted (customer=?";
        assert_eq!(searches.len(), 3, "{plan:?}");
        assert!(searches.iter().all(|step| step.starts_with(index)), "{plan:?}");
        assert!(plan.iter().any(|step| step.contains("created_at>?")), "{plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:?}");
    }
}
