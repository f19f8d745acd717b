//! One SQLite file.
//!
//! SQLite before 3.51.3 can lose writes if two connections write and checkpoint at the same instant
//! (its "WAL-reset bug"), and this is an older one: the mint of the tests ties us to it. So at most
//! one process writes a file at a time: one that is ours alone is locked while it is open, and one
//! that commands may write beside the service is locked for each transaction, with the checkpoint in
//! its commit.

use crate::db::dialect::{Dialect, Schema, SchemaVersion};
use crate::db::error::DatabaseError;
use crate::db::transaction::{Backend, ReplicaId, Transaction, Undo, Work};
use crate::db::value::{Row, Value};
use paygress_core::FileLock;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a write waits for another connection's, a backup's for instance, before it fails.
const BUSY: Duration = Duration::from_secs(10);

/// Prepared statements that are kept: more than a schema has. Preparing one again costs as much as
/// running it.
const STATEMENTS: usize = 128;

/// Between two looks at another process's lock. Its transactions take milliseconds.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// There is one replica: whoever opens a file takes over all that an earlier process left in it.
const REPLICA: ReplicaId = ReplicaId::new(0);

#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error(
        "database {path} cannot be opened: {source}; check that the directory exists and belongs to this user"
    )]
    File { path: PathBuf, source: io::Error },
    #[error(
        "database {0} is not there: the service makes it at its first start; run this in its working directory, with its configuration"
    )]
    Missing(PathBuf),
    #[error(
        "database {0} is in use by another paygress; stop it, or configure separate files for this one"
    )]
    InUse(PathBuf),
    #[error(
        "database {path} has schema version {found}, and this program supports {known}; use the newer program"
    )]
    Newer {
        path: PathBuf,
        found: usize,
        /// The newest version that this program supports.
        known: usize,
    },
    /// The file is damaged, or not a database.
    #[error("database {path} cannot be read: {source}; restore it from a backup")]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("opening the database was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// No other process may have the file open this way.
    Exclusive,
    Shared,
    ReadOnly,
}

/// One file. Transactions run one after the other.
pub(crate) struct Sqlite {
    connection: Mutex<Connection>,
    path: PathBuf,
    behavior: TransactionBehavior,
    write_lock: WriteLock,
}

/// Who else may write the file.
enum WriteLock {
    /// Nobody: the lock is held as long as the file is open.
    Exclusive { _lock: FileLock },
    /// Others, one after the other.
    ForEachWrite(File),
    /// This process does not write it.
    Unneeded,
}

impl WriteLock {
    /// The right to write, until it is dropped; none is needed where nobody else has it. Waits for the
    /// others' transactions.
    fn acquire(&self) -> io::Result<Option<FileLock<&File>>> {
        let Self::ForEachWrite(file) = self else { return Ok(None) };
        let started = Instant::now();
        loop {
            match FileLock::try_lock(file) {
                Ok(lock) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) if started.elapsed() < BUSY => {
                    std::thread::sleep(LOOK_AGAIN_AFTER);
                }
                Err(TryLockError::WouldBlock) => {
                    let waited =
                        format!("another process has been writing for {} s", BUSY.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, waited));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Sqlite {
    /// Blocks.
    pub(crate) fn open(path: &Path, schema: Schema, access: Access) -> Result<Self, SqliteError> {
        match access {
            Access::Exclusive => {
                create_directory(path)?;
                Self::open_to_write(path, schema, WriteLock::Exclusive { _lock: lock(path)? })
            }
            Access::Shared => {
                create_directory(path)?;
                let file = |source| SqliteError::File { path: path.to_owned(), source };
                let lock = open_private(&beside(path, ".write-lock")).map_err(file)?;
                Self::open_to_write(path, schema, WriteLock::ForEachWrite(lock))
            }
            Access::ReadOnly => Self::open_to_read(path, schema),
        }
    }

    fn open_to_write(
        path: &Path,
        schema: Schema,
        write_lock: WriteLock,
    ) -> Result<Self, SqliteError> {
        let file = |source| SqliteError::File { path: path.to_owned(), source };
        let writing = write_lock.acquire().map_err(file)?;
        open_private(path).map_err(file)?;
        let database = |source| SqliteError::Database { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(database)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.busy_timeout(BUSY).map_err(database)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(database)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(database)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(database)?;
        // Secrets that are wiped must not linger in the file.
        connection.pragma_update(None, "secure_delete", true).map_err(database)?;
        check_version(&connection, path, schema)?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(database)?;
        let found = check_version(&transaction, path, schema)?;
        for (step, version) in schema.steps.iter().zip(1_usize..).skip(found) {
            transaction.execute_batch(step.sqlite).map_err(database)?;
            transaction.pragma_update(None, "user_version", version).map_err(database)?;
        }
        transaction.commit().map_err(database)?;
        drop(writing);
        let (path, behavior) = (path.to_owned(), TransactionBehavior::Immediate);
        Ok(Self { connection: Mutex::new(connection), path, behavior, write_lock })
    }

    /// The version of a file's schema, which is not changed. Blocks.
    pub(crate) fn version(path: &Path, schema: Schema) -> Result<SchemaVersion, SqliteError> {
        let opened = Self::open_to_read(path, schema)?;
        let connection = opened.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let found = check_version(&connection, path, schema)?;
        Ok(SchemaVersion { name: schema.name, found, known: schema.steps.len() })
    }

    fn open_to_read(path: &Path, schema: Schema) -> Result<Self, SqliteError> {
        // SQLite's own error would not say why.
        File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SqliteError::Missing(path.to_owned()),
            _ => SqliteError::File { path: path.to_owned(), source },
        })?;
        let database = |source| SqliteError::Database { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(database)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.busy_timeout(BUSY).map_err(database)?;
        check_version(&connection, path, schema)?;
        let (path, behavior) = (path.to_owned(), TransactionBehavior::Deferred);
        let write_lock = WriteLock::Unneeded;
        Ok(Self { connection: Mutex::new(connection), path, behavior, write_lock })
    }
}

fn create_directory(path: &Path) -> Result<(), SqliteError> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        Some(parent) => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|source| SqliteError::File { path: path.to_owned(), source }),
        None => Ok(()),
    }
}

/// Opens or creates a file that no other user may read.
fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The path of a file that belongs to the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn lock(path: &Path) -> Result<FileLock, SqliteError> {
    let file = |source| SqliteError::File { path: path.to_owned(), source };
    let lock = open_private(&beside(path, ".lock")).map_err(file)?;
    FileLock::try_lock(lock).map_err(|error| match error {
        TryLockError::WouldBlock => SqliteError::InUse(path.to_owned()),
        TryLockError::Error(error) => file(error),
    })
}

/// The schema's version, if this program supports it.
fn check_version(
    connection: &Connection,
    path: &Path,
    schema: Schema,
) -> Result<usize, SqliteError> {
    let database = |source| SqliteError::Database { path: path.to_owned(), source };
    let found: usize =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)?;
    match found > schema.steps.len() {
        true => Err(SqliteError::Newer { path: path.to_owned(), found, known: schema.steps.len() }),
        false => Ok(found),
    }
}

fn failed(error: rusqlite::Error) -> DatabaseError {
    DatabaseError::failed(error)
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
                    Err(DatabaseError::unreadable("a column is of an unknown type"))
                }
            };
            all.push(Row::new((0..columns).map(value).collect::<Result<_, _>>()?));
        }
        Ok(all)
    }

    fn replica_id(&self) -> ReplicaId {
        REPLICA
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }
}

impl Backend for Sqlite {
    fn free_bytes(&self) -> Result<Option<u64>, DatabaseError> {
        let disk = rustix::fs::statvfs(&self.path).map_err(DatabaseError::failed)?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    fn transact(&self, work: &mut Work<'_>) -> Result<(), Undo> {
        let undo = |error| Undo::Database(failed(error));
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = self.write_lock.acquire();
        let _writing = locked.map_err(|error| Undo::Database(DatabaseError::failed(error)))?;
        let mut transaction = connection.transaction_with_behavior(self.behavior).map_err(undo)?;
        work(&mut transaction)?;
        transaction.commit().map_err(undo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    const EMPTY: Schema = Schema { name: "empty", steps: &[] };

    #[test]
    fn at_most_one_process_writes_a_shared_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wallet.sqlite");
        let sqlite = Sqlite::open(&path, EMPTY, Access::Shared).unwrap();
        // Another process, as far as the lock is concerned.
        let other = open_private(&beside(&path, ".write-lock")).unwrap();
        let mut was_locked = false;
        let done = sqlite.transact(&mut |transaction| {
            was_locked = matches!(other.try_lock(), Err(TryLockError::WouldBlock));
            transaction
                .execute("CREATE TABLE written (at INTEGER)", &[])
                .map_err(Undo::Database)?;
            Ok(())
        });
        assert!(done.is_ok() && was_locked);

        other.try_lock().unwrap();
        let (sender, began) = mpsc::channel();
        let writer = thread::spawn(move || {
            let done = sqlite.transact(&mut |_| {
                sender.send(()).unwrap();
                Ok(())
            });
            assert!(done.is_ok());
        });
        let waited = began.recv_timeout(Duration::from_millis(50));
        assert_eq!(waited, Err(mpsc::RecvTimeoutError::Timeout), "it waits for the other one");
        other.unlock().unwrap();
        began.recv_timeout(Duration::from_secs(60)).unwrap();
        writer.join().unwrap();
        other.try_lock().unwrap();
    }

    #[test]
    fn the_lock_is_needed_as_long_as_sqlite_is_old() {
        // From 3.51.3 on, `WriteLock` can go.
        assert!(rusqlite::version_number() < 3_051_003, "{}", rusqlite::version());
    }
}
