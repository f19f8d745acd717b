//! `paygress-ledger`: the book of orders, leases, ports and proofs, on disk.
//!
//! The statements are the same for SQLite and Postgres (`paygress-database`); the suite in
//! `tests/conformance.rs` says what any ledger must do, and both pass it. Secrets (tokens,
//! passwords, refunds) have columns of their own, which are emptied as soon as they are not needed.

mod migrations;
mod sql_store;

pub use sql_store::SqlStore;
