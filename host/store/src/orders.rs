use crate::db::{DialectSql, Row, Transaction, Value};
use crate::dialect_sql;
use crate::lease_update::OwnedLeaseUpdate;
use crate::ownership::{check_state, conflict};
use crate::rows::{SELECT_ORDERS, insert_order, read_order, readable, write_order};
use crate::sql_store::{Result, SqlStore};
use crate::transition::Transition;
use async_trait::async_trait;
use paygress_core::backend::store::{
    LeaseUpdate, LedgerError, OpenOutcome, OrderStore, Repetition,
};
use paygress_core::model::ids::{LeaseId, MessageId, OrderId};
use paygress_core::model::order::{Order, State};

pub(crate) const TAKE_OVER_ORDERS: DialectSql = dialect_sql!("take_over_orders");

fn select(transaction: &mut dyn Transaction, rest: &str, values: &[Value]) -> Result<Vec<Row>> {
    Ok(transaction.query(&format!("{SELECT_ORDERS} {rest}"), values)?)
}

/// The orders that `rest`, the statement from `WHERE` on, selects.
pub(crate) fn find_orders(
    transaction: &mut dyn Transaction,
    rest: &str,
    values: &[Value],
) -> Result<Vec<Order>> {
    select(transaction, rest, values)?.into_iter().map(read_order).collect()
}

/// As [`find_orders`], without those that cannot be read.
pub(crate) fn find_readable_orders(
    transaction: &mut dyn Transaction,
    rest: &str,
    values: &[Value],
) -> Result<Vec<Order>> {
    Ok(readable(select(transaction, rest, values)?, read_order))
}

fn find_order(
    transaction: &mut dyn Transaction,
    condition: &str,
    value: &str,
) -> Result<Option<Order>> {
    let found = find_orders(transaction, &format!("WHERE {condition}"), &[value.into()])?;
    Ok(found.into_iter().next())
}

pub(crate) fn find_order_by_id(
    transaction: &mut dyn Transaction,
    id: &OrderId,
) -> Result<Option<Order>> {
    find_order(transaction, "id = ?1", id.as_str())
}

/// Makes this replica the owner of an order.
pub(crate) fn take_over(transaction: &mut dyn Transaction, id: &OrderId) -> Result<()> {
    let values = [Value::from(id.as_str()), transaction.replica_id().into()];
    Ok(transaction.execute("UPDATE orders SET worker = ?2 WHERE id = ?1", &values).map(drop)?)
}

/// Renames the message of an order so that it may make another one.
fn release_message(transaction: &mut dyn Transaction, mut order: Order) -> Result<()> {
    let released = MessageId::parse(format!("{}:{}", order.message, order.id));
    order.message = released.map_err(LedgerError::unreadable)?;
    let statement = "UPDATE orders SET message = ?2 WHERE id = ?1";
    let values = [Value::from(order.id.as_str()), Value::from(order.message.as_str())];
    transaction.execute(statement, &values)?;
    write_order(transaction, &order)
}

fn open(
    transaction: &mut dyn Transaction,
    order: &Order,
    repetition: Repetition,
) -> Result<OpenOutcome> {
    match find_order(transaction, "message = ?1", order.message.as_str())? {
        Some(known) if repetition == Repetition::ByChosenId && known.state() == State::Refused => {
            release_message(transaction, known)?
        }
        Some(known) => return Ok(OpenOutcome::Duplicate(Box::new(known))),
        None => {}
    }
    for y in &order.token_info.ys {
        let owner = "id = (SELECT order_id FROM proofs WHERE y = ?1)";
        if let Some(other) = find_order(transaction, owner, y.as_str())? {
            return Ok(OpenOutcome::ProofConflict(Box::new(other)));
        }
    }
    insert_order(transaction, order)?;
    for y in &order.token_info.ys {
        let claim = "INSERT INTO proofs (y, order_id) VALUES (?1, ?2)";
        transaction.execute(claim, &[Value::from(y.as_str()), Value::from(order.id.as_str())])?;
    }
    Ok(OpenOutcome::Created)
}

#[async_trait]
impl OrderStore for SqlStore {
    async fn open(&self, order: &Order, repetition: Repetition) -> Result<OpenOutcome> {
        let order = order.clone();
        self.database.transact(move |transaction| open(transaction, &order, repetition)).await
    }

    async fn transition(&self, order: &Order, from: State, lease: LeaseUpdate<'_>) -> Result<()> {
        let (id, to, lease) = (order.id.clone(), order.state(), OwnedLeaseUpdate::from(lease));
        let mut transition = Transition::new(order, from)?;
        self.database
            .transact(move |transaction| {
                lease.lock(transaction)?;
                if !lease.is_allowed(transaction)? {
                    return Err(conflict(&id, from));
                }
                transition.write(transaction)?;
                if to == State::Refused {
                    let release = "DELETE FROM proofs WHERE order_id = ?1";
                    transaction.execute(release, &[Value::from(id.as_str())])?;
                }
                lease.write(transaction)
            })
            .await
    }

    async fn check_state(&self, id: &OrderId, state: State) -> Result<()> {
        let id = id.clone();
        self.database.transact(move |transaction| check_state(transaction, &id, state)).await
    }

    async fn order(&self, id: &OrderId) -> Result<Option<Order>> {
        let id = id.clone();
        self.database.transact(move |transaction| find_order_by_id(transaction, &id)).await
    }

    async fn has_room(&self) -> bool {
        self.database.has_room(self.reserve).await
    }

    async fn orders_of(&self, lease: &LeaseId) -> Result<Vec<Order>> {
        let lease = lease.clone();
        self.database
            .transact(move |transaction| {
                let rest = "WHERE lease = ?1 ORDER BY created_at, id";
                find_orders(transaction, rest, &[Value::from(lease.as_str())])
            })
            .await
    }

    async fn spawn_order(&self, lease: &LeaseId) -> Result<Option<Order>> {
        let lease = lease.clone();
        self.database
            .transact(move |transaction| {
                let of_lease = "SELECT id FROM orders WHERE lease = ?1";
                for mut row in transaction.query(of_lease, &[Value::from(lease.as_str())])? {
                    // A damaged one may be that of an extension.
                    let Ok(id) = OrderId::parse(row.text()?) else { continue };
                    if LeaseId::of(&id) == lease {
                        return find_order_by_id(transaction, &id);
                    }
                }
                Ok(None)
            })
            .await
    }

    async fn unfinished(&self) -> Result<Vec<Order>> {
        self.database
            .transact(move |transaction| {
                let replica_id = Value::from(transaction.replica_id());
                transaction.execute_dialect(TAKE_OVER_ORDERS, std::slice::from_ref(&replica_id))?;
                let own = "WHERE (delivered = 0
                        OR state NOT IN ('active', 'ended', 'refused', 'refunded'))
                     AND worker = ?1 ORDER BY created_at, id";
                find_readable_orders(transaction, own, &[replica_id])
            })
            .await
    }

    async fn delivered(&self, id: &OrderId, state: State) -> Result<()> {
        let id = id.clone();
        self.database
            .transact(move |transaction| {
                let statement = "UPDATE orders SET delivered = 1
                     WHERE id = ?1 AND (state = ?2 OR state = 'ended') AND delivered = 0";
                let values = [Value::from(id.as_str()), state.as_str().into()];
                Ok(transaction.execute(statement, &values).map(drop)?)
            })
            .await
    }
}
