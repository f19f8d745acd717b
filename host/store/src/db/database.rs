//! `paygress-database`: transactions, on SQLite or Postgres, for the rooms that keep books (the
//! ledger, the purse).
//!
//! ```text
//! Database::transact(work) ── one transaction, as if it were alone: all of it is on disk when this returns, or nothing is
//!   ├─ sqlite.rs    one file, one process, WAL, synchronous=FULL: the default
//!   └─ postgres.rs  several replicas: serialisable; each knows which of the others are alive
//! ```
//!
//! Statements are written once: text and 64-bit numbers are all there is, parameters are `?1`,
//! `?2`, …
//!
//! This is the only room that knows a database.

mod postgres;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;

pub use postgres::PostgresError;
pub use sqlite::OpenError;

use paygress_core::backend::store::LedgerError;
use paygress_core::model::secret::Secret;
use std::path::Path;
use std::sync::Arc;

/// Tables, version by version. Forward only: a released step is never edited, the next one is
/// added. Written for SQLite; Postgres takes the same steps with its own words.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Its name among those of one database.
    pub name: &'static str,
    /// Step `n` takes it from version `n` to `n + 1`.
    pub steps: &'static [&'static str],
}

/// Why a transaction failed. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// What is stored does not read as what was stored.
    #[error("{0}")]
    Unreadable(String),
    /// The database said no.
    #[error("{0}")]
    Failed(String),
}

impl From<DatabaseError> for LedgerError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unreadable(why) => Self::Unreadable(why),
            DatabaseError::Failed(why) => Self::Database(why),
        }
    }
}

/// A value in a statement or a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value {
    /// Stops at the largest number that databases hold.
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row, read from its first column to its last.
#[derive(Debug)]
pub struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// The next column, a text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&mut self) -> Result<String, DatabaseError> {
        self.maybe()?.ok_or_else(|| unreadable("a text is missing"))
    }

    /// The next column, a text or nothing.
    ///
    /// # Errors
    /// When it is something else.
    pub fn maybe(&mut self) -> Result<Option<String>, DatabaseError> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(unreadable("a column is not a text")),
        }
    }

    /// The next column, a number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&mut self) -> Result<i64, DatabaseError> {
        match self.0.next() {
            Some(Value::Number(number)) => Ok(number),
            _ => Err(unreadable("a column is not a number")),
        }
    }

    /// The next column, a number that is not negative.
    ///
    /// # Errors
    /// When it is something else.
    pub fn amount(&mut self) -> Result<u64, DatabaseError> {
        u64::try_from(self.number()?).map_err(|_| unreadable("a number is negative"))
    }
}

fn unreadable(what: &str) -> DatabaseError {
    DatabaseError::Unreadable(what.to_owned())
}

/// One transaction.
pub trait Transaction {
    /// Changes something; gives how many rows.
    ///
    /// # Errors
    /// [`DatabaseError`]; then the transaction is over.
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, DatabaseError>;

    /// Reads.
    ///
    /// # Errors
    /// [`DatabaseError`]; then the transaction is over.
    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError>;

    /// Reads the first row, if there is one.
    ///
    /// # Errors
    /// As [`Transaction::query`].
    fn first(&mut self, statement: &str, values: &[Value]) -> Result<Option<Row>, DatabaseError> {
        Ok(self.query(statement, values)?.into_iter().next())
    }

    /// This process among those that share the database.
    fn worker(&self) -> i64;

    /// An SQL condition: the worker in this column is a living process, and not this one.
    fn is_alive_elsewhere(&self, column: &str) -> String;
}

/// Work in a transaction. It may be run more than once, when another transaction came in between;
/// `Err` undoes it.
type Work<'a> = dyn FnMut(&mut dyn Transaction) -> Result<(), Undo> + 'a;

/// Why work is undone: the database's own error, or the caller's reason, which he keeps himself.
enum Undo {
    Database(DatabaseError),
    Caller,
}

trait Backend: Send + Sync {
    fn transact(&self, work: &mut Work<'_>) -> Result<(), Undo>;
}

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    backend: Arc<dyn Backend>,
}

impl Database {
    /// One SQLite file, for this process alone. Makes it if there is none, and brings its schema up
    /// to date.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn sqlite(path: &Path, schema: Schema) -> Result<Self, OpenError> {
        Ok(Self { backend: Arc::new(sqlite::Sqlite::open(path, schema, true)?) })
    }

    /// One SQLite file that other processes may use too. Makes it if there is none, and brings its
    /// schema up to date.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn sqlite_shared(path: &Path, schema: Schema) -> Result<Self, OpenError> {
        Ok(Self { backend: Arc::new(sqlite::Sqlite::open(path, schema, false)?) })
    }

    /// One SQLite file, to read while another process may be writing it.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn sqlite_to_read(path: &Path, schema: Schema) -> Result<Self, OpenError> {
        Ok(Self { backend: Arc::new(sqlite::Sqlite::open_to_read(path, schema)?) })
    }

    /// A Postgres database, shared with other replicas. Brings its schemas up to date.
    ///
    /// # Errors
    /// [`PostgresError`], which says what to do.
    pub async fn postgres(url: &Secret, schemas: &[Schema]) -> Result<Self, PostgresError> {
        let (url, schemas) = (url.clone(), schemas.to_vec());
        let opened =
            tokio::task::spawn_blocking(move || postgres::Postgres::open(&url, &schemas)).await;
        Ok(Self {
            backend: Arc::new(
                opened.unwrap_or_else(|error| Err(PostgresError::Connect(error.to_string())))?,
            ),
        })
    }

    /// Runs one transaction on a thread that may be held; it is on disk when this returns `Ok`. The
    /// work may be run more than once, and is undone when it returns `Err`.
    ///
    /// # Errors
    /// The work's own, or the database's.
    pub async fn transact<T, E>(
        &self,
        mut work: impl FnMut(&mut dyn Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let backend = Arc::clone(&self.backend);
        let job = move || {
            let mut done: Option<Result<T, E>> = None;
            let transacted = backend.transact(&mut |transaction| {
                let mut watched = Watched { transaction, failed: None };
                let result = work(&mut watched);
                let failed = watched.failed.take();
                let undo = match (&result, failed) {
                    (Ok(_), _) => Ok(()),
                    (Err(_), Some(error)) => Err(Undo::Database(error)),
                    (Err(_), None) => Err(Undo::Caller),
                };
                done = Some(result);
                undo
            });
            match (transacted, done) {
                (Ok(()) | Err(Undo::Caller), Some(done)) => done,
                (Err(Undo::Database(error)), _) => Err(error.into()),
                (_, None) => {
                    Err(DatabaseError::Failed("a transaction did nothing".to_owned()).into())
                }
            }
        };
        tokio::task::spawn_blocking(job)
            .await
            .unwrap_or_else(|error| Err(DatabaseError::Failed(error.to_string()).into()))
    }
}

/// A transaction that remembers that the database failed: whatever the work makes of it, that is
/// why it is undone.
struct Watched<'a> {
    transaction: &'a mut dyn Transaction,
    failed: Option<DatabaseError>,
}

impl Watched<'_> {
    fn note<T>(&mut self, done: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        if let Err(error) = &done {
            self.failed = Some(error.clone());
        }
        done
    }
}

impl Transaction for Watched<'_> {
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        let done = self.transaction.execute(statement, values);
        self.note(done)
    }

    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        let done = self.transaction.query(statement, values);
        self.note(done)
    }

    fn worker(&self) -> i64 {
        self.transaction.worker()
    }

    fn is_alive_elsewhere(&self, column: &str) -> String {
        self.transaction.is_alive_elsewhere(column)
    }
}
