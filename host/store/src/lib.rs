//! `paygress-store`: the book of orders, leases, ports and proofs, on disk.
//!
//! The statements are the same for SQLite and Postgres ([`db`]); the suite in
//! `tests/conformance.rs` says what any ledger must do, and both pass it. Secrets (tokens,
//! passwords, refunds) have columns of their own, which are emptied as soon as they are not needed.

pub mod db;
mod migrations;
mod sql_store;

pub use sql_store::SqlStore;
