//! Transactions on SQLite or Postgres. The wallet's store is built on this module alone.
//!
//! ```text
//! Database::transact(work) ── one serialisable transaction: on disk when it returns, or undone
//!   ├─ sqlite.rs    one file, one process, WAL, synchronous=FULL: the default
//!   └─ postgres.rs  several replicas; each knows which of the others are alive
//! ```

mod database;
mod dialect;
mod error;
mod postgres;
mod retention;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod value;

pub use database::Database;
pub use dialect::{Dialect, DialectSql, Schema, SchemaVersion};
pub use error::DatabaseError;
#[cfg(test)]
pub(crate) use postgres::LOCK_CLASS;
pub use postgres::{PostgresError, PostgresState};
pub use retention::Retention;
pub use sqlite::SqliteError;
pub use transaction::{ReplicaId, Transaction};
pub use value::{Row, Value};
