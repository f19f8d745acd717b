//! What is written and read, once for every database.

use crate::migrations::STEPS;
use async_trait::async_trait;
use paygress_core::backend::cluster::EndReason;
use paygress_core::backend::responder::Transport;
use paygress_core::backend::store::{HourlyRevenue, LeaseUpdate, Ledger, LedgerError, OpenOutcome};
use paygress_core::model::order::{Lease, LeaseState, Order, OrderSecrets, State};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Customer, LeaseId, OrderId, PodName, Sat, Seconds, UnixTime};
use crate::db::{Database, OpenError, Row, Schema, Transaction, Value};
use std::ops::RangeInclusive;
use std::path::Path;

/// A ledger in a database.
#[derive(Clone)]
pub struct SqlStore {
    database: Database,
}

type Result<T> = std::result::Result<T, LedgerError>;

impl SqlStore {
    /// What a database needs to hold a ledger.
    pub const SCHEMA: Schema = Schema { name: "ledger", steps: STEPS };

    /// The ledger in this database, opened with [`SqlStore::SCHEMA`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// One SQLite file, for this process alone.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn sqlite(path: &Path) -> std::result::Result<Self, OpenError> {
        Database::sqlite(path, Self::SCHEMA).map(Self::new)
    }
}

const ORDER: &str = "SELECT body, token, password, refund_token, delivered FROM orders";
const UNFINISHED: &str =
    "(delivered = 0 OR state NOT IN ('active', 'ended', 'refused', 'refunded'))";

fn read_order(mut row: Row) -> Result<Order> {
    let order: Order = parse(&row.text()?)?;
    let mut secret = || Ok::<_, LedgerError>(row.maybe()?.map(Secret::new));
    let secrets = OrderSecrets { token: secret()?, password: secret()?, refund_token: secret()? };
    Ok(Order { secrets, delivered: row.number()? != 0, ..order })
}

fn parse<T: serde::de::DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(|error| LedgerError::Unreadable(error.to_string()))
}

fn body<T: serde::Serialize>(value: &T) -> Result<Value> {
    serde_json::to_string(value)
        .map(Value::Text)
        .map_err(|error| LedgerError::Unreadable(error.to_string()))
}

fn stored(time: UnixTime) -> Value {
    time.0.into()
}

fn port_of(number: i64) -> Result<u16> {
    u16::try_from(number).map_err(|_| LedgerError::Unreadable(format!("port {number}")))
}

fn find_orders(
    transaction: &mut dyn Transaction,
    rest: &str,
    values: &[Value],
) -> Result<Vec<Order>> {
    transaction.query(&format!("{ORDER} {rest}"), values)?.into_iter().map(read_order).collect()
}

fn find_order(
    transaction: &mut dyn Transaction,
    condition: &str,
    value: &str,
) -> Result<Option<Order>> {
    Ok(find_orders(transaction, &format!("WHERE {condition}"), &[value.into()])?.into_iter().next())
}

/// The first column of the only row, if there is one.
fn number(
    transaction: &mut dyn Transaction,
    statement: &str,
    values: &[Value],
) -> Result<Option<i64>> {
    Ok(transaction.first(statement, values)?.map(|mut row| row.number()).transpose()?)
}

fn write_order(transaction: &mut dyn Transaction, order: &Order) -> Result<()> {
    let text = |secret: &Option<Secret>| Value::from(secret.as_ref().map(Secret::expose));
    let statement =
        "UPDATE orders SET lease = ?2, state = ?3, body = ?4, token = ?5, password = ?6, refund_token = ?7, delivered = ?8, earned = ?9
         WHERE id = ?1";
    let values = [
        Value::from(&order.id.0),
        order.lease.as_ref().map(LeaseId::as_str).into(),
        order.state.as_str().into(),
        body(order)?,
        text(&order.secrets.token),
        text(&order.secrets.password),
        text(&order.secrets.refund_token),
        Value::Number(order.delivered.into()),
        i64::try_from(order.earned().0).unwrap_or(i64::MAX).into(),
    ];
    Ok(transaction.execute(statement, &values).map(drop)?)
}

fn find_lease(transaction: &mut dyn Transaction, pod: &PodName) -> Result<Option<Lease>> {
    let row =
        transaction.first("SELECT body FROM leases WHERE pod = ?1", &[Value::from(&pod.0)])?;
    row.map(|mut row| parse(&row.text()?)).transpose()
}

fn write_lease(transaction: &mut dyn Transaction, lease: &Lease) -> Result<()> {
    let state = match lease.state {
        LeaseState::Reserved => "reserved",
        LeaseState::Live => "live",
        LeaseState::Ended => "ended",
    };
    let statement = "INSERT INTO leases (id, pod, customer, state, created_at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body";
    let values = [
        Value::from(&lease.id.0),
        lease.pod().0.into(),
        Value::from(&lease.customer.0),
        state.into(),
        stored(lease.created_at),
        body(lease)?,
    ];
    Ok(transaction.execute(statement, &values).map(drop)?)
}

fn move_end(
    transaction: &mut dyn Transaction,
    pod: &PodName,
    new_end: impl FnOnce(UnixTime) -> UnixTime,
) -> Result<()> {
    match find_lease(transaction, pod)? {
        Some(mut lease) if lease.state != LeaseState::Ended => {
            lease.expires_at = lease.expires_at.map(new_end);
            write_lease(transaction, &lease)
        }
        _ => Ok(()),
    }
}

fn pick_port(
    transaction: &mut dyn Transaction,
    lease: &LeaseId,
    range: &RangeInclusive<u16>,
) -> Result<Option<u16>> {
    // From somewhere on, not the lowest: a port that was just freed rests, so that old clients do
    // not meet a new pod's host key.
    let free = "WITH RECURSIVE probe (port, tried) AS (
             SELECT CAST(?3 AS BIGINT), CAST(?1 AS BIGINT)
             UNION ALL SELECT CASE WHEN port < ?2 THEN port + 1 ELSE ?1 END, tried + 1 FROM probe WHERE tried < ?2)
         SELECT port FROM probe WHERE NOT EXISTS (SELECT 1 FROM ports WHERE ports.port = probe.port) LIMIT 1";
    let (first, last) = (i64::from(*range.start()), i64::from(*range.end()));
    let from = i64::from(getrandom::u32().unwrap_or_default())
        .checked_rem(last.saturating_sub(first).saturating_add(1))
        .map_or(first, |offset| first.saturating_add(offset));
    let Some(port) = number(transaction, free, &[first.into(), last.into(), from.into()])? else {
        return Ok(None);
    };
    let take = "INSERT INTO ports (port, lease) VALUES (?1, ?2) ON CONFLICT (lease) DO UPDATE SET port = excluded.port";
    transaction.execute(take, &[port.into(), Value::from(&lease.0)])?;
    port_of(port).map(Some)
}

fn free_port(transaction: &mut dyn Transaction, lease: &LeaseId) -> Result<()> {
    Ok(transaction
        .execute("DELETE FROM ports WHERE lease = ?1", &[Value::from(&lease.0)])
        .map(drop)?)
}

/// The state of an order that this process works; [`LedgerError::Conflict`] when it is another one,
/// or another's.
fn check_state(transaction: &mut dyn Transaction, id: &OrderId, expected: State) -> Result<()> {
    let row = transaction
        .first("SELECT state, worker FROM orders WHERE id = ?1", &[Value::from(&id.0)])?;
    let found =
        row.map(|mut row| Ok::<_, LedgerError>((row.text()?, row.number()?))).transpose()?;
    match found {
        Some((state, worker)) if state == expected.as_str() && worker == transaction.worker() => {
            Ok(())
        }
        _ => Err(LedgerError::Conflict { order: id.clone(), expected: expected.as_str() }),
    }
}

/// What a move does to the lease, kept over the border of a thread.
#[derive(Clone)]
enum Change {
    Keep,
    Put(Box<Lease>),
    Extend(PodName, Seconds),
    Shorten(PodName, Seconds),
}

impl From<LeaseUpdate<'_>> for Change {
    fn from(change: LeaseUpdate<'_>) -> Self {
        match change {
            LeaseUpdate::Keep => Self::Keep,
            LeaseUpdate::Put(lease) => Self::Put(Box::new(lease.clone())),
            LeaseUpdate::Extend(pod, by) => Self::Extend(pod.clone(), by),
            LeaseUpdate::Shorten(pod, by) => Self::Shorten(pod.clone(), by),
        }
    }
}

impl Change {
    fn write(&self, transaction: &mut dyn Transaction) -> Result<()> {
        match self {
            Self::Keep => Ok(()),
            Self::Put(lease) => write_lease(transaction, lease),
            Self::Extend(pod, by) => move_end(transaction, pod, |end| end.after(*by)),
            Self::Shorten(pod, by) => {
                move_end(transaction, pod, |end| UnixTime(end.0.saturating_sub(by.0)))
            }
        }
    }
}

#[async_trait]
impl Ledger for SqlStore {
    async fn open(&self, order: &Order) -> Result<OpenOutcome> {
        let order = order.clone();
        self.database
            .transact(move |transaction| {
                match find_order(transaction, "message = ?1", &order.message)? {
                    Some(mut known) if known.reply_to.door == Transport::Http && known.state == State::Refused => {
                        // Nothing came of it: who asks again with the same key asks anew.
                        known.message = format!("{}:{}", known.message, known.id);
                        let rename = "UPDATE orders SET message = ?2 WHERE id = ?1";
                        transaction.execute(rename, &[Value::from(&known.id.0), Value::from(&known.message)])?;
                        write_order(transaction, &known)?;
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
                let insert =
                    "INSERT INTO orders (id, message, customer, state, created_at, worker, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, '')";
                let values = [
                    Value::from(&order.id.0),
                    Value::from(&order.message),
                    Value::from(&order.customer().0),
                    order.state.as_str().into(),
                    stored(order.created_at),
                    transaction.worker().into(),
                ];
                transaction.execute(insert, &values)?;
                write_order(transaction, &order)?;
                for y in &order.token_info.ys {
                    let claim = "INSERT INTO proofs (y, order_id) VALUES (?1, ?2)";
                    transaction.execute(claim, &[Value::from(&y.0), Value::from(&order.id.0)])?;
                }
                Ok(OpenOutcome::Created)
            })
            .await
    }

    async fn transition(&self, order: &Order, from: State, lease: LeaseUpdate<'_>) -> Result<()> {
        let (order, lease) = (order.clone(), Change::from(lease));
        self.database
            .transact(move |transaction| {
                check_state(transaction, &order.id, from)?;
                write_order(transaction, &order)?;
                if order.state == State::Refused {
                    transaction.execute(
                        "DELETE FROM proofs WHERE order_id = ?1",
                        &[Value::from(&order.id.0)],
                    )?;
                }
                lease.write(transaction)
            })
            .await
    }

    async fn order(&self, id: &OrderId) -> Result<Option<Order>> {
        let id = id.clone();
        self.database.transact(move |transaction| find_order(transaction, "id = ?1", &id.0)).await
    }

    async fn unfinished(&self) -> Result<Vec<Order>> {
        self.database
            .transact(move |transaction| {
                let (me, elsewhere) = (transaction.worker(), transaction.is_alive_elsewhere("worker"));
                let take = format!("UPDATE orders SET worker = ?1 WHERE {UNFINISHED} AND worker <> ?1 AND NOT {elsewhere}");
                transaction.execute(&take, &[me.into()])?;
                find_orders(transaction, &format!("WHERE {UNFINISHED} AND worker = ?1 ORDER BY created_at, id"), &[me.into()])
            })
            .await
    }

    async fn delivered(&self, id: &OrderId, state: State) -> Result<()> {
        let id = id.clone();
        self.database
            .transact(move |transaction| {
                let note = "UPDATE orders SET delivered = 1 WHERE id = ?1 AND (state = ?2 OR state = 'ended')";
                Ok(transaction.execute(note, &[Value::from(&id.0), state.as_str().into()]).map(drop)?)
            })
            .await
    }

    async fn page(&self, after: Option<&OrderId>, limit: u32) -> Result<Vec<Order>> {
        let after = after.cloned();
        self.database
            .transact(move |transaction| {
                let limit = Value::Number(limit.into());
                match &after {
                    None => find_orders(transaction, "ORDER BY created_at, id LIMIT ?1", &[limit]),
                    Some(id) => {
                        let rest =
                            "WHERE (created_at, id) > (SELECT created_at, id FROM orders WHERE id = ?1) ORDER BY created_at, id LIMIT ?2";
                        find_orders(transaction, rest, &[Value::from(&id.0), limit])
                    }
                }
            })
            .await
    }

    async fn orders_of(&self, lease: &LeaseId) -> Result<Vec<Order>> {
        let lease = lease.clone();
        self.database
            .transact(move |transaction| {
                find_orders(
                    transaction,
                    "WHERE lease = ?1 ORDER BY created_at, id",
                    &[Value::from(&lease.0)],
                )
            })
            .await
    }

    async fn pending_refunds(&self, of: Option<&Customer>) -> Result<Vec<Order>> {
        let of = of.map(|customer| customer.0.clone());
        self.database
            .transact(move |transaction| match &of {
                None => find_orders(transaction, "WHERE refund_token IS NOT NULL AND state = 'refunded' ORDER BY created_at, id", &[]),
                Some(customer) => {
                    let of_one = "WHERE customer = ?1 AND ((refund_token IS NOT NULL AND state = 'refunded') OR state = 'refund-pending')
                             ORDER BY created_at, id";
                    find_orders(transaction, of_one, &[Value::from(customer)])
                }
            })
            .await
    }

    async fn close_refund(&self, order: &Order) -> Result<()> {
        let order = order.clone();
        self.database
            .transact(move |transaction| match find_order(transaction, "id = ?1", &order.id.0)? {
                Some(stored) if stored.state == State::Refunded && stored.refund_end.is_none() => {
                    write_order(
                        transaction,
                        &Order { delivered: stored.delivered, ..order.clone() },
                    )
                }
                _ => Err(LedgerError::Conflict {
                    order: order.id.clone(),
                    expected: State::Refunded.as_str(),
                }),
            })
            .await
    }

    async fn forget_refused(&self, before: UnixTime) -> Result<u64> {
        self.database
            .transact(move |transaction| {
                let leases = "DELETE FROM leases WHERE state = 'ended' AND id IN
                     (SELECT lease FROM orders WHERE state = 'refused' AND delivered = 1 AND created_at < ?1)
                     AND NOT EXISTS (SELECT 1 FROM orders WHERE lease = leases.id AND state <> 'refused')";
                transaction.execute(leases, &[stored(before)])?;
                let old = "DELETE FROM orders WHERE state = 'refused' AND delivered = 1 AND created_at < ?1";
                Ok(transaction.execute(old, &[stored(before)])?)
            })
            .await
    }

    async fn reserve_port(
        &self,
        lease: &LeaseId,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>> {
        let lease = lease.clone();
        self.database
            .transact(move |transaction| {
                match number(
                    transaction,
                    "SELECT port FROM ports WHERE lease = ?1",
                    &[Value::from(&lease.0)],
                )? {
                    Some(port) => port_of(port).map(Some),
                    None => pick_port(transaction, &lease, &range),
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
        self.database.transact(move |transaction| pick_port(transaction, &lease, &range)).await
    }

    async fn release_port(&self, lease: &LeaseId) -> Result<()> {
        let lease = lease.clone();
        self.database.transact(move |transaction| free_port(transaction, &lease)).await
    }

    async fn ports_in_use(&self) -> Result<u32> {
        self.database
            .transact(|transaction| {
                let count =
                    number(transaction, "SELECT count(*) FROM ports", &[])?.unwrap_or_default();
                Ok(u32::try_from(count).unwrap_or(u32::MAX))
            })
            .await
    }

    async fn lease(&self, pod: &PodName) -> Result<Option<Lease>> {
        let pod = pod.clone();
        self.database.transact(move |transaction| find_lease(transaction, &pod)).await
    }

    async fn live_leases(&self, of: Option<&Customer>) -> Result<Vec<Lease>> {
        let of = of.map(|customer| customer.0.clone());
        self.database
            .transact(move |transaction| {
                let live = "SELECT body FROM leases WHERE state <> 'ended'";
                let rows = match &of {
                    None => transaction.query(&format!("{live} ORDER BY created_at, id"), &[])?,
                    Some(customer) => transaction.query(
                        &format!("{live} AND customer = ?1 ORDER BY created_at, id"),
                        &[Value::from(customer)],
                    )?,
                };
                rows.into_iter().map(|mut row| parse(&row.text()?)).collect()
            })
            .await
    }

    async fn mark_ending(&self, pod: &PodName, reason: EndReason) -> Result<()> {
        let pod = pod.clone();
        self.database
            .transact(move |transaction| match find_lease(transaction, &pod)? {
                Some(mut lease) if lease.state == LeaseState::Live => {
                    lease.end = Some(reason);
                    write_lease(transaction, &lease)
                }
                _ => Ok(()),
            })
            .await
    }

    async fn end_lease(&self, lease: &Lease, orders: &[Order]) -> Result<()> {
        let (lease, orders) = (lease.clone(), orders.to_vec());
        self.database
            .transact(move |transaction| {
                let active = find_orders(
                    transaction,
                    "WHERE lease = ?1 AND state = 'active' ORDER BY created_at, id",
                    &[Value::from(&lease.id.0)],
                )?;
                if let Some(other) =
                    active.iter().find(|active| !orders.iter().any(|order| order.id == active.id))
                {
                    return Err(LedgerError::Conflict {
                        order: other.id.clone(),
                        expected: State::Active.as_str(),
                    });
                }
                for order in &orders {
                    let Some(stored) = active.iter().find(|active| active.id == order.id) else {
                        return Err(LedgerError::Conflict {
                            order: order.id.clone(),
                            expected: State::Active.as_str(),
                        });
                    };
                    // An answer may have been delivered since these orders were read; a refund is
                    // news.
                    let delivered = if order.state == State::RefundPending {
                        order.delivered
                    } else {
                        stored.delivered
                    };
                    write_order(transaction, &Order { delivered, ..order.clone() })?;
                    let take = "UPDATE orders SET worker = ?2 WHERE id = ?1";
                    transaction
                        .execute(take, &[Value::from(&order.id.0), transaction.worker().into()])?;
                }
                write_lease(transaction, &lease)?;
                free_port(transaction, &lease.id)
            })
            .await
    }

    async fn revenue(&self, since: UnixTime) -> Result<Vec<HourlyRevenue>> {
        self.database
            .transact(move |transaction| {
                let hours =
                    "SELECT created_at / 3600, count(*), CAST(sum(earned) AS BIGINT) FROM orders
                     WHERE earned <> 0 AND created_at >= ?1 GROUP BY created_at / 3600 ORDER BY 1";
                let read = |mut row: Row| {
                    let mut number =
                        || Ok::<_, LedgerError>(u64::try_from(row.number()?).unwrap_or(0));
                    let (hour, orders, earned) = (number()?, number()?, number()?);
                    Ok(HourlyRevenue {
                        from: UnixTime(hour.saturating_mul(3600)),
                        orders,
                        earned: Sat(earned),
                    })
                };
                transaction.query(hours, &[stored(since)])?.into_iter().map(read).collect()
            })
            .await
    }

    async fn count_by_state(&self) -> Result<Vec<(State, u64)>> {
        self.database
            .transact(move |transaction| {
                let read = |mut row: Row| {
                    let (state, count) = (row.text()?, row.number()?);
                    let state = State::parse(&state)
                        .ok_or_else(|| LedgerError::Unreadable(format!("state {state}")))?;
                    Ok((state, u64::try_from(count).unwrap_or(0)))
                };
                transaction
                    .query("SELECT state, count(*) FROM orders GROUP BY state", &[])?
                    .into_iter()
                    .map(read)
                    .collect()
            })
            .await
    }

    async fn claim_message(&self, id: &str, now: UnixTime) -> Result<bool> {
        let id = id.to_owned();
        self.database
            .transact(move |transaction| {
                let elsewhere = transaction.is_alive_elsewhere("seen.worker");
                let take = format!(
                    "INSERT INTO seen (id, at, worker, done) VALUES (?1, ?2, ?3, 0)
                 ON CONFLICT (id) DO UPDATE SET worker = excluded.worker
                 WHERE seen.done = 0 AND NOT {elsewhere}"
                );
                Ok(transaction.execute(
                    &take,
                    &[Value::from(&id), stored(now), transaction.worker().into()],
                )? == 1)
            })
            .await
    }

    async fn complete_message(
        &self,
        id: &str,
        now: UnixTime,
        forget_before: UnixTime,
    ) -> Result<()> {
        let id = id.to_owned();
        self.database
            .transact(move |transaction| {
                let done = "INSERT INTO seen (id, at, worker, done) VALUES (?1, ?2, ?3, 1) ON CONFLICT (id) DO UPDATE SET done = 1";
                transaction.execute(done, &[Value::from(&id), stored(now), transaction.worker().into()])?;
                Ok(transaction.execute("DELETE FROM seen WHERE at < ?1", &[stored(forget_before)]).map(drop)?)
            })
            .await
    }

    async fn kv_read(&self, name: &str) -> Result<Option<String>> {
        let name = name.to_owned();
        self.database
            .transact(move |transaction| {
                let row = transaction
                    .first("SELECT value FROM notes WHERE name = ?1", &[Value::from(&name)])?;
                Ok(row.map(|mut row| row.text()).transpose()?)
            })
            .await
    }

    async fn kv_write(&self, name: &str, value: &str) -> Result<()> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.database
            .transact(move |transaction| {
                let upsert = "INSERT INTO notes (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
                Ok(transaction.execute(upsert, &[Value::from(&name), Value::from(&value)]).map(drop)?)
            })
            .await
    }
}
