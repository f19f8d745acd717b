//! One SQLite file.

use crate::db::{Backend, DatabaseError, Row, Schema, Transaction, Undo, Value, Work};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How long a write waits for another connection's, a backup's for instance, before it fails.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a SQLite file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory.
    #[error(
        "the database {path} cannot be opened: {source}; check that the directory exists and belongs to this user"
    )]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the database {0} is in use by another paygress; stop that one, or give this one files of its own"
    )]
    InUse(PathBuf),
    /// A newer version wrote it.
    #[error(
        "the database {path} is of version {found}, and this program knows {known}; use the newer program"
    )]
    Newer {
        /// Its path.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest that this program knows.
        known: usize,
    },
    /// It is not a database, or a damaged one.
    #[error("the database {path} cannot be read: {source}; restore it from a backup")]
    Database {
        /// Its path.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// One file. Transactions run one after the other.
pub(crate) struct Sqlite {
    connection: Mutex<Connection>,
    writes: bool,
    // Held as long as the file is open.
    _lock: Option<File>,
}

impl Sqlite {
    /// `alone`: no other process may have it open this way too.
    pub(crate) fn open(path: &Path, schema: Schema, alone: bool) -> Result<Self, OpenError> {
        let file = |source| OpenError::File { path: path.to_owned(), source };
        if let Some(parent) =
            path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists())
        {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(file)?;
        }
        let lock = if alone { Some(lock(path)?) } else { None };
        private(path).map_err(file)?;
        let database = |source| OpenError::Database { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(database)?;
        connection.busy_timeout(BUSY).map_err(database)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(database)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(database)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(database)?;
        // What is wiped must not linger in the file.
        connection.pragma_update(None, "secure_delete", true).map_err(database)?;
        version(&connection, path, schema)?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(database)?;
        let found = version(&transaction, path, schema)?;
        for (step, version) in schema.steps.iter().zip(1_usize..).skip(found) {
            transaction.execute_batch(step).map_err(database)?;
            transaction.pragma_update(None, "user_version", version).map_err(database)?;
        }
        transaction.commit().map_err(database)?;
        Ok(Self { connection: Mutex::new(connection), writes: true, _lock: lock })
    }

    pub(crate) fn open_to_read(path: &Path, schema: Schema) -> Result<Self, OpenError> {
        // Without this SQLite would say only that it cannot.
        File::open(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let database = |source| OpenError::Database { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(database)?;
        connection.busy_timeout(BUSY).map_err(database)?;
        version(&connection, path, schema)?;
        Ok(Self { connection: Mutex::new(connection), writes: false, _lock: None })
    }
}

/// For this user only.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let file = |source| OpenError::File { path: path.to_owned(), source };
    let lock = private(Path::new(&lock_path)).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(file(error)),
    }
}

/// The schema's version, if it is one that this program knows.
fn version(connection: &Connection, path: &Path, schema: Schema) -> Result<usize, OpenError> {
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let found: usize =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)?;
    match found > schema.steps.len() {
        true => Err(OpenError::Newer { path: path.to_owned(), found, known: schema.steps.len() }),
        false => Ok(found),
    }
}

fn failed(error: rusqlite::Error) -> DatabaseError {
    DatabaseError::Failed(error.to_string())
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => rusqlite::types::Null.into(),
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
        })
    }
}

impl Transaction for rusqlite::Transaction<'_> {
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        let changed = self
            .prepare_cached(statement)
            .and_then(|mut statement| statement.execute(rusqlite::params_from_iter(values)));
        changed.map(|rows| u64::try_from(rows).unwrap_or(u64::MAX)).map_err(failed)
    }

    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        let mut statement = self.prepare_cached(statement).map_err(failed)?;
        let columns = statement.column_count();
        let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(failed)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let value = |column| match row.get_ref(column).map_err(failed)? {
                ValueRef::Null => Ok(Value::Null),
                ValueRef::Integer(number) => Ok(Value::Number(number)),
                ValueRef::Text(text) => Ok(Value::Text(String::from_utf8_lossy(text).into_owned())),
                ValueRef::Real(_) | ValueRef::Blob(_) => {
                    Err(DatabaseError::Unreadable("a column of an unknown type".to_owned()))
                }
            };
            all.push(Row::new((0..columns).map(value).collect::<Result<_, _>>()?));
        }
        Ok(all)
    }

    fn worker(&self) -> i64 {
        0
    }

    fn is_alive_elsewhere(&self, _: &str) -> String {
        // Whoever worked before us is gone: the file is ours.
        "(1 = 0)".to_owned()
    }
}

impl Backend for Sqlite {
    fn transact(&self, work: &mut Work<'_>) -> Result<(), Undo> {
        let undo = |error| Undo::Database(failed(error));
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let behavior = if self.writes {
            TransactionBehavior::Immediate
        } else {
            TransactionBehavior::Deferred
        };
        let mut transaction = connection.transaction_with_behavior(behavior).map_err(undo)?;
        work(&mut transaction)?;
        transaction.commit().map_err(undo)
    }
}
