//! Whose an order is: what another replica has taken over, or ended, is not changed.

use crate::db::{Transaction, Value};
use crate::rows::read_state;
use crate::sql_store::Result;
use paygress_core::backend::store::LedgerError;
use paygress_core::model::ids::{LeaseId, OrderId};
use paygress_core::model::order::State;

pub(crate) fn conflict(order: &OrderId, expected: State) -> LedgerError {
    LedgerError::Conflict { order: order.clone(), expected: expected.as_str() }
}

/// Fails with [`LedgerError::Conflict`] unless the order is in this state and this replica's.
pub(crate) fn check_state(
    transaction: &mut dyn Transaction,
    id: &OrderId,
    expected: State,
) -> Result<()> {
    let statement = "SELECT state, worker FROM orders WHERE id = ?1";
    let Some(mut row) = transaction.first(statement, &[Value::from(id.as_str())])? else {
        return Err(conflict(id, expected));
    };
    let (state, owner) = (row.text()?, row.number()?);
    match state == expected.as_str() && owner == transaction.replica_id().as_i64() {
        true => Ok(()),
        false => Err(conflict(id, expected)),
    }
}

/// Fails with [`LedgerError::Conflict`] if the order that makes this lease is final, or another
/// replica's.
pub(crate) fn check_unfinished(transaction: &mut dyn Transaction, lease: &LeaseId) -> Result<()> {
    let statement = "SELECT id, state, worker FROM orders WHERE lease = ?1";
    for mut row in transaction.query(statement, &[Value::from(lease.as_str())])? {
        let id = OrderId::parse(row.text()?).map_err(LedgerError::unreadable)?;
        let (state, owner) = (read_state(&row.text()?)?, row.number()?);
        let is_own = owner == transaction.replica_id().as_i64();
        // Others extend it.
        if LeaseId::of(&id) == *lease && (state.is_final() || !is_own) {
            return Err(conflict(&id, State::Received));
        }
    }
    Ok(())
}
