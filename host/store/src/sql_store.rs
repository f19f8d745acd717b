use crate::db::{Database, Schema, SqliteError};
use crate::dialect_sql;
use paygress_core::backend::store::LedgerError;
use paygress_core::limits;
use std::path::Path;

pub(crate) type Result<T> = std::result::Result<T, LedgerError>;

/// Orders, leases, ports and messages in a database.
#[derive(Clone)]
pub struct SqlStore {
    pub(crate) database: Database,
    /// What must be free on its disk before a new order is taken.
    pub(crate) reserve: u64,
}

impl SqlStore {
    pub const SCHEMA: Schema = Schema {
        name: "ledger",
        steps: &[
            dialect_sql!("ledger_1"),
            dialect_sql!("ledger_2"),
            dialect_sql!(both "ledger_3"),
            dialect_sql!(both "ledger_4"),
            dialect_sql!(both "ledger_5"),
            dialect_sql!("ledger_6"),
            dialect_sql!("ledger_7"),
            dialect_sql!(both "ledger_8"),
            dialect_sql!(both "ledger_9"),
        ],
    };

    /// The store in a database that was opened with [`SqlStore::SCHEMA`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, reserve: limits::DISK_RESERVE }
    }

    /// With another reserve than the default.
    #[must_use]
    pub fn with_reserve(self, reserve: u64) -> Self {
        Self { reserve, ..self }
    }

    /// Opens a SQLite file for this process alone.
    ///
    /// # Errors
    /// [`SqliteError`], which says what to do.
    pub async fn sqlite(path: &Path) -> std::result::Result<Self, SqliteError> {
        Database::sqlite(path, Self::SCHEMA).await.map(Self::new)
    }
}
