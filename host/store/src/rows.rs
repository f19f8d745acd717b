//! The form in which orders and leases are stored.

use crate::db::{Row, Transaction, Value};
use crate::sql_store::Result;
use paygress_core::backend::store::LedgerError;
use paygress_core::model::ids::{Customer, MessageId, OrderId, PublicKey};
use paygress_core::model::order::{Lease, LeaseState, Order, State};
use paygress_core::model::order_record::{OrderRecord, OrderSecrets, RefusedRecord};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::UnixTime;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Damaged rows that are logged, each once, and that are listed.
pub(crate) const REPORTS: usize = 1_000;

/// The columns that [`read_order`] takes.
pub(crate) const SELECT_ORDERS: &str = "SELECT id, body, token, password, refund_token, delivered, message, customer, created_at \
     FROM orders";
/// The columns that [`read_lease`] takes.
pub(crate) const SELECT_LEASES: &str = "SELECT id, body FROM leases";

pub(crate) fn read_order(mut row: Row) -> Result<Order> {
    let id = row.text()?;
    order(&id, row).map_err(|error| unreadable_row("order", &id, error))
}

fn order(id: &str, mut row: Row) -> Result<Order> {
    let body = row.text()?;
    if RefusedRecord::is_written_in(&body) {
        return read_refused(id, &body, row);
    }
    let record: OrderRecord = from_json(&body)?;
    let mut secret = || Ok::<_, LedgerError>(row.optional_text()?.map(Secret::new));
    let secrets = OrderSecrets { token: secret()?, password: secret()?, refund_token: secret()? };
    let delivered = row.number()? != 0;
    let order = record.into_order(secrets).map_err(LedgerError::unreadable)?;
    Ok(Order { delivered, ..order })
}

/// An order of which only the refusal is kept.
fn read_refused(id: &str, body: &str, mut row: Row) -> Result<Order> {
    let record: RefusedRecord = from_json(body)?;
    let _secrets = (row.optional_text()?, row.optional_text()?, row.optional_text()?);
    let _delivered = row.number()?;
    let id = OrderId::parse(id).map_err(LedgerError::unreadable)?;
    let message = MessageId::parse(row.text()?).map_err(LedgerError::unreadable)?;
    let customer = row.text()?;
    let customer = match customer.as_str() {
        "" => None,
        customer => Some(Customer::parse(customer).map_err(LedgerError::unreadable)?),
    };
    Ok(record.into_order(id, message, customer, UnixTime(row.amount()?)))
}

/// Keeps the refusal of a refused order, and nothing else of it. That it is shortened is in the
/// column that says that it needs no response any more.
pub(crate) fn shorten_refused(transaction: &mut dyn Transaction, order: &Order) -> Result<()> {
    let Some(record) = RefusedRecord::of(order) else { return Ok(()) };
    let statement = "UPDATE orders SET body = ?2, lease = NULL, delivered = 2
         WHERE id = ?1 AND state = 'refused'";
    let values = [Value::from(order.id.as_str()), to_json(&record)?];
    Ok(transaction.execute(statement, &values).map(drop)?)
}

/// A customer as the columns hold them: the empty text for one who is not known.
pub(crate) fn customer_text(customer: Option<&Customer>) -> Value {
    customer.map(Customer::to_string).unwrap_or_default().into()
}

/// What every write of an order stores: id, lease, state, body, token, password, refund, whether it
/// is delivered, what it has earned, and the sat and seconds that count in its customer's history.
/// `counted_state` is the state of which these are.
pub(crate) fn order_columns(order: &Order) -> Result<[Value; 11]> {
    let [sat, seconds] = counted_columns(order);
    let text = |secret: Option<&Secret>| Value::from(secret.map(Secret::expose));
    Ok([
        Value::from(order.id.as_str()),
        order.lease().map(String::from).into(),
        order.state().as_str().into(),
        to_json(order)?,
        text(order.state.token()),
        text(order.state.password()),
        text(order.state.refund_token()),
        Value::Number(order.delivered.into()),
        order.earned().0.into(),
        sat,
        seconds,
    ])
}

fn counted_columns(order: &Order) -> [Value; 2] {
    let (sat, seconds) = order.counted().unzip();
    [sat.map(|sat| sat.0).into(), seconds.flatten().map(|seconds| seconds.0).into()]
}

/// Writes what counts of an order, as it is stored, in its customer's history.
pub(crate) fn write_counted(transaction: &mut dyn Transaction, order: &Order) -> Result<()> {
    let statement = "UPDATE orders SET counted_sat = ?2, counted_seconds = ?3,
             counted_state = state WHERE id = ?1";
    let [sat, seconds] = counted_columns(order);
    let values = [Value::from(order.id.as_str()), sat, seconds];
    Ok(transaction.execute(statement, &values).map(drop)?)
}

/// Writes a new order, this replica's.
pub(crate) fn insert_order(transaction: &mut dyn Transaction, order: &Order) -> Result<()> {
    let statement = "INSERT INTO orders (id, lease, state, body, token, password, refund_token,
             delivered, earned, counted_sat, counted_seconds, counted_state, message, customer,
             created_at, worker)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?3, ?12, ?13, ?14, ?15)";
    let mut values = Vec::from(order_columns(order)?);
    values.extend([
        Value::from(order.message.as_str()),
        customer_text(order.customer()),
        time(order.created_at),
        transaction.replica_id().into(),
    ]);
    Ok(transaction.execute(statement, &values).map(drop)?)
}

/// Writes an order over what is stored of it, whatever that is.
pub(crate) fn write_order(transaction: &mut dyn Transaction, order: &Order) -> Result<()> {
    let statement = "UPDATE orders SET lease = ?2, state = ?3, body = ?4, token = ?5, \
         password = ?6, refund_token = ?7, delivered = ?8, earned = ?9, counted_sat = ?10, \
         counted_seconds = ?11, counted_state = ?3 WHERE id = ?1";
    Ok(transaction.execute(statement, &order_columns(order)?).map(drop)?)
}

pub(crate) fn read_state(text: &str) -> Result<State> {
    State::parse(text).ok_or_else(|| LedgerError::unreadable(format!("unknown order state {text}")))
}

pub(crate) fn read_lease(mut row: Row) -> Result<Lease> {
    let id = row.text()?;
    let lease = row.text().map_err(LedgerError::from).and_then(|body| from_json(&body));
    lease.map_err(|error| unreadable_row("lease", &id, error))
}

/// Names the row that cannot be read.
pub(crate) fn unreadable_row(what: &str, id: &str, error: LedgerError) -> LedgerError {
    match error {
        LedgerError::Unreadable(source) => {
            LedgerError::unreadable(format!("{what} {id}: {source}"))
        }
        error => error,
    }
}

/// What can be read: one damaged row does not keep the others from being served. Each that cannot
/// is logged once; `paygress ledger audit` names it.
pub(crate) fn readable<T>(rows: Vec<Row>, read: impl Fn(Row) -> Result<T>) -> Vec<T> {
    rows.into_iter().filter_map(|row| read(row).map_err(|error| report_once(&error)).ok()).collect()
}

fn report_once(error: &LedgerError) {
    static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    if reported.len() < REPORTS && reported.insert(error.to_string()) {
        tracing::error!(%error, "a row is skipped; restore the database, or ask for help");
    }
}

/// Writes a lease, new or changed.
pub(crate) fn write_lease(transaction: &mut dyn Transaction, lease: &Lease) -> Result<()> {
    let state = match lease.state {
        LeaseState::Reserved => "reserved",
        LeaseState::Live => "live",
        LeaseState::Ended => "ended",
    };
    let statement =
        "INSERT INTO leases (id, pod, customer, state, created_at, body, pod_key, ends_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body,
         pod_key = excluded.pod_key, ends_at =
            CASE WHEN leases.state = 'ended' THEN leases.ends_at ELSE excluded.ends_at END";
    let values = [
        Value::from(lease.id.as_str()),
        String::from(lease.pod()).into(),
        customer_text(lease.customer.as_ref()),
        state.into(),
        time(lease.created_at),
        to_json(lease)?,
        lease.pod_key.as_ref().map(PublicKey::as_str).into(),
        ends_at(lease).map(|at| at.0).into(),
    ];
    Ok(transaction.execute(statement, &values).map(drop)?)
}

/// When its pod ends, or has ended: a lease that is written as ended does so now, or did. None of one
/// that has never run.
fn ends_at(lease: &Lease) -> Option<UnixTime> {
    let sold = lease.expires_at?;
    match lease.state {
        LeaseState::Ended => Some(sold.min(UnixTime::now())),
        LeaseState::Reserved | LeaseState::Live => Some(sold),
    }
}

pub(crate) fn time(time: UnixTime) -> Value {
    time.0.into()
}

fn from_json<T: serde::de::DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(LedgerError::unreadable)
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Value> {
    serde_json::to_string(value).map(Value::Text).map_err(LedgerError::unreadable)
}
