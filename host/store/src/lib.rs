//! `paygress-store`: orders, leases, ports and messages on disk, in SQLite (one process) or
//! Postgres (several replicas).
//!
//! ```text
//! order service ── Ledger ─────▶ orders, refunds, leases, ports, reporting ─┐
//! Nostr inbox ──── InboxStore ─▶ messages ──────────────────────────────────┤ SqlStore
//!                                                                           ▼
//! wallet (paygress-cashu) ────────────────────────────────────────▶ db::Database::transact
//!                                                                     ├─ SQLite
//!                                                                     └─ Postgres
//! ```
//!
//! It implements the traits of `paygress_core::backend::store` and may use nothing else of the
//! workspace but the HTTP client's TLS configuration; no other crate speaks SQL to a driver. The
//! wallet keeps its own tables and knows only [`db`].
//!
//! **SQL.** A statement that both databases take is written once, in the Rust code that runs it.
//! Its parameters are `?1`, `?2`, …; `db/postgres.rs` turns them into `$1`, and nothing else is
//! ever rewritten. A statement that differs has one file for each database under `sql/` and is read
//! by [`dialect_sql!`]: the schema, step by step, and what asks which replicas are alive.
//!
//! **Rows.** An order or lease is one JSON document in the column `body` (`rows.rs`); the columns
//! beside it are those that are searched for. Secrets (token, password, refund) have columns of
//! their own, which are emptied as soon as they are not needed.
//!
//! The suite in `tests/` says what any implementation of the traits must do; both databases pass
//! it.
//!
//! ```
//! use paygress_core::backend::store::{KvStore, OrderStore};
//! use paygress_core::model::ids::OrderId;
//! use paygress_store::SqlStore;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let directory = tempfile::tempdir()?;
//! let store = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await?;
//! assert!(store.order(&OrderId::random()).await?.is_none());
//! store.kv_write("cursor", "1700000000").await?;
//! assert_eq!(store.kv_read("cursor").await?.as_deref(), Some("1700000000"));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod customer_history;
pub mod db;
mod decision_basis;
mod hours;
mod lease_update;
mod leases;
mod messages;
mod orders;
mod ownership;
mod ports;
mod refunds;
mod reporting;
mod rows;
mod sql_store;
mod transition;

pub use sql_store::SqlStore;

#[cfg(test)]
mod tests {
    #[test]
    fn statements_look_for_live_replicas_in_our_lock_class() {
        let class = format!("classid = {} ", crate::db::LOCK_CLASS);
        for statement in [crate::orders::TAKE_OVER_ORDERS, crate::messages::CLAIM_MESSAGE] {
            assert!(statement.postgres.contains(&class), "{}", statement.postgres);
        }
    }
}
