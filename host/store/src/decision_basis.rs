use crate::customer_history::customer_history;
use crate::db::Transaction;
use crate::leases::live_leases;
use crate::orders::find_orders;
use crate::ports::{count, reservations};
use crate::sql_store::{Result, SqlStore};
use async_trait::async_trait;
use paygress_core::backend::store::{CustomerRecord, DecisionBasis, DecisionStore};
use paygress_core::model::ids::{Customer, LeaseId, OrderId};
use paygress_core::model::order::{Lease, LeaseState, Order};
use paygress_core::model::units::UnixTime;

fn is_named_and_unpaid(transaction: &mut dyn Transaction, lease: &Lease) -> Result<bool> {
    if lease.state != LeaseState::Reserved {
        return Ok(false);
    }
    let orders = find_orders(transaction, "WHERE lease = ?1", &[lease.id.as_str().into()])?;
    Ok(orders.iter().any(Order::is_named_and_unpaid))
}

fn customer_record(
    transaction: &mut dyn Transaction,
    customer: &Customer,
    besides: Option<&OrderId>,
    now: UnixTime,
) -> Result<CustomerRecord> {
    let own = besides.map(LeaseId::of);
    let mut leases = Vec::new();
    for lease in live_leases(transaction, Some(customer))? {
        if own.as_ref() != Some(&lease.id) && !is_named_and_unpaid(transaction, &lease)? {
            leases.push(lease);
        }
    }
    let history = customer_history(transaction, customer, besides, now)?;
    Ok(CustomerRecord { leases, history })
}

#[async_trait]
impl DecisionStore for SqlStore {
    async fn decision_basis(
        &self,
        customer: Option<&Customer>,
        besides: Option<&OrderId>,
        now: UnixTime,
    ) -> Result<DecisionBasis> {
        let (customer, besides) = (customer.cloned(), besides.cloned());
        self.database
            .transact(move |transaction| {
                let record =
                    |known| customer_record(&mut *transaction, known, besides.as_ref(), now);
                Ok(DecisionBasis {
                    customer: customer.as_ref().map(record).transpose()?,
                    reservations: reservations(transaction)?,
                    ports_in_use: count(transaction)?,
                })
            })
            .await
    }
}
