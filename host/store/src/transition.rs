//! The step of an order from one state to the next, in as few statements and pages as it takes.

use crate::db::{Transaction, Value};
use crate::ownership::conflict;
use crate::rows::order_columns;
use crate::sql_store::Result;
use paygress_core::model::ids::OrderId;
use paygress_core::model::order::{Order, State};

/// Leaves alone what most steps do not change: a column that is set is taken out of its indexes and
/// put in again, whatever it held. Changes no row if one of them has changed.
const WRITE_STATE: &str = "UPDATE orders SET state = ?3, counted_state = ?3, body = ?4, \
     token = ?5, password = ?6, delivered = ?8 WHERE id = ?1 AND state = ?12 AND worker = ?13 \
     AND lease IS NOT DISTINCT FROM ?2 AND refund_token IS NOT DISTINCT FROM ?7 AND earned = ?9 \
     AND counted_sat IS NOT DISTINCT FROM ?10 AND counted_seconds IS NOT DISTINCT FROM ?11";

const WRITE_ALL: &str = "UPDATE orders SET lease = ?2, state = ?3, body = ?4, token = ?5, \
     password = ?6, refund_token = ?7, delivered = ?8, earned = ?9, counted_sat = ?10, \
     counted_seconds = ?11, counted_state = ?3 WHERE id = ?1 AND state = ?12 AND worker = ?13";

/// An order in its new state, in the form in which it is written: made once, however often the
/// transaction runs.
pub(crate) struct Transition {
    id: OrderId,
    from: State,
    /// The order's columns, the state that it was in, and the replica that writes it.
    values: [Value; 13],
}

impl Transition {
    pub(crate) fn new(order: &Order, from: State) -> Result<Self> {
        let [id, lease, state, body, token, password, refund, delivered, earned, sat, seconds] =
            order_columns(order)?;
        let (before, replica) = (from.as_str().into(), Value::Null);
        let values = [
            id, lease, state, body, token, password, refund, delivered, earned, sat, seconds,
            before, replica,
        ];
        Ok(Self { id: order.id.clone(), from, values })
    }

    /// Fails with [`LedgerError::Conflict`](paygress_core::backend::store::LedgerError::Conflict)
    /// unless the stored order is in the state before and this replica's.
    pub(crate) fn write(&mut self, transaction: &mut dyn Transaction) -> Result<()> {
        let [.., replica] = &mut self.values;
        *replica = transaction.replica_id().into();
        for statement in [WRITE_STATE, WRITE_ALL] {
            if transaction.execute(statement, &self.values)? > 0 {
                return Ok(());
            }
        }
        Err(conflict(&self.id, self.from))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{WRITE_ALL, WRITE_STATE};
    use crate::SqlStore;
    use crate::db::Value;
    use rusqlite::{Connection, params_from_iter};
    use std::iter::repeat_n;

    fn schema() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        for step in SqlStore::SCHEMA.steps {
            connection.execute_batch(step.sqlite).unwrap();
        }
        connection
    }

    /// Tables and indexes of orders that a statement writes.
    fn written(connection: &Connection, statement: &str) -> Vec<String> {
        let names = "SELECT name FROM sqlite_master WHERE tbl_name = 'orders' AND rootpage IN (%)";
        let mut explained = connection.prepare(&format!("EXPLAIN {statement}")).unwrap();
        let opened = explained
            .query_map(params_from_iter(repeat_n(Value::Null, 13)), |row| {
                Ok((row.get::<_, String>("opcode")?, row.get::<_, i64>("p2")?))
            })
            .unwrap();
        let pages: Vec<String> = opened
            .map(Result::unwrap)
            .filter(|(opcode, _)| opcode == "OpenWrite")
            .map(|(_, page)| page.to_string())
            .collect();
        let mut names = connection.prepare(&names.replace('%', &pages.join(", "))).unwrap();
        names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn an_index_of_what_has_not_changed_is_not_written() {
        let connection = schema();
        let rarely_changed = [
            "orders_lease",
            "orders_earned",
            "orders_unclaimed",
            "orders_unclaimed_by",
            "orders_counted",
        ];
        let (few, all) = (written(&connection, WRITE_STATE), written(&connection, WRITE_ALL));
        for index in rarely_changed {
            assert!(!few.iter().any(|name| name == index), "{few:?}");
            assert!(all.iter().any(|name| name == index), "{all:?}");
        }
        assert!(few.iter().any(|name| name == "orders_state"), "{few:?}");
    }

    #[test]
    fn the_order_is_found_by_its_id() {
        let connection = schema();
        for statement in [WRITE_STATE, WRITE_ALL] {
            let plan = format!("EXPLAIN QUERY PLAN {statement}");
            let plan: String = connection
                .query_row(&plan, params_from_iter(repeat_n(Value::Null, 13)), |row| {
                    row.get("detail")
                })
                .unwrap();
            assert!(plan.contains("(id=?)"), "{plan}");
        }
    }
}
