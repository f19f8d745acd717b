//! One transaction, whatever the database.

use crate::db::dialect::{Dialect, DialectSql};
use crate::db::error::DatabaseError;
use crate::db::value::{Row, Value};

/// A process among those that share a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaId(i64);

impl ReplicaId {
    pub(crate) const fn new(id: i64) -> Self {
        Self(id)
    }

    #[must_use]
    pub fn as_i64(self) -> i64 {
        self.0
    }
}

impl From<ReplicaId> for Value {
    fn from(id: ReplicaId) -> Self {
        Self::Number(id.0)
    }
}

/// Parameters are written `?1`, `?2`, … in statements for both databases. After an error the
/// transaction is over.
pub trait Transaction {
    /// Runs a statement; returns how many rows it changed.
    ///
    /// # Errors
    /// [`DatabaseError`].
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, DatabaseError>;

    /// # Errors
    /// [`DatabaseError`].
    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError>;

    /// The first row of a query, if there is one.
    ///
    /// # Errors
    /// [`DatabaseError`].
    fn first(&mut self, statement: &str, values: &[Value]) -> Result<Option<Row>, DatabaseError> {
        Ok(self.query(statement, values)?.into_iter().next())
    }

    /// As [`Transaction::execute`], for a statement that each database has its own text of.
    ///
    /// # Errors
    /// [`DatabaseError`].
    fn execute_dialect(
        &mut self,
        statement: DialectSql,
        values: &[Value],
    ) -> Result<u64, DatabaseError> {
        self.execute(statement.text(self.dialect()), values)
    }

    /// This process.
    fn replica_id(&self) -> ReplicaId;

    fn dialect(&self) -> Dialect;
}

/// The body of a transaction. It runs again when another transaction interfered; `Err` undoes it.
pub(crate) type Work<'a> = dyn FnMut(&mut dyn Transaction) -> Result<(), Undo> + 'a;

pub(crate) enum Undo {
    Database(DatabaseError),
    /// The caller's own reason, which it keeps itself.
    Caller,
}

pub(crate) trait Backend: Send + Sync {
    /// The free bytes on its disk; `None` when the disk is not this machine's.
    fn free_bytes(&self) -> Result<Option<u64>, DatabaseError>;

    fn transact(&self, work: &mut Work<'_>) -> Result<(), Undo>;
}

/// Remembers the database's error, whatever error the body of the transaction makes of it: the
/// caller gets this one.
pub(crate) struct FailureRecorder<'a> {
    transaction: &'a mut dyn Transaction,
    failure: Option<DatabaseError>,
}

impl<'a> FailureRecorder<'a> {
    pub(crate) fn new(transaction: &'a mut dyn Transaction) -> Self {
        Self { transaction, failure: None }
    }

    pub(crate) fn into_failure(self) -> Option<DatabaseError> {
        self.failure
    }

    fn record<T>(&mut self, result: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        if let Err(error) = &result {
            self.failure = Some(error.clone());
        }
        result
    }
}

impl Transaction for FailureRecorder<'_> {
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        let result = self.transaction.execute(statement, values);
        self.record(result)
    }

    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        let result = self.transaction.query(statement, values);
        self.record(result)
    }

    fn replica_id(&self) -> ReplicaId {
        self.transaction.replica_id()
    }

    fn dialect(&self) -> Dialect {
        self.transaction.dialect()
    }
}
