use crate::db::{Transaction, Value};
use crate::lease_update::find_lease;
use crate::orders::{find_orders, take_over};
use crate::ownership::conflict;
use crate::ports::{lock, release};
use crate::rows::{SELECT_LEASES, customer_text, read_lease, readable, write_lease, write_order};
use crate::sql_store::{Result, SqlStore};
use async_trait::async_trait;
use paygress_core::backend::cluster::{Ending, ReadyPod};
use paygress_core::backend::store::{LeaseStore, PodUpdate};
use paygress_core::model::ids::{Customer, PodName, PublicKey};
use paygress_core::model::order::{Lease, LeaseState, Order, State};
use paygress_core::model::units::UnixTime;

fn end(transaction: &mut dyn Transaction, lease: &Lease, orders: &[Order]) -> Result<()> {
    lock(transaction)?;
    let rest = "WHERE lease = ?1 AND state = 'active' ORDER BY created_at, id";
    let active = find_orders(transaction, rest, &[Value::from(lease.id.as_str())])?;
    let is_unknown = |stored: &&Order| !orders.iter().any(|order| order.id == stored.id);
    if let Some(unknown) = active.iter().find(is_unknown) {
        return Err(conflict(&unknown.id, State::Active));
    }
    for order in orders {
        let Some(stored) = active.iter().find(|active| active.id == order.id) else {
            return Err(conflict(&order.id, State::Active));
        };
        // The response may have been delivered since the caller read the order. A refund is a new
        // response.
        let delivered = match order.state() == State::RefundPending {
            true => order.delivered,
            false => stored.delivered,
        };
        write_order(transaction, &Order { delivered, ..order.clone() })?;
        take_over(transaction, &order.id)?;
    }
    write_lease(transaction, lease)?;
    release(transaction, &lease.id)
}

/// Oldest first.
pub(crate) fn live_leases(
    transaction: &mut dyn Transaction,
    of: Option<&Customer>,
) -> Result<Vec<Lease>> {
    let live = format!("{SELECT_LEASES} WHERE state <> 'ended'");
    let rows = match of {
        None => transaction.query(&format!("{live} ORDER BY created_at, id"), &[])?,
        Some(customer) => transaction.query(
            &format!("{live} AND customer = ?1 ORDER BY created_at, id"),
            &[customer_text(Some(customer))],
        )?,
    };
    Ok(readable(rows, read_lease))
}

/// The lease once this is known of its pod. Earlier versions write no uid: it may be the same pod.
fn with_pod(known: &Lease, running: ReadyPod) -> Lease {
    let before = ReadyPod::of(known);
    let may_be_same = before.uid.is_none() || running.uid == before.uid;
    let is_unproved = running.host_keys.is_empty() && running.uid.is_some() && may_be_same;
    let updated = ReadyPod {
        host_keys: if is_unproved { before.host_keys } else { running.host_keys },
        pod_key: before.pod_key.or(running.pod_key),
        ..running
    };
    updated.recorded_in(known.clone())
}

/// Whether nothing but the uid of a pod is new, of which none was known.
fn is_only_identified(known: &Lease, updated: &Lease) -> bool {
    let unnamed = ReadyPod { uid: None, ..ReadyPod::of(updated) };
    unnamed == ReadyPod::of(known)
}

#[async_trait]
impl LeaseStore for SqlStore {
    async fn lease(&self, pod: &PodName) -> Result<Option<Lease>> {
        let pod = pod.clone();
        self.database.transact(move |transaction| find_lease(transaction, &pod)).await
    }

    async fn lease_of_key(&self, key: &PublicKey) -> Result<Option<Lease>> {
        let key = key.clone();
        self.database
            .transact(move |transaction| {
                let statement = format!("{SELECT_LEASES} WHERE pod_key = ?1 ORDER BY id");
                let found = transaction.first(&statement, &[Value::from(key.as_str())])?;
                found.map(read_lease).transpose()
            })
            .await
    }

    async fn live_leases(&self, of: Option<&Customer>) -> Result<Vec<Lease>> {
        let of = of.cloned();
        self.database.transact(move |transaction| live_leases(transaction, of.as_ref())).await
    }

    async fn mark_ending(&self, pod: &PodName, ending: Ending) -> Result<()> {
        let pod = pod.clone();
        self.database
            .transact(move |transaction| match find_lease(transaction, &pod)? {
                Some(mut lease) if lease.state == LeaseState::Live && lease.end.is_none() => {
                    lease.end = Some(ending.reason);
                    lease.served_until = ending.served_until;
                    write_lease(transaction, &lease)
                }
                _ => Ok(()),
            })
            .await
    }

    async fn mark_noticed(
        &self,
        pod: &PodName,
        expires_at: UnixTime,
        due: UnixTime,
    ) -> Result<bool> {
        let pod = pod.clone();
        self.database
            .transact(move |transaction| match find_lease(transaction, &pod)? {
                Some(mut lease)
                    if lease.state == LeaseState::Live
                        && lease.expires_at == Some(expires_at)
                        && lease.noticed_at.is_none_or(|last| last < due) =>
                {
                    lease.noticed_at = Some(due);
                    write_lease(transaction, &lease).map(|()| true)
                }
                _ => Ok(false),
            })
            .await
    }

    async fn replace_pod(&self, before: &Lease, running: &ReadyPod) -> Result<PodUpdate> {
        let (before, running) = (before.clone(), running.clone());
        self.database
            .transact(move |transaction| {
                let known = find_lease(transaction, &before.pod())?;
                let Some(known) = known.filter(|known| known.state == LeaseState::Live) else {
                    return Ok(PodUpdate::Unchanged);
                };
                let updated = with_pod(&known, running.clone());
                if updated == known {
                    return Ok(PodUpdate::Unchanged);
                }
                if ReadyPod::of(&known) != ReadyPod::of(&before) {
                    return Ok(PodUpdate::Outdated);
                }
                write_lease(transaction, &updated)?;
                if is_only_identified(&known, &updated) {
                    return Ok(PodUpdate::Identified);
                }
                Ok(PodUpdate::Written(Box::new(updated)))
            })
            .await
    }

    async fn end_lease(&self, lease: &Lease, orders: &[Order]) -> Result<()> {
        let (lease, orders) = (lease.clone(), orders.to_vec());
        self.database.transact(move |transaction| end(transaction, &lease, &orders)).await
    }
}
