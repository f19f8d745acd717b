use crate::db::{Row, Value};
use crate::orders::find_orders;
use crate::rows::{read_state, time};
use crate::sql_store::{Result, SqlStore};
use async_trait::async_trait;
use paygress_core::backend::store::{HourlyRevenue, Reporting, StateCount};
use paygress_core::model::ids::OrderId;
use paygress_core::model::order::Order;
use paygress_core::model::units::{Sat, UnixTime};

const HOUR: u64 = 3600;

/// A number of orders or sat; what is below zero counts as nothing.
fn count(row: &mut Row) -> Result<u64> {
    Ok(u64::try_from(row.number()?).unwrap_or(0))
}

fn read_hour(mut row: Row) -> Result<HourlyRevenue> {
    let hour = count(&mut row)?;
    Ok(HourlyRevenue {
        from: UnixTime(hour.saturating_mul(HOUR)),
        orders: count(&mut row)?,
        earned: Sat(count(&mut row)?),
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

    async fn revenue(&self, since: UnixTime) -> Result<Vec<HourlyRevenue>> {
        self.database
            .transact(move |transaction| {
                let statement = "SELECT created_at / 3600, count(*), CAST(sum(earned) AS BIGINT)
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
                transaction.query(statement, &[])?.into_iter().map(read_state_count).collect()
            })
            .await
    }

    async fn forget_refused(&self, before: UnixTime) -> Result<u64> {
        self.database
            .transact(move |transaction| {
                let leases = "DELETE FROM leases WHERE state = 'ended' AND id IN
                        (SELECT lease FROM orders
                         WHERE state = 'refused' AND delivered = 1 AND created_at < ?1)
                     AND NOT EXISTS
                        (SELECT 1 FROM orders WHERE lease = leases.id AND state <> 'refused')";
                transaction.execute(leases, &[time(before)])?;
                let orders = "DELETE FROM orders
                     WHERE state = 'refused' AND delivered = 1 AND created_at < ?1";
                Ok(transaction.execute(orders, &[time(before)])?)
            })
            .await
    }
}
